"""Analysis of results that were copied elsewhere: every script that only reads files takes --results DIR."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdpg.config import from_snakemake
from sdpg.config.command import snakemake_command
from tests.analysis.fake_results import write_results

ROOT = Path(__file__).resolve().parents[2]

SCALE = """
name: fake
seeds: [0, 1]
model: nowhere
data: {train: {path: x.jsonl}, evaluation: {chain: {path: x.jsonl}, chain-long: {path: x.jsonl}}}
train: {steps: 4, max_prompt_tokens: 8, max_response_tokens: 8}
evaluation: {samples: 8, pass_k: [1, 4], lm_eval: {repeats: 4, limit: 64, forgetting: reverse}}
methods: [sdpg-ufkl, grpo]
"""


def script(name: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sdpg", "make", name, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.long
def test_scores_a_figure_a_table_and_the_report_of_a_copied_folder(tmp_path):
    made = write_results(tmp_path / "made", methods=("sdpg-ufkl", "grpo"), seeds=(0, 1), steps=4, every=2, problems=6)
    copied = shutil.copytree(made.root, tmp_path / "from" / "another machine")
    shutil.rmtree(made.root)
    (tmp_path / "fake.yaml").write_text(SCALE)
    options = ["--scale", str(tmp_path / "fake.yaml"), "--results", str(copied)]
    for name in (
        "scores",
        "figures/final_accuracy",
        "figures/published_curves",
        "power",
        "stability",
        "cost",
        "claims",
        *(f"tables/{table}" for table in ("main", "stability", "cost", "power", "lm_eval")),
        "report",
    ):
        done = script(name, *options)
        assert done.returncode == 0, done.stderr
    for file in ("scores.csv", "figures/final_accuracy.pdf", "figures/published_curves.png", "tables/main.md"):
        assert (copied / file).is_file()
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "scale fake</h1>" in page  # the scale's name, not the folder's
    assert not (ROOT / "results" / "fake").exists()


def test_a_folder_that_is_not_there_is_said():
    done = script("scores", "--results", "no/such/folder")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Invalid value for '--results': dir 'no/such/folder' does not exist")


@pytest.mark.parametrize(
    "overrides",
    [{}, {"seeds": [0, 1]}, {"train.steps": 40, "seeds": [2], "methods.grpo.kl_coef": 0.5}, {"train": {"steps": 3}}],
)
def test_the_command_that_is_shown_has_the_overrides(overrides):
    words = shlex.split(snakemake_command("cpu", overrides))
    assert words[:3] == ["snakemake", "reproduce-all", "--config"]
    options = dict(word.split("=", 1) for word in words[3:])
    assert from_snakemake(options) == ("cpu", overrides)

"""The whole chain with a method that diverges: trained, evaluated, compared and reported, and nothing of it stops."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow.conftest import copy_project

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
SCALE = """
name: wild
extends: smoke
train: {steps: 6, checkpoint_every: 1}
evaluation: {engine: in-process, samples: 2, pass_k: [1], lm_eval: null}
methods:
  sdpg-ufkl: {beta_base: 1.0, T_warm: 1, T_decay: 3}
  grpo: {train: {lr: 10, lr_multiplier: 1000, weight_decay: 0, warmup_steps: 0}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = copy_project(tmp_path_factory.mktemp("project"))
    (made.folder / "wild.yaml").write_text(SCALE)
    made.snakemake("--cores", "2", "reproduce-all", "--config", "scale=wild.yaml")
    return made


def test_a_diverged_run_goes_through_the_whole_workflow(project):
    root = project.folder / "results" / "wild"
    outcome = json.loads((root / "runs/grpo/seed0/run.json").read_text())["outcome"]
    assert outcome["status"] == "diverged" and 1 <= outcome["step"] <= 6
    assert json.loads((root / "runs/sdpg-ufkl/seed0/run.json").read_text())["outcome"] == {"status": "finished", "step": 6}
    evaluated = pd.read_parquet(root / "eval/grpo/seed0/chain.parquet")
    assert evaluated["step"].max() == outcome["last_checkpoint"]
    scores = pd.read_csv(root / "scores.csv").query("metric == 'mean@2'")
    assert scores.groupby("method")["step"].max().tolist() == [6, 6]
    said = f"Diverged: grpo seed 0 at step {outcome['step']}"
    for file in ("tables/main.md", "claims.md", "report.html"):
        assert said in (root / file).read_text()
    files = json.loads((root / "manifest.json").read_text())["files"]
    assert files["runs/grpo/seed0/diverged/batch-0.parquet"]["job"] == "train/grpo-seed0"
    assert "Nothing to be done" in project.snakemake("-n", "reproduce-all", "--config", "scale=wild.yaml")


def test_another_execution_retrains_nothing_and_another_config_leaves_unfinished_runs(project):
    given = ("train", "--config", "scale=wild.yaml")
    assert "Nothing to be done" in project.snakemake("-n", *given, "set=train.micro_batch_tokens=100 train.packed=false")
    assert project.planned(*given, "set=train.keep=last") == {
        f"train {name}, seed 0: 6 steps" for name in ("sdpg-ufkl", "grpo")
    }
    script = (
        "import sys; from sdpg.core.trainer import Trainer; save = Trainer._save_state\n"
        "def stop(self, k):\n    save(self, k); self._finish_saving(); k == 2 and sys.exit(9)\n"
        "Trainer._save_state = stop\n"
        "sys.argv = ['sdpg', *sys.argv[1:]]; from sdpg.__main__ import main; main()\n"
    )
    words = ["train", "--scale", "wild.yaml", "--method", "sdpg-ufkl", "--seed", "0"]
    environment = {**os.environ, "PYTHONPATH": str(project.folder)}
    killed = subprocess.run([sys.executable, "-c", script, *words], cwd=project.folder, env=environment, check=False)
    assert killed.returncode == 9
    work = project.folder / "results/wild/.work/sdpg-ufkl/seed0"
    before = {path: path.read_bytes() for path in sorted(work.rglob("*")) if path.is_file()}
    refused = project.sdpg(*words, "--set", "train.lr=0.01")
    assert refused.returncode == 2
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "sdpg-ufkl/seed0 holds an unfinished run, saved after step 2" in line and "train.lr: 0.0003 -> 0.01" in line
    assert "mv results/wild/.work/sdpg-ufkl/seed0 " in line
    assert {path: path.read_bytes() for path in before} == before
    went_on = project.sdpg(*words, "--set", "train.micro_batch_tokens=100")
    assert went_on.returncode == 0 and "going on after step 2 of 6" in went_on.stderr

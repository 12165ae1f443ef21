"""The rules themselves: complete, clean, and clear about mistakes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sdpg.__main__ import app
from tests.workflow.conftest import ROOT, copy_project

TARGETS = {"reproduce-all", "smoke", "train", "evaluate", "figures", "tables", "report", "claims", "scores", "matrix"}


@pytest.mark.slow
def test_lint_and_targets(finished):
    assert "in a good condition" in finished.snakemake("--lint")
    names = finished.snakemake("--list").split()
    assert set(names) >= TARGETS | {"figures_cost", "tables_main", "data", "base_model", "train_run", "evaluate_run"}


@pytest.mark.slow
def test_every_job_says_what_it_does_and_keeps_a_log(finished):
    lines = finished.snakemake("--detailed-summary", "--config", "scale=smoke").splitlines()
    logs = [line.split("\t")[3] for line in lines if line.startswith("results/")]
    assert len(logs) > 60
    assert all(log.startswith("results/smoke/logs/") for log in logs)
    output = finished.snakemake("-n", "--forceall", "--config", "scale=smoke")
    assert len(re.findall(r"^Job \d+: \[smoke\] ", output, flags=re.MULTILINE)) > 20
    assert not re.findall(r"^(?:local)?rule \w+:", output, flags=re.MULTILINE)  # what Snakemake shows for lack of a message


@pytest.mark.slow
def test_a_dry_run_explains_itself_and_hands_the_threads_down(finished):
    output = finished.snakemake("-n", "-p", "train", "--cores", "2", "--config", "resources={threads: 2}", "seeds=[7]")
    assert "seeds 7; 10 training runs of 160 steps" in output
    assert "Scale cpu: sdpg-ufkl, sdpg-urkl, grpo, grpo-equal-compute, rpg, rlsd, opcd, " in output
    assert "[cpu] train grpo, seed 7: 160 steps" in output
    command = next(line for line in output.splitlines() if "--method grpo" in line)
    assert "--threads 2" in command
    assert "--scale cpu" in command
    assert "'--set=seeds=[7]'" in command


@pytest.mark.slow
def test_a_matrix_of_a_scale_without_cells_is_refused(finished):
    output = finished.snakemake("-n", "matrix", "--config", "scale=cpu", "quick=true", ok=False)
    assert "error: matrix: scale cpu-quick lists no cells" in output and "such as cpu, gsm8k" in output
    assert "with quick=true or another name each cell is run by itself" in output


@pytest.mark.slow
def test_lm_eval_of_the_first_seed_alone_has_jobs_of_its_own(finished):
    common = "resources.evaluate_at_once=true evaluation.engine=in-process evaluation.lm_eval.seeds=1"
    options = ("--config", "scale=smoke", f"set={common}", "seeds=[0,1]")
    planned = {text for text in finished.planned("evaluate", *options) if "lm-eval" in text or text.startswith("evaluate ")}
    runs = [(method, seed) for method in ("sdpg-ufkl", "grpo") for seed in (0, 1)]
    sampled = {f"evaluate {method}, seed {seed}: every checkpoint on chain, chain-long" for method, seed in runs}
    first = {f"lm-eval on the last checkpoint of {method}, seed 0" for method in ("sdpg-ufkl", "grpo")}
    assert planned == sampled | first | {"lm-eval on base model 0"}
    other = finished.snakemake("-n", "results/smoke/eval/grpo/seed1/lm_eval.json", *options, ok=False)
    assert "MissingRuleException" in other and "results/smoke/eval/grpo/seed1/lm_eval.json" in other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("train={stps: 3}", "config key 'train.stps' is unknown; nearest valid key: 'train.steps'"),
        ("methods={grpo: {kl_cof: 1}}", "nearest valid key: methods.grpo.kl_coef"),
        ("scale=smok", "scale 'smok' is unknown; did you mean 'smoke'?"),
    ],
)
def test_a_mistake_in_the_config_stops_a_dry_run(finished, option, expected):
    output = finished.snakemake("-n", "--config", option, ok=False)
    assert expected in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_failing_job_fails_the_workflow_with_one_clear_line(tmp_path):
    project = copy_project(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nmodel: nowhere\ndata: {train: {path: missing.jsonl}, evaluation: {held-out: {path: missing.jsonl}}}\n"
        "train: {steps: 1, max_prompt_tokens: 8, max_response_tokens: 8}\nmethods: [grpo]\n"
    )
    project.snakemake("data", "--config", "scale=mine.yaml", ok=False)
    log = (tmp_path / "results" / "mine" / "logs" / "data.log").read_text()
    assert re.search(r"^error: .*missing\.jsonl", log, flags=re.MULTILINE)
    assert "Traceback" not in log
    assert not list((tmp_path / "results" / "mine").rglob("*.parquet"))


def command_line(*arguments: str, body: str = "print(config_of('smoke', [])['name'])") -> subprocess.CompletedProcess:
    script = f"""
from sdpg.cli import config_of, run
def main():
    {body}
run(main)
"""
    command = [sys.executable, "-c", script] if not arguments else [sys.executable, "-m", "sdpg", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_lines_report_a_users_mistake_in_one_line():
    for arguments, expected in (
        (["artefacts", "--set", "train.stps=3"], "error: config key 'train.stps' is unknown"),
        (["make", "figures/costs"], "error: there is no artefact 'figures/costs'; did you mean 'figures/cost'?"),
        (["make", "matrix", "--scale", "smoke"], "error: artefact 'matrix' is not planned at scale smoke"),
        (["make", "tuning", "--scale", "smoke"], "error: artefact 'tuning' is not planned at scale smoke"),
        (["artefacts", "--scale", "smok"], "error: scale 'smok' is unknown; did you mean 'smoke'?"),
        (["make", "matrix", "--results", "results"], "error: --results: matrix is made from several scales"),
        (["make", "figures/coast"], "error: there is no artefact 'figures/coast'; did you mean 'figures/cost'?"),
        (["train", "--method", "grpo", "--seed", "0", "--threads", "none"], "error: Invalid value for '--threads'"),
        (["trian"], "error: No such command 'trian'"),
        (["train", "--method", "grpo"], "error: Missing option '--seed'"),
    ):
        done = command_line(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith(expected), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(("given", "said"), [([], "1"), (["--threads", "3"], "3")])
def test_an_artefact_is_made_with_as_many_threads_as_asked(monkeypatch, given, said):
    """They were left at one, whatever was asked."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    result = CliRunner().invoke(app, ["make", "figures/coast", *given])
    assert "there is no artefact 'figures/coast'" in str(result.exception)  # made nothing
    assert {os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {said}


def test_help_has_a_line_for_every_command_and_names_complete():
    help_page = command_line("--help").stdout
    names = ("data", "base-model", "train", "evaluate", "lm-eval", "make", "artefacts", "explain", "diff", "plan", "verify")
    names += ("compare", "show")
    for name in names:
        (line,) = [line for line in help_page.splitlines() if line.startswith(f"  {name} ")]
        assert line.endswith("."), line  # not cut
    for words, expected in (
        ("sdpg tr", "train"),
        ("sdpg train --method sdpg-u", "sdpg-ufkl"),
        ("sdpg make figures/co", "figures/cost"),
        ("sdpg explain --scale cpu-str", "cpu-stressed"),
    ):
        asked = {"_SDPG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-m", "sdpg"], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | asked
        )
        assert expected in done.stdout.split(), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("raise KeyboardInterrupt", 130, "stopped by Ctrl-C\n"),
        ("open('/no/such/file')", 2, "error: [Errno 2] No such file or directory: '/no/such/file'\n"),
        ("raise ValueError('two\\nlines')", 2, "error: two lines\n"),
    ],
)
def test_command_lines_and_other_ends(body, code, text):
    done = command_line(body=body)
    assert (done.returncode, done.stderr) == (code, text)


def test_a_bug_keeps_its_traceback():
    done = command_line(body="raise KeyError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


ALWAYS = ("cpu", "gsm8k", "lm", "qwen3-1.7b", "smoke")
PLANNED = [
    pytest.param(path.stem, marks=[] if path.stem in ALWAYS else pytest.mark.long)
    for path in sorted((ROOT / "config" / "scales").glob("*.yaml"))
]


@pytest.mark.slow
@pytest.mark.parametrize("scale", PLANNED)
def test_every_scale_that_comes_with_the_project_can_be_planned(finished, scale):
    output = finished.snakemake("-n", "reproduce-all", "--config", f"scale={scale}")
    assert f"Scale {scale}: " in output

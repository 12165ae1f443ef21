"""The rules themselves: complete, clean, and clear about mistakes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.workflow.conftest import ROOT, copy_project

RULES = {
    name: body
    for file in [ROOT / "Snakefile", *sorted((ROOT / "workflows" / "rules").glob("*.smk"))]
    for name, body in re.findall(r"^ *rule (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(), flags=re.MULTILINE | re.DOTALL)
}
TARGETS = {"reproduce_all", "smoke", "train", "evaluate", "figures", "tables", "matrix"}


def test_the_targets_and_the_stages_are_there():
    stages = {
        "data",
        "base_model",
        "train_run",
        "evaluate_run",
        "scores",
        "power",
        "claims",
        "figure",
        "table",
        "report",
        "tune",
    }
    assert set(RULES) >= TARGETS | stages


@pytest.mark.parametrize("name", RULES)
def test_every_rule_explains_itself_and_says_what_it_takes(name):
    body = RULES[name]
    assert "message:" in body
    if name in TARGETS:
        assert "shell:" not in body
        return
    for directive in ("log:", "benchmark:", "threads:", "resources:", "shell:"):
        assert re.search(rf"^    {directive}", body, flags=re.MULTILINE), f"rule {name} has no {directive}"
    assert "mem_mb=" in body
    assert "gpu=" in body
    assert "| tee -i {log}" in body  # to the log and to whoever is watching
    assert "config=" in body  # what it depends on
    assert "fingerprints(" in body


@pytest.mark.slow
def test_lint_and_targets(finished):
    assert "in a good condition" in finished.snakemake("--lint")
    names = finished.snakemake("--list").split()
    assert set(names) >= {"reproduce-all", "smoke", "train", "evaluate", "figures", "tables", "report"}


@pytest.mark.slow
def test_a_dry_run_explains_itself_and_hands_the_threads_down(finished):
    output = finished.snakemake("-n", "-p", "train", "--cores", "2", "--config", "resources={threads: 2}", "seeds=[7]")
    assert "seeds 7; 13 training runs of 160 steps" in output
    assert "Scale cpu: sdpg-ufkl, sdpg-urkl, grpo, rlsd, opcd, " in output
    assert "[cpu] train grpo, seed 7: 160 steps" in output
    command = next(line for line in output.splitlines() if "--method grpo" in line)
    assert "--threads 2" in command
    assert "--scale cpu" in command
    assert "'--set=seeds=[7]'" in command


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


def command_line(*arguments: str, body: str = "config_from(args)") -> subprocess.CompletedProcess:
    script = f"""
from sdpg.cli import config_from, parser, run
def main():
    args = parser("A script.").parse_args()
    {body}
run(main)
"""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_lines_report_a_users_mistake_in_one_line():
    done = command_line("--set", "train.stps=3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: config key 'train.stps' is unknown")
    assert done.stderr.count("\n") == 1
    assert command_line("--set", "train.steps=3", "--scale", "smoke", "--threads", "2").returncode == 0
    assert "expected a whole number" in command_line("--threads", "none").stderr
    assert "--set KEY=VALUE" in command_line("--help").stdout


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


@pytest.mark.slow
@pytest.mark.parametrize("scale", sorted(path.stem for path in (ROOT / "config" / "scales").glob("*.yaml")))
def test_every_scale_that_comes_with_the_project_can_be_planned(finished, scale):
    output = finished.snakemake("-n", "reproduce-all", "--config", f"scale={scale}")
    assert f"Scale {scale}: " in output

"""The evaluation's commands: one clear line and a non-zero exit code for bad input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("evaluate", ["--method", "grpo", "--seed", "0"], "checkpoints.json is missing; train this run first"),
        ("lm-eval", ["--method", "grpo"], "checkpoints.json is missing; train this run first"),
        ("lm-eval", ["--base", "0"], "config.json is missing"),
        ("lm-eval", [], "give one of --method"),
        ("lm-eval", ["--base", "7"], "--base: got 7; scale smoke has base model 0 alone"),
        ("base-model", ["--base", "-1"], "--base: got -1; scale smoke has base model 0 alone"),
        ("evaluate", ["--method", "nope", "--seed", "0"], "method 'nope' is not in scale smoke; choose one of grpo, sdpg-ufkl"),
        ("lm-eval", ["--method", "nope"], "method 'nope' is not in scale smoke; choose one of grpo, sdpg-ufkl"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(command, options, message, tmp_path):
    line = [sys.executable, "-m", "sdpg", command, "--scale", "smoke", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list(tmp_path.rglob("*.parquet"))

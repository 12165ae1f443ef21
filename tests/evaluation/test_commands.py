"""The evaluation's commands: one clear line and a non-zero exit code for bad input."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("evaluate", ["--method", "grpo", "--seed", "0"], "checkpoints.json is missing; train this run first"),
        ("lm-eval", ["--method", "grpo"], "checkpoints.json is missing; train this run first"),
        ("lm-eval", ["--base", "0"], "config.json is missing"),
        ("lm-eval", [], "give one of --method"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(command, options, message, tmp_path):
    line = [sys.executable, "-m", "sdpg", command, "--scale", "smoke", *options]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list(tmp_path.rglob("*.parquet"))

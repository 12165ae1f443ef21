"""The evaluation's command lines: one clear line and a non-zero exit code for bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "workflows" / "scripts"


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("evaluate", ["--method", "grpo", "--seed", "0"], "checkpoints.json is missing; train this run first"),
        ("lm_evaluate", ["--method", "grpo"], "checkpoints.json is missing; train this run first"),
        ("lm_evaluate", ["--base", "0"], "config.json is missing"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(script, options, message, tmp_path):
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), "--scale", "smoke", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list(tmp_path.rglob("*.parquet"))


def test_scripts_are_thin():
    for name in ("evaluate", "lm_evaluate"):
        assert len((SCRIPTS / f"{name}.py").read_text().splitlines()) <= 40

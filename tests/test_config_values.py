"""Whatever stands in a config is used, or refused in one line that names the key and the file; never anything else."""

from __future__ import annotations

import copy
import json
import math
import re

import pytest
import yaml

import baselines
from sdpg.config import Config, ConfigError, method_config, resolve, run_config
from sdpg.config.checks import dotted_keys, rule_at
from sdpg.tasks.sources import KINDS

TEXTS = """
.inf | -.inf | .nan | -1 | 0 | 1e-300 | 1e300 | 1000000000000000000000000000000 | 1.0 | 1000.0 | 1.5 | true | no | null
abc | "" | " " | "a\\nb" | 2026-13-45 | 2026-11-27 | 1:30 | 010 | ٣ | [] | {} | [1] | [[1]] | [null] | ["abc", 1]
{a: 1} | {1: 2} | {a: {b: [1]}}
"""
VALUES = [text.strip() for line in TEXTS.strip().splitlines() for text in line.split("|")]
VALUES += ["x" * 300, f"{'x' * 300}.yaml", "9" * 5000]
CHAIN = {"chain": {"operations": [2], "count": 3, "seed": 0}}
SCALE = {
    "name": "mine",
    "model": {"pretrained": "some/dir"},
    "data": {"train": CHAIN, "evaluation": {"held-out": CHAIN}, "validation": {"watched": CHAIN}},
    "train": {"steps": 5, "prompts_per_step": 4, "max_prompt_tokens": 32, "max_response_tokens": 16},
    "methods": {"grpo": {}},
}
METHODS = ("grpo", "sdpg-ufkl", "rlsd", "opcd", "opsd", "sdft", "sdpo")
SOURCES = {
    "chain": CHAIN["chain"],
    "reverse": {"count": 3, "seed": 0},
    "reasoning-gym": {"mix": {"add": {"dataset": "basic_arithmetic", "weight": 1}}, "count": 3, "seed": 0},
    "path": "train.jsonl",
    "dataset": "aime24",
}
ASKED = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "input_price": 0, "output_price": 0, "max_cost": 0}
WRITERS = {"local": {"model": "some/dir"}, "endpoint": ASKED, "file": {"path": "solutions.jsonl"}}
MODELS = {"warm_start": {}, "pretrained": "some/dir", "package": {"module": "weights", "gguf": "a.gguf"}}
KEYS = [key for key in dotted_keys(Config) if not key.startswith(("data.train", "model."))]
KEYS += [f"data.train.{key}" for key in dotted_keys(type(resolve("smoke").data.train))]
KEYS += [f"model.{key}" for key in dotted_keys(type(resolve("smoke").model))]
KEYS += ["data.evaluation.held-out", "data.validation.watched", "extends", "sweep.trials.grpo", "methods.grpo", "methods.new"]
KEYS += [f"methods.{method}.{key}" for method in METHODS for key in ("train", "like", "algorithm", "unknown")]
FIELDS = [
    f"methods.{method}.{key}" for method in METHODS for key in baselines.hyperparameters(method.partition("-")[0]).model_fields
]
TRAIN = [f"methods.grpo.{key}" for key in KEYS if key.startswith("train.")]
MEMBERS = ["train.betas.0", "train.reward.1", "seeds.0", "evaluation.pass_k.0", "task.stop.0", "matrix.0"]


def base_of(key: str) -> dict:
    """Return a scale that has the block of a key."""
    scale = copy.deepcopy(SCALE)
    parts = key.split(".")
    if parts[0] == "model" and len(parts) > 1:
        scale["model"] = {parts[1]: copy.deepcopy(MODELS[parts[1]])}
    if key.startswith("data.train."):
        kind = parts[2] if parts[2] in KINDS else "path"
        scale["data"]["train"] = {kind: copy.deepcopy(SOURCES[kind])}
    if parts[:2] == ["data", "solutions"] and len(parts) > 3:
        scale["data"]["solutions"] = {parts[2]: copy.deepcopy(WRITERS[parts[2]])}
    if parts[0] == "methods" and parts[1:2] and parts[1] in METHODS:
        scale["methods"] = {parts[1]: {}}
    if parts[0] == "sweep":
        scale["sweep"] = {"trials": {"grpo": [{"train": {"lr": 1e-4}}]}}
    return scale


def put(scale: dict, key: str, value: object) -> None:
    """Set a key, of a list by its place."""
    *parents, last = key.split(".")
    node = scale
    for at in parents:
        if not isinstance(node.get(at), dict) and not last.isdigit():
            node[at] = {}
        if last.isdigit() and at == parents[-1]:
            node[at] = [value] * (2 if at in ("betas", "reward") else 1)
            return
        node = node.setdefault(at, {})
    node[last] = value


def taken(config: Config, key: str) -> None:
    """Check that a config that was accepted can be used: every part, as JSON, with finite numbers of the right type."""
    dumped = config.dump()
    assert json.dumps(dumped, allow_nan=False)
    for method in config.methods:
        json.dumps(run_config(config, method, 0).dump(), allow_nan=False)
        settings = method_config(config, method)
        fields = {name: value for name, value in settings.items() if name not in ("algorithm", "train")}
        made = baselines.make(settings["algorithm"], **fields)
        for name in fields:
            check_type(rule_at(baselines.hyperparameters(settings["algorithm"]), [name]), getattr(made, name), name)
    value = dumped
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(rule := rule_at(Config, key.split(".")), dict) and value is not None:
        check_type(rule, value, key)


def check_type(rule: dict, value: object, key: str) -> None:
    if rule.get("type") == "integer":
        assert value is None or type(value) is int, key
    if rule.get("type") == "number":
        assert value is None or (isinstance(value, int | float) and math.isfinite(value) and abs(value) <= 1e9), key


@pytest.mark.parametrize("key", [*KEYS, *FIELDS, *TRAIN, *MEMBERS])
def test_every_value_of_every_key_is_used_or_refused_in_one_line(tmp_path, key):
    path = tmp_path / "mine.yaml"
    accepted = 0
    for text in VALUES:
        scale = base_of(key)
        put(scale, key, "@")
        path.write_text(yaml.safe_dump(scale, sort_keys=False, allow_unicode=True).replace("'@'", text))
        try:
            config = resolve(path)
        except ConfigError as error:
            said = str(error)
            assert "\n" not in said and len(said) < 1500, said
            assert str(path) in said, (text, said)
            assert set(key.split(".")[-2:]) & set(re.findall(r"[\w-]+", said)) or "not valid YAML" in said, (text, said)
            assert "Traceback" not in said and "object at 0x" not in said and "pydantic" not in said, (text, said)
        else:
            taken(config, key)
            accepted += 1
    assert accepted < len(VALUES)  # not even a text takes them all

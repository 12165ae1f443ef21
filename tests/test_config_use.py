"""Every setting is used: it is in the part of some stage, and the stages read every field of the blocks that they get."""

from __future__ import annotations

import itertools

import pytest
import torch

import baselines
from sdpg.algorithms.base import Signals
from sdpg.artefacts import declared
from sdpg.config import Config, analysis_config, base_config, data_config, evaluation_config, method_config, resolve, run_config
from sdpg.config.checks import dotted_keys, rule_at
from sdpg.config.limits import WARM_START
from sdpg.config.settings import Evaluation, Task, Train, WarmStart, kept_steps
from sdpg.experiment import base_model, compose
from sdpg.experiment.base_model import make_base_model
from sdpg.tasks.data import build_data
from tests.scale import config_of

CHAIN = {"chain": {"operations": [2], "count": 4, "seed": 1}}
TINY = {"hidden_size": 16, "layers": 1, "heads": 1, "intermediate_size": 16, "steps": 2, "batch_size": 4, "operations": [2]}
BLOCKS = {
    "model": {"warm_start": TINY | {"student_range": [0.0, 1.0], "teacher_min": 0.0}},
    "data": {
        "train": {"chain": {"operations": [2], "count": 8, "seed": 0}},
        "evaluation": {"chain": CHAIN},
        "validation": {"watched": {"chain": {"operations": [2], "count": 4, "seed": 2}}},
    },
    "train": {"steps": 2, "prompts_per_step": 2, "group_size": 2, "checkpoint_every": 1, "validate_every": 1},
    "evaluation": {"engine": "in-process", "samples": 2, "pass_k": [1], "lm_eval": None},
}
# What decides only what is planned or where it lies, and the choice between alternatives.
PLANNED = {"name", "methods", "tuned", "sweep", "matrix", "resources", "model", "data", "track", "sensitivity"}


def parts(config: Config) -> list:
    """Return the parts of all stages, and of all artefacts."""
    used = [item.spec.uses(config) for item in declared().values() if item.name != "manifest"]
    run = run_config(config, next(iter(config.methods)), 0).dump()
    return [run, base_config(config, 0), evaluation_config(config), data_config(config), analysis_config(config), *used]


def another(value, rule):
    """Return another valid value of a setting, by its schema."""
    rule = next((branch for branch in rule.get("anyOf", []) if "enum" in branch), rule)
    if "enum" in rule:
        return next(choice for choice in rule["enum"] if choice != value)
    if rule.get("format") == "date":
        return "2024-12-31"
    if rule.get("type") == "object":
        return {"enable_thinking": False}
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        if rule.get("maxItems") == 2:
            return [value[0], value[1] / 2]
        return value[:-1] if len(value) > 1 else [*value, 7 if value else "x"]
    if isinstance(value, int):
        return value + rule.get("multipleOf", 1)
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if value is None:
        return {"number": 0.5, "integer": 1}.get(rule.get("type"), "reverse")
    return f"{value}x"


def leaves(config: Config, prefix: str = ""):
    """Yield the dotted keys of all settings whose block the config has."""
    for key in dotted_keys(Config):
        block = key.rpartition(".")[0]
        value = config.dump()
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) and part in value else ...
        if value is not ... and not isinstance(value, dict) and key.split(".")[0] not in {"methods", "matrix"}:
            yield key, value, block


def changed(config: Config, key: str, value) -> Config:
    """Return the config with another value at a dotted key."""
    values = config.dump()
    *blocks, last = key.split(".")
    node = values
    for block in blocks:
        node = node[block]
    node[last] = value
    return Config.model_validate(values)


def test_every_setting_is_in_the_part_of_some_stage():
    needed = {"train.lora_rank": 2, "task.chat_template": True, "model.warm_start.pauses": {}}  # without, no more settings
    config = resolve("cpu", {"seeds": [0], "tuned": None, **needed})
    before, checked = parts(config), 0
    for key, value, _ in leaves(config):
        if key.split(".")[0] in PLANNED - {"model", "data"} or key == "model.warm_start.seeds":
            continue
        new = changed(config, key, another(value, rule_at(Config, key.split("."))))
        assert parts(new) != before, key
        checked += 1
    assert checked > 50


def recording(model):
    """Return a subclass of a block that notes which fields are read, and the set of these."""
    read: set[str] = set()

    class Recorded(model):
        def __getattribute__(self, name):
            if name in model.model_fields:
                read.add(name)
            return super().__getattribute__(name)

    return Recorded, read


@pytest.mark.slow
def test_the_stages_read_every_field_of_their_blocks(tmp_path, monkeypatch):
    from sdpg.evaluation.run import evaluate_run

    config = config_of(**BLOCKS, methods={"grpo": {}}, task={"stop": ["="]})
    kinds = {name: recording(model) for name, model in (("train", Train), ("task", Task), ("evaluation", Evaluation))}
    warm, read_warm = recording(WarmStart)
    blocks = {name: kind.model_validate(getattr(config, name).dump()) for name, (kind, _) in kinds.items()}
    model = config.model.model_copy(update={"warm_start": warm.model_validate(config.model.warm_start.dump())})
    config = config.model_copy(update=blocks | {"model": model})
    monkeypatch.setattr(compose, "run_config", lambda c, *run: run_config(c, *run).model_copy(update=blocks_of_run))
    blocks_of_run = {name: blocks[name] for name in ("train", "task")}
    monkeypatch.setattr(base_model, "PROBLEMS", 2)
    for _, read in kinds.values():
        read.clear()
    root = tmp_path / config.name
    build_data(config, root / "data")
    make_base_model(config, root / "model")
    compose.train_run(config, "grpo", 0, threads=1, results=tmp_path)
    evaluate_run(
        root / "runs/grpo/seed0", config, seed=0, data_dir=root / "data", out_dir=root / "eval", work_dir=root / "parts"
    )
    assert read_warm == set(WarmStart.model_fields)
    for name, (_, read) in kinds.items():
        # pass@k is computed by the analysis, from `Results`
        assert read == set(type(blocks[name]).model_fields), name


VARIANTS = {  # settings under which fields matter that the defaults leave alone
    "sdpg": [{"off_policy": True, "T_warm": 1, "T_decay": 1}],
    "grpo": [{"kl_in_reward": True}],
    "opsd": [{"teacher": "ema"}],
    "opsa": [{"advantage": "constant"}],
    "rlcsd": [{"teacher": "ema"}],
    "rlsd": [{"lam_decay": 9}],
}


@pytest.mark.parametrize("algorithm", baselines.REGISTRY)
def test_a_method_reads_every_field(algorithm):
    cls = baselines.REGISTRY[algorithm]
    fields, read = set(baselines.hyperparameters(algorithm).model_fields), set()

    class Recorded(cls):
        def __getattribute__(self, name):
            if name in fields:
                read.add(name)
            return super().__getattribute__(name)

    one = torch.ones(2, 3)
    s = Signals(
        -one, -one, -one, one, one, 0 * one, logp_ref=-one, div=one, logq=-one, logq_wrong=-one, contrasted=one, A_t=-one
    )
    for settings in [{}, *VARIANTS.get(algorithm, [])]:
        method = Recorded(**settings)
        A = method.advantages(torch.tensor([[1.0, 0.0]])).reshape(-1, 1)
        for k in (1, 2):
            if method.needs(k).token_advantages:
                method.token_advantages(-one[0], one[0])
            method.token_loss(s, A, k)
    assert read == fields


def test_a_field_that_nothing_reads_is_found():
    planted, read = recording(type("Planted", (Task,), {"__annotations__": {"planted": int}, "planted": 3}))
    block = planted()
    assert (block.verifier, read) == ("chain", {"verifier"})
    assert "planted" in set(planted.model_fields) - read


@pytest.mark.parametrize("algorithm", baselines.REGISTRY)
def test_every_number_of_a_method_has_a_range(algorithm):
    cls = baselines.hyperparameters(algorithm)
    for name, field in cls.model_fields.items():
        rule = rule_at(cls, [name])
        if rule.get("type") not in ("number", "integer"):
            continue
        assert {"minimum", "exclusiveMinimum"} & rule.keys(), name
        beyond = 1 if rule.get("maximum", 0) < 0 else -1
        for wrong in (beyond, float("nan"), float("inf"), "1", True):
            with pytest.raises(ValueError, match=name):
                baselines.make(algorithm, **{name: wrong})
        assert field.default is None or baselines.make(algorithm, **{name: field.default})


def test_a_schedules_length_is_the_number_of_steps_in_every_run():
    for steps, own in itertools.product((7, 9), ({}, {"T": 5})):
        config = resolve("smoke", {"train.steps": steps, "methods": {"sdpg-ufkl": own}})
        assert method_config(config, "sdpg-ufkl")["T"] == own.get("T", steps)
        assert compose.make_algorithm(config, "sdpg-ufkl").T == own.get("T", steps)


def test_what_results_hang_on_though_config_is_no_part_of_their_fingerprints():
    """See PLUMBING in sdpg/provenance/sources.py: whoever changes these makes all results of before other results."""
    assert WARM_START == 512
    steps = list(range(0, 9, 2))
    assert [kept_steps(steps, keep) for keep in ("all", "last", 4)] == [{0, 2, 4, 6, 8}, {0, 8}, {0, 4, 8}]
    assert kept_steps([0, 3, 7], 4) == {0, 7}

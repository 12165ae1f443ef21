"""From a scale file to one plain, complete, validated dict: workflows/schemas/config.schema.json is the only list of keys.

Defaults live in the schema and nowhere else. Overrides are dotted keys ("train.steps": 20) and pass the same checks.
Nothing here imports torch, so that `snakemake -n` stays quick; the fields of a method are read from its source file.
files.py reads YAML, methods.py puts a method's settings together, checks.py says what is wrong.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdpg.config.checks import SCHEMA, check_across, check_schema, whole_schema, with_defaults
from sdpg.config.files import (
    METHODS,
    PRESETS,
    ConfigError,
    available_presets,
    available_scales,
    expand_shorthands,
    nearest,
    override,
    parse_value,
    read_scale,
    scale_path,
    show,
    shown,
)
from sdpg.config.methods import expand_sweep, method_block, tuned
from sdpg.provenance import algorithm_defaults

__all__ = [
    "METHODS",
    "PRESETS",
    "SCHEMA",
    "ConfigError",
    "analysis_config",
    "available_presets",
    "available_scales",
    "base_config",
    "base_index",
    "base_seeds",
    "data_config",
    "evaluation_config",
    "from_snakemake",
    "method_config",
    "parse_overrides",
    "parse_value",
    "resolve",
    "run_config",
]


def resolve(scale: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The complete config of a scale: its file, the overrides on top, and the schema's defaults beneath.

    scale: a name in config/scales or config/presets, or the path of a YAML file; a file may say `extends: NAME` and give only
    what differs. overrides: dotted key -> value; a mapping is merged, any other value replaces what was there; a list of
    names under `methods` selects methods. Raises ConfigError.
    """
    path = scale_path(scale)
    where = f"in {shown(path)}"
    config = read_scale(path)
    expand_sweep(config, where)
    for key, value in (overrides or {}).items():
        override(config, key, value)
    if overrides:
        where += " or an override"
    expand_shorthands(config)
    check_schema(config, where)
    config = with_defaults(whole_schema(), config)
    check_across(config, where)
    _check_shadowed(config, overrides or {})
    return Shim(
        {"matrix": ["cpu", "cpu-clean", "cpu-stressed", "cpu-clean-stressed"] if config["name"] == "cpu" else []}
        | config
    )


class Shim(dict):
    def __getattr__(self, key):
        value = self[key]
        return Shim(value) if isinstance(value, dict) else value

    def dump(self):
        return {k: v for k, v in self.items()}


def run_config(config: Mapping[str, Any], method: str, seed: int) -> dict[str, Any]:
    """All that one training run depends on, and nothing else: no other method, no list of seeds, no evaluation block."""
    if method not in config["methods"]:
        raise ConfigError(f"method {method!r} is not in this config; {nearest(method, config['methods'])}")
    block = method_block(method, config)
    train = {**config["train"], **block.pop("train", {})}
    base = base_config(config, base_index(config, seed))
    run = {"scale": config["name"], "seed": seed, "method": method, "algorithm": block}
    return Shim(copy.deepcopy(run | {key: base[key] for key in ("model", "task", "data")} | {"train": train}))


def base_seeds(config: Mapping[str, Any]) -> list[int]:
    """The seeds of the base models: one for each; a model that is loaded is one, with number 0."""
    return config["model"].get("warm_start", {}).get("seeds", [0])


def base_index(config: Mapping[str, Any], seed: int) -> int:
    """Which base model (0, 1, ...) a run with this seed starts from: they take turns."""
    return seed % len(base_seeds(config))


def base_config(config: Mapping[str, Any], index: int) -> dict[str, Any]:
    """All that base model `index` depends on; a warm start's list of seeds becomes its own seed."""
    model = copy.deepcopy(dict(config["model"]))
    if "warm_start" in model:
        del model["warm_start"]["seeds"]
        model["warm_start"]["seed"] = base_seeds(config)[index]
    return {"model": model, "task": config["task"], "data": config["data"]}


def evaluation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that the evaluation of a run depends on, beside the run's checkpoints."""
    limits = {key: config["train"][key] for key in ("max_prompt_tokens", "max_response_tokens")}
    evaluation = {"scale": config["name"], "train": limits, "data": {"evaluation": config["data"]["evaluation"]}}
    return copy.deepcopy(evaluation | {key: config[key] for key in ("task", "evaluation")})


def analysis_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What analysis and figures take from the config."""
    return {
        "methods": list(config["methods"]),
        "seeds": config["seeds"],
        "tasks": list(config["data"]["evaluation"]),
        "evaluation": config["evaluation"],
        "bases": sorted({base_index(config, seed) for seed in config["seeds"]}),
    }


def data_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that the problems depend on; `forgetting`: the task that training leaves alone, or None."""
    forgetting = (config["evaluation"]["lm_eval"] or {}).get("forgetting")
    return {"data": config["data"], "task": config["task"], "forgetting": forgetting}


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """["train.steps=20", "seeds=[0, 1]"] -> {"train.steps": 20, "seeds": [0, 1]}; values are YAML. Raises ConfigError."""
    result = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {item!r}: expected key=value, for example train.steps=20")
        result[key.strip()] = parse_value(text, f"override {item!r}")
    return result


def from_snakemake(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(scale, overrides) of `--config scale=NAME|FILE train='{steps: 20}' seeds=[0,1] set="train.lr=1e-4 a.b=c"`.

    Snakemake hands over some values as text; they are read as YAML, as everywhere. Raises ConfigError.
    """
    scale, overrides = str(options.get("scale", "cpu")), {}
    for key, value in options.items():
        if key == "set":
            overrides |= parse_overrides(shlex.split(str(value)))
        elif key not in ("scale", "banner"):  # banner: set by the Snakefile where it includes itself
            overrides[key] = _reread(value, f"--config {key}")
    return scale, overrides


def _reread(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return parse_value(value, where)
    if isinstance(value, list):
        return [_reread(item, where) for item in value]
    if isinstance(value, Mapping):
        return {key: _reread(inner, f"{where}.{key}") for key, inner in value.items()}
    return value


def method_config(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """A method's hyper-parameters under a resolved config, its dataclass's defaults included; its own `train` block too."""
    block = method_block(method, config)
    fields = algorithm_defaults(block["algorithm"])
    if "T" in fields:  # a schedule's T is the number of training steps unless it is given
        fields["T"] = block.get("train", {}).get("steps", config["train"]["steps"])
    return copy.deepcopy({"algorithm": block["algorithm"], **fields, **block})


def _check_shadowed(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """An override of a training setting that the tuned values give each method would do nothing: ConfigError."""
    asked = {key.removeprefix("train.") for key in overrides if key.startswith("train.")}
    asked |= set(overrides["train"]) if isinstance(overrides.get("train"), Mapping) else set()
    for method, block in tuned(config).items():
        if taken := sorted(asked & set(block.get("train", {}))):
            raise ConfigError(
                f"override train.{taken[0]}: {show(config['tuned'])} (config/tuned) gives {method} and other methods their "
                f"own; override methods.{method}.train.{taken[0]}, or add tuned=null to use none of it"
            )

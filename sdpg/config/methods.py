"""What a method runs with: its file in config/methods, tuned values beneath it, the scale's own settings on top; and sweeps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from sdpg.config.files import METHODS, TUNED, ConfigError, nearest, read_mapping, show, shown


def method_file(name: str, config: Mapping[str, Any]) -> str:
    """The name in config/methods: the method's own, or the one that its block says it is `like`."""
    return config["methods"][name].get("like", name)


def method_block(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The method's settings; each layer is merged over the one before: tuned values, the method's file, the scale's block."""
    source = method_file(name, config)
    own = {key: value for key, value in config["methods"][name].items() if key != "like"}
    block: dict[str, Any] = {}
    for layer in (tuned(config).get(source, {}), read_mapping(METHODS / f"{source}.yaml"), own):
        train = {**block.get("train", {}), **layer["train"]} if isinstance(layer.get("train"), dict) else None
        block |= layer if train is None else {**layer, "train": train}
    return copy.deepcopy(block)


def tuned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Method -> the settings that its sweep chose (config/tuned/<name>.yaml); {} where the scale names no such file."""
    if config.get("tuned") is None:
        return {}
    path = TUNED / f"{config['tuned']}.yaml"
    if not path.is_file():
        known = [file.stem for file in TUNED.glob("*.yaml")]
        raise ConfigError(f"tuned: there is no {shown(path)}; {nearest(config['tuned'], known)}")
    return read_mapping(path)["methods"]


def trial_name(method: str, number: int) -> str:
    """What the run of a sweep's trial is called: sdpg-ufkl.2"""
    return f"{method}.{number}"


def expand_sweep(config: dict[str, Any], where: str) -> None:
    """Put one method for each trial of `sweep.trials` in place of `methods`; ConfigError unless every method has as many.

    A trial's settings stand on those that `methods` gives its method.
    """
    sweep = config.get("sweep")
    if not isinstance(sweep, dict) or not isinstance(sweep.get("trials"), dict):
        return  # none, or one that the schema will refuse
    trials = sweep["trials"]
    counts = {method: len(settings) for method, settings in trials.items() if isinstance(settings, list)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{method} {count}" for method, count in counts.items())
        raise ConfigError(f"sweep.trials: every method gets the same number of trials, got {listed} ({where})")
    blocks = config.get("methods") if isinstance(config.get("methods"), dict) else {}
    config["methods"] = {
        trial_name(method, i): {"like": method, **(blocks.get(method) or {}), **settings}
        for method, several in trials.items()
        for i, settings in enumerate(several)
    }


def check_sweep(config: Mapping[str, Any], where: str) -> None:
    """A trial may set nothing that the method's file sets: chosen, it would stand beneath that file and be without effect."""
    sweep = config.get("sweep") or {"trials": {}, "inherit": {}}
    for method, several in sweep["trials"].items():
        path = METHODS / f"{method}.yaml"
        fixed = _leaves(read_mapping(path)) if path.is_file() else set()
        for settings in several:
            if taken := sorted(fixed & _leaves(settings)):
                raise ConfigError(f"sweep.trials.{method}: {taken[0]} is set by {shown(path)} already ({where})")
    for method, parent in sweep["inherit"].items():
        if parent not in sweep["trials"]:
            raise ConfigError(
                f"sweep.inherit.{method}: got {show(parent)}; {nearest(str(parent), sweep['trials'])} ({where})"
            )


def _leaves(block: Mapping[str, Any]) -> set[str]:
    train = block.get("train")
    inner = {f"train.{key}" for key in train} if isinstance(train, dict) else set()
    return {key for key in block if key != "train"} | inner


from sdpg.provenance import algorithm_files  # noqa

"""What a method runs with: its file in config/methods, tuned values beneath it, the scale's own settings on top; and sweeps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import baselines
from sdpg.config.files import METHODS, TUNED, ConfigError, nearest, read_mapping, show, shown
from sdpg.types import Settings

if TYPE_CHECKING:
    from sdpg.config.settings import Config


def fields_of(algorithm: Any, at: str, where: str) -> tuple[type[Settings], str]:
    """Return the settings of an algorithm's class, and its name. Raises ConfigError for one that is not registered."""
    if algorithm not in baselines.REGISTRY:
        raise ConfigError(f"{at}.algorithm: got {show(algorithm)}; {nearest(str(algorithm), baselines.REGISTRY)} ({where})")
    return baselines.hyperparameters(algorithm), algorithm


def algorithm_files() -> dict[str, str]:
    """Return registry name -> file of the method's class, relative to the project."""
    return {name: cls.__module__.replace(".", "/") + ".py" for name, cls in baselines.REGISTRY.items()}


def method_file(name: str, config: Config) -> str:
    """Return the name in config/methods: the method's own, or the one that its block says it is `like`."""
    return config.methods[name].get("like", name)


def method_layers(name: str, config: Config) -> list[tuple[str, dict[str, Any]]]:
    """Return a method's settings as (origin, block), lowest first: tuned values, the method's file, the scale's block."""
    source = method_file(name, config)
    own = {key: value for key, value in config.methods[name].items() if key != "like"}
    path = METHODS / f"{source}.yaml"
    layers = [(f"config/tuned/{config.tuned}.yaml", tuned(config).get(source, {}))] if config.tuned else []
    return [*layers, (shown(path), read_mapping(path)), (f"methods.{name} of the scale", own)]


def method_block(name: str, config: Config) -> dict[str, Any]:
    """Return a method's settings, each layer merged over the one before; key by key in its `train` block."""
    block: dict[str, Any] = {}
    for _, layer in method_layers(name, config):
        train = {**block.get("train", {}), **layer["train"]} if isinstance(layer.get("train"), dict) else None
        block |= layer if train is None else {**layer, "train": train}
    return copy.deepcopy(block)


def method_config(config: Config, method: str) -> dict[str, Any]:
    """Return a method's hyper-parameters under a resolved config, its class's defaults included; its `train` block too.

    The one place where a schedule's T is the number of training steps unless it is given.
    """
    block = method_block(method, config)
    fields = baselines.hyperparameters(block["algorithm"]).model_fields
    defaults = {key: field.default for key, field in fields.items()}
    if "T" in fields:
        defaults["T"] = block.get("train", {}).get("steps", config.train.steps)
    return {"algorithm": block["algorithm"], **defaults, **block}


def tuned(config: Config) -> dict[str, Any]:
    """Return method -> the settings that its sweep chose (config/tuned/<name>.yaml); {} where the scale names no such file."""
    if config.tuned is None:
        return {}
    path = TUNED / f"{config.tuned}.yaml"
    if not path.is_file():
        known = [file.stem for file in TUNED.glob("*.yaml")]
        raise ConfigError(f"tuned: there is no {shown(path)}; {nearest(config.tuned, known)}")
    return read_mapping(path)["methods"]


def trial_name(method: str, number: int) -> str:
    """Return what the run of a sweep's trial is called: sdpg-ufkl.2"""
    return f"{method}.{number}"


def expand_sweep(config: dict[str, Any], where: str) -> None:
    """Put one method for each trial of `sweep.trials` in place of `methods`; ConfigError unless every method has as many.

    A trial's settings stand on those that `methods` gives its method.
    """
    sweep = config.get("sweep")
    if not isinstance(sweep, dict) or not isinstance(sweep.get("trials"), dict):
        return  # none, or one that the settings will refuse
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


def check_sweep(config: Config, where: str) -> None:
    """Refuse a trial that sets what the method's file sets: chosen, it would stand beneath that file and be without effect."""
    if config.sweep is None:
        return
    for method, several in config.sweep.trials.items():
        path = METHODS / f"{method}.yaml"
        fixed = _leaves(read_mapping(path)) if path.is_file() else set()
        for settings in several:
            if taken := sorted(fixed & _leaves(settings)):
                raise ConfigError(f"sweep.trials.{method}: {taken[0]} is set by {shown(path)} already ({where})")
    for method, parent in config.sweep.inherit.items():
        if parent not in config.sweep.trials:
            raise ConfigError(f"sweep.inherit.{method}: got {show(parent)}; {nearest(parent, config.sweep.trials)} ({where})")


def _leaves(block: Mapping[str, Any]) -> set[str]:
    train = block.get("train")
    inner = {f"train.{key}" for key in train} if isinstance(train, dict) else set()
    return {key for key in block if key != "train"} | inner

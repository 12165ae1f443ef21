"""What a method runs with: its file in config/methods, tuned values beneath it, the scale's own settings on top; and sweeps."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import baselines
from sdpg.config.files import METHODS, TUNED, ConfigError, nearest, read_mapping, show, shown
from sdpg.io import kind_of
from sdpg.types import Settings

if TYPE_CHECKING:
    from sdpg.config.settings import Config


def fields_of(algorithm: Any, at: str, where: str) -> tuple[type[Settings], str]:
    """Return the settings of an algorithm's class, and its name. Raises ConfigError for one that is not registered."""
    if not isinstance(algorithm, str) or algorithm not in baselines.REGISTRY:
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
    layers += [(shown(path), read_mapping(path)), (f"methods.{name} of the scale", own)]
    for origin, block in layers:
        if not isinstance(block.get("train", {}), dict):
            raise ConfigError(f"methods.{name}.train: got {show(block['train'])}, expected a mapping of settings ({origin})")
    return layers


def method_block(name: str, config: Config) -> dict[str, Any]:
    """Return a method's settings, each layer merged over the one before; key by key in its `train` block. Whole floats for
    integers are integers, as everywhere.
    """
    block: dict[str, Any] = {}
    for _, layer in method_layers(name, config):
        block |= {**layer, "train": {**block.get("train", {}), **layer["train"]}} if "train" in layer else layer
    block = copy.deepcopy(block)
    if isinstance(algorithm := block.get("algorithm"), str) and algorithm in baselines.REGISTRY:
        own = {key: value for key, value in block.items() if key not in ("algorithm", "train")}
        block |= _typed(baselines.hyperparameters(algorithm), {}, own)
    if "train" in block:
        block["train"] = _typed(type(config.train), config.train.dump(), block["train"])
    return block


def _typed(model: type[Settings], below: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return values as the model has them; as they are if it refuses them, which the check of the method will report."""
    try:
        typed = model.model_validate({**below, **values}).dump()
    except ValidationError:
        return values
    return {key: typed[key] for key in values}


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
    if kind_of(path) != "file":
        known = [file.stem for file in TUNED.glob("*.yaml")]
        raise ConfigError(f"tuned: there is no {shown(path)}; {nearest(config.tuned, known)}")
    content = read_mapping(path)
    methods = content.get("methods")
    if set(content) != {"methods"} or not isinstance(methods, dict):
        raise ConfigError(f"{shown(path)}: got {', '.join(map(str, content))}, expected `methods`, each with its settings")
    for method, block in methods.items():
        if not isinstance(block, dict) or not isinstance(block.get("train", {}), dict):
            raise ConfigError(f"{shown(path)}, methods.{method}: got {show(block)}, expected a mapping of settings")
        if not has_file(method):
            raise ConfigError(f"{shown(path)}, methods.{method}: there is no such file in config/methods; {_nearest(method)}")
    return methods


def has_file(method: Any) -> bool:
    """Return whether there is a file of this name in config/methods."""
    return isinstance(method, str) and bool(re.fullmatch(r"[\w.-]+", method)) and kind_of(METHODS / f"{method}.yaml") == "file"


def _nearest(method: Any) -> str:
    return nearest(str(method), [path.stem for path in METHODS.glob("*.yaml")])


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
    for method, settings in trials.items():
        if not isinstance(settings, list) or not all(isinstance(one, dict) and "like" not in one for one in settings):
            text = f"sweep.trials.{method}: got {show(settings)}, expected a list with one mapping of settings for each trial"
            raise ConfigError(f"{text} ({where})")
    if not trials or not all(trials.values()):
        return  # refused by the settings
    counts = {method: len(settings) for method, settings in trials.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{method} {count}" for method, count in counts.items())
        raise ConfigError(f"sweep.trials: every method gets the same number of trials, got {listed} ({where})")
    blocks = config.get("methods") if isinstance(config.get("methods"), dict) else {}
    config["methods"] = {
        trial_name(method, i): {"like": method, **_mapping(blocks.get(method), method, where), **settings}
        for method, several in trials.items()
        for i, settings in enumerate(several)
    }


def _mapping(block: Any, method: str, where: str) -> dict[str, Any]:
    if not isinstance(block, dict | None):
        raise ConfigError(f"methods.{method}: got {show(block)}, expected a mapping of settings ({where})")
    return block or {}


def check_sweep(config: Config, where: str) -> None:
    """Refuse a trial that sets what the method's file sets: chosen, it would stand beneath that file and be without effect."""
    if config.sweep is None:
        return
    if not config.data.validation:
        raise ConfigError(f"sweep: trials are scored on data.validation, which is empty; give it a set ({where})")
    for method, several in config.sweep.trials.items():
        path = METHODS / f"{method}.yaml"
        fixed = _leaves(read_mapping(path)) if path.is_file() else set()
        for settings in several:
            if taken := sorted(fixed & _leaves(settings)):
                raise ConfigError(f"sweep.trials.{method}: {taken[0]} is set by {shown(path)} already ({where})")
    if config.sweep.one_rate:
        _check_one_rate(config.sweep.trials, where)
    for method, parent in config.sweep.inherit.items():
        if method in config.sweep.trials or not has_file(method):
            what = "has trials of its own" if method in config.sweep.trials else f"is no method; {_nearest(method)}"
            raise ConfigError(f"sweep.inherit.{method}: {method} {what} ({where})")
        if parent not in config.sweep.trials:
            raise ConfigError(f"sweep.inherit.{method}: got {show(parent)}; {nearest(parent, config.sweep.trials)} ({where})")


def _check_one_rate(trials: Mapping[str, list[dict[str, Any]]], where: str) -> None:
    """Refuse trials that do not decide one learning rate with room on both sides."""
    if len(trials) > 1:
        raise ConfigError(f"sweep.trials: got {', '.join(trials)}, expected one method, since sweep.one_rate is true ({where})")
    (method, several), rates = next(iter(trials.items())), []
    for settings in several:
        if set(settings) != {"train"} or set(settings["train"]) != {"lr"}:
            text = f"got {show(settings)}, expected train.lr alone, since sweep.one_rate is true"
            raise ConfigError(f"sweep.trials.{method}: {text} ({where})")
        rates.append(settings["train"]["lr"])
    if len(rates) < 3 or len(set(rates)) < len(rates):
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise ConfigError(f"sweep.trials.{method}: got {listed}, expected three or more different learning rates ({where})")


def _leaves(block: Mapping[str, Any]) -> set[str]:
    train = block.get("train")
    inner = {f"train.{key}" for key in train} if isinstance(train, dict) else set()
    return {key for key in block if key != "train"} | inner

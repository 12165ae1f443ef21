"""The methods that a scale's block `sensitivity` adds: a method of the scale with another value of one setting."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

from sdpg.config.files import ConfigError, closest, nearest
from sdpg.config.methods import fields_of, method_block, method_config
from sdpg.config.parts import run_config
from sdpg.config.sensitivity import Axis
from sdpg.config.settings import Config, Train

COMPARED = ("train.steps", "train.checkpoint_every", "train.keep")  # claims compare runs step by step and at their checkpoints


class Setting(NamedTuple):
    """One value of a varied setting. own: the scale's own. names: each method of the scale -> the name of its runs there."""

    setting: str
    value: float
    own: bool
    names: dict[str, str]


def variant_name(method: str, setting: str, value: float) -> str:
    """Return what the runs of a method with another value are called: grpo.train.lr-0.0006"""
    return f"{method}.{setting}-{value:.12g}"


def expand_sensitivity(config: dict[str, Any]) -> None:
    """Add a method for each axis, method and value of `sensitivity` to `methods`, in place. What is wrong with the block is
    left for the settings and `check_sensitivity` to refuse.
    """
    blocks, axes = config.get("methods"), config.get("sensitivity")
    if not isinstance(blocks, dict) or not isinstance(axes, list):
        return
    own = dict(blocks)
    for given in axes:
        try:
            axis = Axis.model_validate(given)
        except ValidationError:
            return
        for method in axis.methods:
            if isinstance(block := own.get(method), dict):
                for value in axis.values:
                    blocks[variant_name(method, axis.setting, value)] = {"like": method, **_with(block, axis.setting, value)}


def _with(block: dict[str, Any], setting: str, value: float) -> dict[str, Any]:
    """Return a method's block with another value of one setting."""
    group, _, key = setting.rpartition(".")
    if group != "train":
        return block | {setting: value}
    train = block.get("train")
    return block | {"train": {**train, key: value} if isinstance(train, dict) else {key: value}}


def variants(config: Config) -> list[str]:
    """Return the names of the methods that `sensitivity` adds."""
    return [variant_name(m, axis.setting, value) for axis in config.sensitivity for m in axis.methods for value in axis.values]


def own_methods(config: Config) -> list[str]:
    """Return the scale's methods without those that `sensitivity` adds."""
    added = set(variants(config))
    return [method for method in config.methods if method not in added]


def settings_of(config: Config) -> list[Setting]:
    """Return every value of every varied setting, the scale's own among them, in ascending order for each setting."""
    found = []
    for axis in config.sensitivity:
        own = own_value(config, axis.methods[0], axis.setting)
        for value in sorted([own, *axis.values]):
            names = {method: method for method in own_methods(config)}
            if value != own:
                names |= {method: variant_name(method, axis.setting, value) for method in axis.methods}
            found.append(Setting(axis.setting, value, value == own, names))
    return found


def own_value(config: Config, method: str, setting: str) -> float:
    """Return what a method of the scale has for a setting."""
    group, _, key = setting.rpartition(".")
    if group == "train":
        return getattr(run_config(config, method, 0).train, key)
    return method_config(config, method)[setting]


def check_sensitivity(config: Config, where: str) -> None:
    """Refuse axes of methods that are not there, of settings that they do not have or all runs must share, and values that they
    have already.
    """
    if config.sensitivity and config.sweep is not None:
        raise ConfigError(f"sensitivity: the runs of a sweep are not evaluated, which it needs; give one of the two ({where})")
    there, settings = own_methods(config), [axis.setting for axis in config.sensitivity]
    for i, axis in enumerate(config.sensitivity):
        for method in axis.methods:
            if method not in there:
                what = f"methods: {method!r} is not among `methods`; {nearest(method, there)}"
                raise ConfigError(f"sensitivity.{i}.{what} ({where})")
            if what := _misfit(axis, method, config, where):
                raise ConfigError(f"sensitivity.{i}.{what} ({where})")
        if axis.setting in settings[:i]:
            raise ConfigError(f"sensitivity.{i}.setting: {axis.setting} is there twice; give all its values at once ({where})")


def _misfit(axis: Axis, method: str, config: Config, where: str) -> str | None:
    """Return what is wrong between an axis and one of its methods, or None."""
    setting, (group, _, _) = axis.setting, axis.setting.rpartition(".")
    fields = Train if group == "train" else fields_of(method_block(method, config)["algorithm"], f"methods.{method}", where)[0]
    known = [f"train.{name}" if group == "train" else name for name in fields.model_fields]
    if setting not in known:
        hint = f"nearest: {closest(setting, known)!r}" if known else "it has none"
        return f"setting: got {setting!r}, which {method} does not have; {hint}"
    if setting in COMPARED:
        return f"setting: {setting} is one for all runs, or they could not be compared"
    own, first = (own_value(config, name, setting) for name in (method, axis.methods[0]))
    if isinstance(own, bool) or not isinstance(own, int | float):
        return f"setting: {setting} of {method} is {own!r}, expected a number"
    if own != first:
        return f"setting: {setting} is {first:g} of {axis.methods[0]} and {own:g} of {method}, expected one value of all"
    return f"values: {own:g} is what {method} has in any case; leave it out" if own in axis.values else None

"""From a scale's layers to one typed config, and which layer each value comes from.

Lowest first: the default, the scale files that are extended, the scale file, overrides; for a method's own settings then its
tuned values, its file in config/methods, and its block in the scale.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from baselines import hyperparameters
from sdpg.config.checks import check_across, dotted_keys, expected, rule_at, validated
from sdpg.config.files import ConfigError, closest, expand_shorthands, merged, nearest, override, scale_layers, scale_path, show
from sdpg.config.methods import algorithm_files, expand_sweep, method_block, method_file, method_layers, tuned
from sdpg.config.quick import ASKED, KEY, make_quick, refuse_in_a_file, wants_quick
from sdpg.config.settings import Config
from sdpg.config.variants import expand_sensitivity

OVERRIDE = "override"
MISSING = object()


def resolve(scale: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return the complete config of a scale: its file, the overrides on top, and the defaults beneath.

    scale: a name in config/scales or config/presets, or the path of a YAML file; a file may say `extends: NAME` and give only
    what differs. overrides: dotted key -> value; a mapping is merged, any other value replaces what was there; a list of
    names under `methods` selects methods; `quick: true` shrinks what the files say. Raises ConfigError.
    """
    layers, overrides = scale_layers(scale_path(scale)), dict(overrides or {})
    files = [file for file, _ in reversed(layers)]
    where = "in " + " or ".join([*files, *(["an override"] if overrides else [])])
    try:
        return _resolved(layers, overrides, where)
    except ConfigError as error:
        raise error if files[0] in str(error) else ConfigError(f"{error} ({where})") from None


def _resolved(layers: list[tuple[str, dict[str, Any]]], overrides: dict[str, Any], where: str) -> Config:
    config, quick = merged(layers), wants_quick(overrides)
    refuse_in_a_file(config)
    for key, value in overrides.items():
        if key.partition(".")[0] == "sweep":
            override(config, key, value)
    expand_sweep(config, where)
    if quick:
        expand_shorthands(config)
        make_quick(config)
    for key, value in overrides.items():
        if key.partition(".")[0] != "sweep":
            override(config, key, value)
    if "name" in overrides and "matrix" not in overrides:
        config.pop("matrix", None)  # a scale with another name is not the cell, as with `extends`
    expand_shorthands(config)
    expand_sensitivity(config)
    found = validated(Config, config, where)
    check_across(found, where)
    _check_shadowed(found, overrides)
    return found


def _check_shadowed(config: Config, overrides: Mapping[str, Any]) -> None:
    """Refuse an override of a training setting that the tuned values give each method: it would do nothing."""
    asked = {key.removeprefix("train.") for key in overrides if key.startswith("train.")}
    asked |= set(overrides["train"]) if isinstance(overrides.get("train"), Mapping) else set()
    chosen = tuned(config)
    for method in config.methods:
        if taken := sorted(asked & set(chosen.get(method_file(method, config), {}).get("train", {}))):
            raise ConfigError(
                f"override train.{taken[0]}: {show(config.tuned)} (config/tuned) gives {method} and other methods their "
                f"own; override methods.{method}.train.{taken[0]}, or add tuned=null to use none of it"
            )


def explain(
    key: str, scale: str | Path, overrides: Mapping[str, Any] | None = None, *, method: str | None = None
) -> list[tuple[str, Any]]:
    """Return (origin, value) of each layer that sets a key, lowest first: the last one is in force.

    key: a setting (train.lr, data.train.chain.count) or, with `method`, one of its hyper-parameters (beta_base). Raises
    ConfigError for a key that is neither, naming the nearest.
    """
    config = resolve(scale, overrides)
    if method is not None and method not in config.methods:
        raise ConfigError(f"method {method!r} is not in scale {config.name}; {nearest(method, config.methods)}")
    if method is not None and key in hyperparameters(method_block(method, config)["algorithm"]).model_fields:
        return _of_method(key, method, config)
    if key == KEY:
        raise ConfigError(f"{KEY!r} is no setting, but changes several (as every `explain` of these says): {ASKED}")
    rule = rule_at(Config, key.split("."))
    if not rule and _get(config.dump(), key) is MISSING:
        known = dotted_keys(Config)
        hint = "" if method else "; a method's own setting goes with --method"
        raise ConfigError(f"config key {key!r} is unknown; nearest valid key: {closest(key, known)!r}{hint}")
    files, overrides = scale_layers(scale_path(scale)), dict(overrides or {})
    quick = [(f"{KEY}=true", _shrunk(files, key))] if wants_quick(overrides) else []
    layers = [*files, *quick, *((f"{OVERRIDE} {name}", merged([("", {name: value})])) for name, value in overrides.items())]
    found = [("default", rule["default"])] if "default" in rule else []
    for origin, keys in layers:
        expand_shorthands(keys)
        if (value := _get(keys, key)) is not MISSING:
            found.append((origin, value))
    if method is not None and key.startswith("train."):
        found += [(origin, block["train"]) for origin, block in method_layers(method, config) if "train" in block]
        found = [(o, v if not isinstance(v, dict) else _get({"train": v}, key)) for o, v in found]
        return [(origin, value) for origin, value in found if value is not MISSING]
    return _ending_with(_get(config.dump(), key), found)


def _shrunk(files: list[tuple[str, dict[str, Any]]], key: str) -> dict[str, Any]:
    """Return what the files say after `quick=true`, or nothing where that leaves the key as it was."""
    config = merged(files)
    expand_shorthands(config)
    before = copy.deepcopy(_get(config, key))
    make_quick(config)
    return {} if _get(config, key) == before else config


def _ending_with(value: Any, found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the layers so that the last one is what is in force: of a block that is all of them, merged.

    The default of some keys goes with another one: a source's `split` has the default of its kind.
    """
    if value is MISSING or (found and found[-1][1] == value):
        return found
    if isinstance(value, Mapping):
        return [*found, ("together", value)]
    return [("default", value)] if len(found) < 2 else [*found, ("together", value)]


def _of_method(key: str, method: str, config: Config) -> list[tuple[str, Any]]:
    origin = "default: the number of training steps" if key == "T" else "default"
    algorithm = method_block(method, config)["algorithm"]
    default = hyperparameters(algorithm).model_fields[key].default
    if key == "T":
        default = method_block(method, config).get("train", {}).get("steps", config.train.steps)
    layers = [(name, block[key]) for name, block in method_layers(method, config) if key in block]
    return [(origin, default), *layers]


def render(key: str, scale: str | Path, overrides: Mapping[str, Any] | None = None, *, method: str | None = None) -> str:
    """Return `explain` as text: the value, what the setting means and may be, and the layers with the one in force marked."""
    layers = explain(key, scale, overrides, method=method)
    config = resolve(scale, overrides)
    of = f" of {method}" if method else ""
    algorithm = method_block(method, config)["algorithm"] if method else None
    own = method is not None and key in hyperparameters(algorithm).model_fields
    rule = rule_at(hyperparameters(algorithm), [key]) if own else rule_at(Config, key.split("."))
    lines = [f"{key} = {show(layers[-1][1]) if layers else 'not set'}{of} at scale {config.name}", ""]
    if meaning := rule.get("description"):
        lines += [f"  {' '.join(meaning.split())}"]
    lines += [f"  Takes: {expected(rule)}" + (f"; a field of {algorithm!r}, {algorithm_files()[algorithm]}" if own else ""), ""]
    width = max((len(origin) for origin, _ in layers), default=0)
    for i, (origin, value) in enumerate(layers):
        mark = "  <- in force" if i + 1 == len(layers) else ""
        lines.append(f"  {origin:{width}}  {show(value)}{mark}")
    if layers and show(layers[-1][1]) != repr(layers[-1][1]):  # cut: the whole of what is in force
        lines += ["", indent(yaml.safe_dump({key: layers[-1][1]}, sort_keys=False, allow_unicode=True), "  ").rstrip()]
    multiplier = config.train.lr_multiplier
    if key == "train.lr" and multiplier != 1:
        lines += ["", f"  Training multiplies it by train.lr_multiplier = {multiplier:g}: {layers[-1][1] * multiplier:g}"]
    return "\n".join(lines) + "\n"


def _get(keys: Any, dotted: str) -> Any:
    """Return the value at a dotted key of nested mappings, MISSING without one; keys with dots in them are found too."""
    if not isinstance(keys, Mapping):
        return MISSING
    if dotted in keys:
        return keys[dotted]
    for key in keys:
        if dotted.startswith(f"{key}."):
            return _get(keys[key], dotted.removeprefix(f"{key}."))
    return MISSING

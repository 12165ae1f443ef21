"""Scale files: where they lie, `extends:`, overrides by dotted key."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sdpg.config.reading import ConfigError, parse_value, show
from sdpg.io import ROOT, kind_of, path_of

SCALES = ROOT / "config" / "scales"
PRESETS = ROOT / "config" / "presets"
METHODS = ROOT / "config" / "methods"
TUNED = ROOT / "config" / "tuned"


def read_mapping(path: Path) -> dict[str, Any]:
    """Return a YAML file that holds a mapping. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown(path)}: byte {error.start + 1} is not UTF-8; save the file as UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {shown(path)}: {getattr(error, 'strerror', None) or error}") from None
    value = copy.deepcopy(_parsed(text, shown(path)))
    if value is None:
        raise ConfigError(f"{shown(path)}: is empty, expected a mapping of keys to values")
    if not isinstance(value, dict):
        raise ConfigError(f"{shown(path)}: expected a mapping of keys to values, got {show(value)}")
    return value


_parsed = cache(parse_value)  # a method's file and the tuned values are read once for each use


def scale_layers(path: Path, below: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Return (file, its keys) of a scale file and those that it extends, the lowest first. `matrix` is not inherited."""
    own = read_mapping(path)
    if "extends" not in own:
        return [(shown(path), own)]
    try:
        parent = scale_path(own.pop("extends"))
    except ConfigError as error:
        raise ConfigError(f"extends: {error} (in {shown(path)})") from None
    if parent in (*below, path):
        raise ConfigError(f"{shown(path)}: extends {shown(parent)}, which extends this file in turn")
    inherited = scale_layers(parent, (*below, path))
    return [*((file, {k: v for k, v in keys.items() if k != "matrix"}) for file, keys in inherited), (shown(path), own)]


def merged(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the layers merged key by key, a higher one over those below."""
    config: dict[str, Any] = {}
    for file, keys in layers:
        for key, value in keys.items():
            try:
                override(config, str(key), copy.deepcopy(value), what="config key")
            except ConfigError as error:
                raise ConfigError(f"{error} (in {file})") from None
    return config


def scale_path(scale: str | Path) -> Path:
    """Return the file of a scale or preset by name, or the path itself. Raises ConfigError naming the nearest."""
    if not isinstance(scale, str | Path):
        raise ConfigError(f"got {show(scale)}, expected the name of one scale, or the path of a .yaml file")
    if re.fullmatch(r"[\w.-]+", str(scale)):
        for folder in (SCALES, PRESETS):
            if kind_of(by_name := folder / f"{scale}.yaml") == "file":
                return by_name
    path = path_of(scale) if str(scale).startswith("~/") else Path(scale)
    if path.suffix in (".yaml", ".yml"):
        if (there := kind_of(path)) != "file":
            what = "is a folder" if there else "does not exist"
            raise ConfigError(
                f"scale file {shorter(scale)} {what} (looked in {path.absolute().parent}); give the path of a YAML file"
            )
        return path
    names = [*available_scales(), *available_presets()]
    raise ConfigError(f"scale {shorter(scale)} is unknown; {nearest(str(scale), names)}, or give the path of a .yaml file")


def available_scales() -> list[str]:
    """Return the names in config/scales."""
    return sorted(path.stem for path in SCALES.glob("*.yaml"))


def available_presets() -> list[str]:
    """Return the names in config/presets: scale files with the paper's, the released and matched settings."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def override(config: dict[str, Any], dotted: str, value: Any, what: str = "override", *, whole: bool = False) -> None:
    """Set one dotted key in place; a mapping value is merged key by key. what: it is called that in errors.

    whole: `dotted` is one key, dots in it are part of a name.
    """
    *parents, last = [dotted] if whole else dotted.split(".")
    node = config
    for depth, key in enumerate(parents):
        if node.get(key) is None:
            node[key] = {}
        if not isinstance(node[key], dict):
            path = ".".join(parents[: depth + 1])
            raise ConfigError(f"{what} {dotted!r}: {path} is {show(node[key])}, which has no keys below it")
        node = node[key]
    if isinstance(value, Mapping) and value and isinstance(node.get(last), dict):
        for key, inner in value.items():
            override(node[last], str(key), inner, what, whole=True)
    elif dotted == "methods" and not whole and isinstance(value, list):
        below = node.get("methods")
        node["methods"] = _selected(value, below if isinstance(below, dict) else {})
    elif not (value == {} and isinstance(node.get(last), dict)):
        node[last] = value


def _selected(items: list[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Read `[grpo, {rlsd: {lam: 0.3}}]`: these methods alone, on top of what `known` gives them."""
    chosen: dict[str, Any] = {}
    for item in items:
        for name, block in item.items() if isinstance(item, Mapping) else [(item, None)]:
            if not isinstance(name, str) or not isinstance(block, Mapping | None):
                raise ConfigError(f"methods: got {show(item)}, expected names, or NAME: settings")
            if name in chosen:
                raise ConfigError(f"methods: {name} is listed twice; give each method once, and a variant `like: {name}`")
            below = known.get(name)
            chosen[name] = {**(below if isinstance(below, Mapping) else {}), **(block or {})}
    return chosen


def expand_shorthands(config: dict[str, Any]) -> None:
    """Give `model: DIR`, `methods: [a, b]` and `methods: {a: }` their long forms, in place."""
    if isinstance(config.get("model"), str):
        config["model"] = {"pretrained": config["model"]}
    methods = config.get("methods")
    if isinstance(methods, list):
        methods = _selected(methods, {})
    if isinstance(methods, dict):
        config["methods"] = {name: {} if block is None else block for name, block in methods.items()}


def nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    choices = f"choose one of {', '.join(known)}" if known else "there are none"
    return f"did you mean {close[0]!r}? {choices}" if close else choices


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def shorter(value: Any, most: int = 60) -> str:
    """Return a text as Python writes it, its middle left out where it is long."""
    text = repr(str(value))
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 3 :]}"


def closest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]

"""Reading scale files: YAML without its traps, `extends:`, overrides by dotted key; and the error that says what is wrong."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sdpg.io import ROOT, kind_of

SCALES = ROOT / "config" / "scales"
PRESETS = ROOT / "config" / "presets"
METHODS = ROOT / "config" / "methods"
TUNED = ROOT / "config" / "tuned"


class ConfigError(ValueError):
    """A mistake in a scale file, a method file or an override: which key, what it is, what is expected, in which file."""


def parse_value(text: str, where: str) -> Any:
    """Return one YAML value; `1e-6` is a number here, as in the scale files. Raises ConfigError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({_one_line(error)})") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-6` as a string and lets a key appear twice, the last one winning; both are put right here."""

    def construct_mapping(self, node, deep=False):
        """Read a mapping node as a dict; ConstructorError for a key that appears twice."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return a YAML file that holds a mapping. Raises ConfigError."""
    try:
        value = parse_value(path.read_text(encoding="utf-8"), shown(path))
    except OSError as error:
        raise ConfigError(f"cannot read {shown(path)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown(path)} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{shown(path)}: expected a mapping of keys to values, got {show(value)}")
    return value


def scale_layers(path: Path, below: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Return (file, its keys) of a scale file and those that it extends, the lowest first. `matrix` is not inherited."""
    own = read_mapping(path)
    if "extends" not in own:
        return [(shown(path), own)]
    parent = scale_path(own.pop("extends"))
    if parent in (*below, path):
        raise ConfigError(f"{shown(path)}: extends {shown(parent)}, which extends this file in turn")
    inherited = scale_layers(parent, (*below, path))
    return [*((file, {k: v for k, v in keys.items() if k != "matrix"}) for file, keys in inherited), (shown(path), own)]


def merged(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the layers merged key by key, a higher one over those below."""
    config: dict[str, Any] = {}
    for _, keys in layers:
        for key, value in keys.items():
            override(config, str(key), copy.deepcopy(value))
    return config


def scale_path(scale: str | Path) -> Path:
    """Return the file of a scale or preset by name, or the path itself. Raises ConfigError naming the nearest."""
    for folder in (SCALES, PRESETS):
        if str(scale) in (path.stem for path in folder.glob("*.yaml")):
            return folder / f"{scale}.yaml"
    path = Path(scale).expanduser() if str(scale).startswith("~/") else Path(scale)
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


def override(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one dotted key in place; a mapping value is merged key by key."""
    *parents, last = dotted.split(".")
    node = config
    for depth, key in enumerate(parents):
        if isinstance(node.get(key), list | str | int | float):
            path = ".".join(parents[: depth + 1])
            raise ConfigError(f"override {dotted!r}: {path} is {show(node[key])}, which has no keys below it")
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
    if isinstance(value, Mapping) and value and isinstance(node.get(last), dict):
        for key, inner in value.items():
            override(node[last], str(key), inner)
    elif dotted == "methods" and isinstance(value, list):
        node["methods"] = _selected(value, node.get("methods") or {})
    elif not (value == {} and isinstance(node.get(last), dict)):
        node[last] = value


def _selected(items: list[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Read `[grpo, {rlsd: {lam: 0.3}}]`: these methods alone, on top of what `known` gives them."""
    chosen: dict[str, Any] = {}
    for item in items:
        for name, block in item.items() if isinstance(item, Mapping) else [(item, None)]:
            if not isinstance(name, str) or not isinstance(block, Mapping | None):
                raise ConfigError(f"methods: got {show(item)}, expected names, or NAME: settings")
            chosen[name] = {**(known.get(name) or {}), **(block or {})}
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


def show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def closest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]

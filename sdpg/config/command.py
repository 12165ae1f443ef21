"""Overrides as text, on a command line or in `snakemake --config`, and the command that stands for them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from sdpg.config.files import ConfigError, parse_value, show


def snakemake_command(scale: str, overrides: Mapping[str, Any]) -> str:
    """Return the command that runs everything at a scale with these overrides."""
    words = ["snakemake", "reproduce-all", "--config", f"scale={scale}"]
    words += [assignment(key, value) for key, value in overrides.items() if "." not in key]
    dotted = [assignment(key, value) for key, value in overrides.items() if "." in key]
    return shlex.join(words + ([f"set={shlex.join(dotted)}"] if dotted else []))


def assignment(key: str, value: Any) -> str:
    """Return an override as text, which `parse_overrides` reads as it was."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"  # YAML reads an escaped emoji as two halves


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """Return ["train.steps=20", "seeds=[0, 1]"] as {"train.steps": 20, "seeds": [0, 1]}; values are YAML."""
    result = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {item!r}: expected key=value, for example train.steps=20")
        result[key.strip()] = parse_value(text, f"override {item!r}")
    return result


def from_snakemake(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return (scale, overrides) of `--config scale=NAME|FILE train='{steps: 20}' seeds=[0,1] set="train.lr=1e-4 a.b=c"`.

    Snakemake hands over some values as text; they are read as YAML, as everywhere. Raises ConfigError.
    """
    scale, overrides = _text(options, "scale", "cpu", "a name in config/scales or config/presets, or a YAML file"), {}
    for key, value in options.items():
        if key == "set":
            overrides |= parse_overrides(_words(_text(options, "set", "", 'settings such as "train.steps=20 train.lr=1e-4"')))
        elif key != "scale":
            overrides[key] = _reread(value, f"--config {key}")
    return scale, overrides


def check_once(arguments: Sequence[str]) -> None:
    """Refuse a second `--config`, or a key that is there twice: Snakemake takes the last alone. Raises ConfigError.

    arguments: Snakemake's command line.
    """
    starts = [i for i, word in enumerate(arguments) if word.partition("=")[0] in ("--config", "-C")]
    if len(starts) > 1:
        raise ConfigError("--config: is given twice, of which Snakemake would take the last alone; put all behind one --config")
    for start in starts:
        words = [arguments[start].partition("=")[2], *takewhile(lambda word: not word.startswith("-"), arguments[start + 1 :])]
        keys = [word.partition("=")[0] for word in words if "=" in word]
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            hint = ' (several settings: set="train.steps=20 train.lr=1e-4")' if twice[0] == "set" else ""
            raise ConfigError(f"--config {twice[0]}: is given twice, of which Snakemake would take the last alone{hint}")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--config set={text}: {error}; expected key=value, several with spaces between them") from None


def _text(options: Mapping[str, Any], key: str, default: str, expected: str) -> str:
    """Return a text among the options. Snakemake makes a list, a mapping or a number of what looks like one."""
    value = options.get(key, default)
    if isinstance(value, Mapping | list | None) or value == "":
        raise ConfigError(f"--config {key}: got {'nothing' if value in (None, '') else show(value)}, expected {expected}")
    return str(value)


def _reread(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return parse_value(value, where)
    if isinstance(value, list):
        return [_reread(item, where) for item in value]
    if isinstance(value, Mapping):
        return {key: _reread(inner, f"{where}.{key}") for key, inner in value.items()}
    return value

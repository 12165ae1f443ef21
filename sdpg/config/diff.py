"""What differs between two resolved configs: rows of (dotted key, one value, the other), complete with every default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from sdpg.config.command import parse_overrides
from sdpg.config.layers import resolve
from sdpg.config.methods import method_config
from sdpg.config.parts import run_config
from sdpg.config.settings import Config
from sdpg.markdown import table

Row = tuple[str, Any, Any]
LABELS = ("name", "scale", "method", "seed", "seeds")  # what a config is called, not what it does


class _Absent:
    """The value of a key that one of the two does not have."""

    def __repr__(self) -> str:
        return "-"


ABSENT = _Absent()


def complete(config: Config, method: str | None = None) -> dict[str, Any]:
    """Return a resolved config with the fields of every method, defaults included; with `method`, what one run of it
    depends on.

    Raises ConfigError for a method that the config does not list.
    """
    if method is None:
        return config.dump() | {"methods": {name: method_config(config, name) for name in config.methods}}
    run = run_config(config, method, seed=0).dump()
    block = method_config(config, method)
    block.pop("train", None)  # in the run's train block already
    return {**run, "algorithm": block}


def difference(a: Mapping[str, Any], b: Mapping[str, Any], *, ignore: tuple[str, ...] = LABELS) -> list[Row]:
    """Return the rows in which two nested mappings differ, in the order of `a`, then of `b`; top-level keys in `ignore`
    apart.

    A list is one value. A key that only one of them has is ABSENT in the other.
    """
    one, other = (flatten({key: value for key, value in x.items() if key not in ignore}) for x in (a, b))
    rows = ((key, one.get(key, ABSENT), other.get(key, ABSENT)) for key in {**one, **other})
    return [row for row in rows if not _same(row[1], row[2])]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten {"train": {"steps": 5}} to {"train.steps": 5}; an empty mapping stays a value."""
    result: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        result |= flatten(inner, f"{path}.") if isinstance(inner, Mapping) and inner else {path: inner}
    return result


def text(value: Any) -> str:
    """Return a value as in a scale file, on one line; "-" for a key that is not there."""
    if value is ABSENT:
        return "-"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def markdown(rows: list[Row], a: str, b: str) -> str:
    """Return the rows as a Markdown table with the columns key, `a` and `b`; one sentence if there is none."""
    if not rows:
        return f"{a} and {b} do not differ.\n"
    return table(("key", a, b), [(f"`{key}`", text(x), text(y)) for key, x, y in rows]) + "\n"


def compare(a: str, b: str | None, method_a: str | None, method_b: str | None, overrides: list[str]) -> str:
    """Return what differs between two scales, or two methods' runs under them, as Markdown; `overrides` on top of the second.

    Raises ConfigError (ValueError) for names that are unknown, and where there is nothing to compare.
    """
    if (method_a is None) != (method_b is None):
        raise ValueError("--method-a and --method-b go together; --method sets both")
    if b is None and method_a == method_b and not overrides:
        raise ValueError("nothing to compare: give a second config, --method-a and --method-b, or --set")
    name_b = b or a
    one, other = resolve(a), resolve(name_b, parse_overrides(overrides))
    labels = [a, name_b + (" with --set" if overrides else "")]
    if method_a and method_b:
        labels = [f"{label}: {method}" for label, method in zip(labels, (method_a, method_b), strict=True)]
        return markdown(difference(complete(one, method_a), complete(other, method_b)), *labels)
    alone = ""  # a method that only one of them lists is one line, not its every field
    for label, x, y in ((labels[0], one, other), (labels[1], other, one)):
        if names := [name for name in x.methods if name not in y.methods]:
            alone += f"Only in {label}: {', '.join(names)}.\n\n"
    both = {name: name for name in one.methods if name in other.methods}
    shared = [x | {"methods": {name: x["methods"][name] for name in both}} for x in (complete(one), complete(other))]
    return alone + markdown(difference(*shared), *labels)


def _same(x: Any, y: Any) -> bool:
    """Compare, where 1 and 1.0 are and true and 1 are not."""
    return x == y and isinstance(x, bool) == isinstance(y, bool)

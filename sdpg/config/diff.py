"""What differs between two resolved configs: rows of (dotted key, one value, the other), complete with every default.

Nothing here imports torch: the defaults of a method are read from its source file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from sdpg.config import method_config, run_config

Row = tuple[str, Any, Any]
LABELS = ("name", "scale", "method", "seed", "seeds")  # what a config is called, not what it does


class _Absent:
    """The value of a key that one of the two does not have."""

    def __repr__(self) -> str:
        return "-"


ABSENT = _Absent()


def complete(config: Mapping[str, Any], method: str | None = None) -> dict[str, Any]:
    """A resolved config with the fields of every method, defaults included; with `method`, what one run of it depends on.

    Raises ConfigError for a method that the config does not list.
    """
    if method is None:
        return {**config, "methods": {name: method_config(config, name) for name in config["methods"]}}
    run = run_config(config, method, seed=0)
    block = method_config(config, method)
    block.pop("train", None)  # in the run's train block already
    return {**run, "algorithm": block}


def difference(a: Mapping[str, Any], b: Mapping[str, Any], *, ignore: tuple[str, ...] = LABELS) -> list[Row]:
    """The rows in which two nested mappings differ, in the order of `a`, then of `b`; top-level keys in `ignore` apart.

    A list is one value. A key that only one of them has is ABSENT in the other.
    """
    one, other = (flatten({key: value for key, value in x.items() if key not in ignore}) for x in (a, b))
    rows = ((key, one.get(key, ABSENT), other.get(key, ABSENT)) for key in {**one, **other})
    return [row for row in rows if not _same(row[1], row[2])]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 5}} -> {"train.steps": 5}; an empty mapping stays a value."""
    result: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        result |= flatten(inner, f"{path}.") if isinstance(inner, Mapping) and inner else {path: inner}
    return result


def text(value: Any) -> str:
    """A value as in a scale file, on one line; "-" for a key that is not there."""
    if value is ABSENT:
        return "-"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def markdown(rows: list[Row], a: str, b: str) -> str:
    """The rows as a Markdown table with the columns key, `a` and `b`; one sentence if there is none."""
    if not rows:
        return f"{a} and {b} do not differ.\n"
    lines = [("key", a, b), ("---", "---", "---"), *((f"`{key}`", text(x), text(y)) for key, x, y in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _same(x: Any, y: Any) -> bool:
    """Equal, where 1 and 1.0 are and true and 1 are not."""
    return x == y and isinstance(x, bool) == isinstance(y, bool)

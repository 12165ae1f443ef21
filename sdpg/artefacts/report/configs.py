"""What the runs were: configs, the keys in which they differ, and the machines and versions that made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sdpg.analysis.results import Results, run_parameters
from sdpg.config import resolve
from sdpg.config.diff import complete, difference, text
from sdpg.io import read_json

LONGEST = 200  # characters of a list that the page shows
PRESETS = (("paper-qwen3-4b", "released-qwen3-4b"), ("paper-qwen3-1.7b", "released-qwen3-1.7b"))
MACHINE = ("git_commit", "hardware", "versions")  # of run.json; the hashes of code and inputs stand in the manifest
Rows = list[tuple[str, str, str]]


def run_blocks(results: Results, infos: Mapping[tuple[str, int], dict]) -> dict[str, dict]:
    """Return method -> the complete config of its run with the first seed, without the seed. infos: run.json of every run."""
    blocks = {}
    for method in results.methods:
        run = (method, results.seeds[0])
        block = run_parameters(infos[run], results.run_dir(*run) / "run.json")
        blocks[method] = {key: value for key, value in block.items() if key != "seed"}
    return blocks


def configs(blocks: dict[str, dict]) -> list[tuple[str, str]]:
    """Return (method, YAML of its resolved config); what all methods share is listed once, first."""
    methods = list(blocks.values())
    common = {key: value for key, value in methods[0].items() if all(block.get(key) == value for block in methods)}
    own = {
        name: {key: value for key, value in block.items() if key not in common}
        for name, block in zip(blocks, methods, strict=True)
    }
    shown = {"shared by all methods": common} | own
    return [(name, yaml.safe_dump(block, sort_keys=False, allow_unicode=True)) for name, block in shown.items()]


def differences(blocks: dict[str, dict]) -> list[tuple[str, Rows]]:
    """Return every method but the first with the rows (key, the first one's value, its own) in which their configs differ."""
    first, *others = blocks.values()
    return [(name, _rows(first, block)) for name, block in zip(list(blocks)[1:], others, strict=True)]


def preset_differences() -> list[tuple[str, str, Rows]]:
    """Return (preset, other, rows) of the paper's and the released code's settings, for the methods that both have."""
    found = []
    for names in PRESETS:
        a, b = (complete(resolve(name)) for name in names)
        both = [method for method in a["methods"] if method in b["methods"]]
        a, b = ({**x, "methods": {method: x["methods"][method] for method in both}} for x in (a, b))
        found.append((*names, _rows(a, b)))
    return found


def environment(infos: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (dotted key, value) of versions, commit and hardware; where runs differ, each value and how many have it."""
    pairs = [dict(flatten({name: info[name] for name in MACHINE if name in info})) for info in infos]
    keys = dict.fromkeys(key for pair in pairs for key in pair)
    found = []
    for key in keys:
        counts = Counter(pair.get(key, "-") for pair in pairs)
        several = "; ".join(f"{value} ({count} runs)" for value, count in counts.most_common(4))
        more = f"; {len(counts) - 4} more values" if len(counts) > 4 else ""
        found.append((key, next(iter(counts)) if len(counts) == 1 else several + more))
    return found


def checks(root: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (title, pairs) of what was measured before training: base models, and the problems of each set."""
    bases = sorted((root / "model").glob("base*.json"))
    paths = [(f"Base model {path.stem.removeprefix('base')}", path) for path in bases]
    paths.append(("Training and evaluation data", root / "data" / "report.json"))
    return [(title, flatten(read_json(path))) for title, path in paths if path.is_file()]


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested dicts as (dotted key, text) pairs, in their order; lists stay on one line, and long ones are cut."""
    if not isinstance(value, dict):
        shown = text(value)
        if isinstance(value, list) and len(shown) > LONGEST:
            shown = f"{shown[:LONGEST]}... ({len(value)} entries)"
        return [(prefix, shown)]
    return [pair for key, inner in value.items() for pair in flatten(inner, f"{prefix}.{key}" if prefix else str(key))]


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> Rows:
    return [(key, text(one), text(other)) for key, one, other in difference(a, b)]

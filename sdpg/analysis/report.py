"""report.html: one self-contained page with tables, figures, configurations, machine and times. Opens offline, no scripts."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from PIL import Image

from sdpg.analysis.results import Results, require, run_parameters
from sdpg.analysis.tables import TABLES, build
from sdpg.config_diff import difference, text
from sdpg.io import read_json, write_atomic

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 200  # characters of a list that the page shows
FIGURE_ORDER = ("final_accuracy", "training_curves", "beta_schedule", "published_curves")  # any others follow by name


def make_report(results: Results) -> Path:
    """Write results.root/report.html from the figures, the score files, run.json and metrics.jsonl of every run.

    Snakemake's benchmark files (results.root/benchmarks/**/*.tsv), data/disjoint.json and model/base<n>.json are shown where
    they exist. Raises ValueError naming the missing file if there is no figure or no run.
    """
    path = results.root / "report.html"
    page = render(context(results))
    with write_atomic(path) as file:
        file.write(page)
    return path


def render(values: dict[str, Any]) -> str:
    """The page. Every value is escaped by the template engine; an undefined one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(**values)


def context(results: Results) -> dict[str, Any]:
    """All that the template shows, as plain values."""
    runs = {run: results.run_info(*run) for run in results.runs}
    first = runs[results.runs[0]]
    blocks = _blocks(results, runs)
    return {
        "name": results.root.name,
        "methods": results.methods,
        "seeds": results.seeds,
        "tasks": results.tasks,
        "accuracy": results.accuracy,
        "tables": [(name, build(name, results)) for name in TABLES],
        "figures": figures(results.root / "figures"),
        "configs": _configs(blocks),
        "differences": differences(blocks),
        "environment": flatten({key: value for key, value in first.items() if key not in ("config", "algorithm")}),
        "checks": [(name, flatten(read_json(path))) for name, path in _checks(results.root) if path.is_file()],
        "times": phase_times(results.metrics),
        "benchmarks": benchmarks(results.root / "benchmarks"),
    }


def figures(folder: Path) -> list[dict[str, str]]:
    """Every PNG of the folder as {name, source: data URI, caption: its Description}, in FIGURE_ORDER."""
    paths = sorted(folder.glob("*.png"), key=lambda path: (_order(path.stem), path.stem))
    if not paths:
        require(folder / f"{FIGURE_ORDER[0]}.png")
    found = []
    for path in paths:
        with Image.open(path) as image:
            caption = image.info.get("Description", path.stem.replace("_", " "))
            width, height = image.size
        source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        found.append({"name": path.stem, "source": source, "caption": caption, "width": width, "height": height})
    return found


def phase_times(metrics: pd.DataFrame) -> dict[str, Any]:
    """Mean seconds by phase over all steps, per method: column names, and rows (method, values, seconds of one run last).

    The phases are the columns seconds_<phase> of metrics.jsonl. `seconds` is a step without evaluation and checkpoints;
    "other" is what the remaining phases leave of it.
    """
    phases = [name for name in metrics if name.startswith("seconds_") and metrics[name].notna().any()]
    outside = [name for name in phases if name in ("seconds_validation", "seconds_checkpoint")]
    inside = [name for name in phases if name not in outside]
    rows = []
    for method, steps in metrics.groupby("method", sort=False):
        means = steps[[*phases, "seconds"]].astype(float).fillna(0).mean()
        whole = means["seconds"] + means[outside].sum()
        other = max(0.0, means["seconds"] - means[inside].sum())
        per_run = whole * len(steps) / steps["seed"].nunique()
        rows.append((method, [*means[inside], other, *means[outside], whole, per_run]))
    names = [*inside, "other", *outside, "together", "one run"]
    return {"columns": [name.removeprefix("seconds_").replace("_", " ") for name in names], "rows": rows}


def benchmarks(folder: Path) -> list[dict[str, str]]:
    """Snakemake's benchmark files as {rule, seconds, memory in MB}; the first repetition of each, sorted by name."""
    found = []
    for path in sorted(folder.rglob("*.tsv")) if folder.is_dir() else []:
        with open(path, encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"), None)
        if row:
            name = path.relative_to(folder).with_suffix("").as_posix()
            found.append({"rule": name, "seconds": row.get("s", ""), "memory": row.get("max_rss", "")})
    return found


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested dicts as (dotted key, text) pairs, in their order; lists stay on one line, and long ones are cut."""
    if not isinstance(value, dict):
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
        if isinstance(value, list) and len(text) > LONGEST:
            text = f"{text[:LONGEST]}... ({len(value)} entries)"
        return [(prefix, text)]
    return [pair for key, inner in value.items() for pair in flatten(inner, f"{prefix}.{key}" if prefix else str(key))]


def differences(blocks: dict[str, dict]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Every method but the first with the rows (key, the first one's value, its own) in which their configs differ."""
    first, *others = blocks.values()
    names = list(blocks)[1:]
    return [
        (name, [(key, text(one), text(own)) for key, one, own in difference(first, block)])
        for name, block in zip(names, others, strict=True)
    ]


def _blocks(results: Results, runs: dict) -> dict[str, dict]:
    """Method -> the complete config of its run with the first seed, without the seed."""
    blocks = {}
    for method in results.methods:
        seed = results.seeds[0]
        path = results.run_dir(method, seed) / "run.json"
        block = run_parameters(runs[(method, seed)], path)
        blocks[method] = {key: value for key, value in block.items() if key != "seed"}
    return blocks


def _configs(blocks: dict[str, dict]) -> list[tuple[str, str]]:
    """(method, YAML of its resolved config); what all methods share is listed once, first."""
    methods = list(blocks.values())
    common = {key: value for key, value in methods[0].items() if all(block.get(key) == value for block in methods)}
    own = {
        name: {key: value for key, value in block.items() if key not in common}
        for name, block in zip(blocks, methods, strict=True)
    }
    shown = {"shared by all methods": common} | own
    return [(name, yaml.safe_dump(block, sort_keys=False, allow_unicode=True)) for name, block in shown.items()]


def _checks(root: Path) -> list[tuple[str, Path]]:
    return [
        *(
            (f"Base model {path.stem.removeprefix('base')}", path)
            for path in sorted((root / "model").glob("base*.json"))
        ),
        ("Training and evaluation data", root / "data" / "disjoint.json"),
    ]


def _order(name: str) -> int:
    return FIGURE_ORDER.index(name) if name in FIGURE_ORDER else len(FIGURE_ORDER)

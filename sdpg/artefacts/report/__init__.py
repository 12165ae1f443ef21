"""report.html: one self-contained page, the verdicts first. Opens offline, has no scripts and asks nothing of the network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from sdpg.analysis.reference import FOLDER, Agreement, compare
from sdpg.analysis.results import Results, require
from sdpg.artefacts.report.configs import checks, configs, differences, environment, preset_differences, run_blocks
from sdpg.artefacts.report.cost import benchmarks, cost
from sdpg.artefacts.report.files import files
from sdpg.artefacts.report.verdicts import read_claims, verdicts
from sdpg.artefacts.tables import TABLES, build
from sdpg.io import sha256, write_atomic

TEMPLATES = Path(__file__).parent / "templates"
HEADLINE = ("final_accuracy", "training_curves", "stability", "cost", "decomposition")
FIGURE_ORDER = (
    *HEADLINE,
    "ablations",
    "self_distillation",
    "beta_schedule",
    "published_curves",
)  # others follow by name


def make_report(results: Results, *, command: str = "make reproduce", reference: Path | None = None) -> Path:
    """Write results.root/report.html from the figures, the score files, run.json and metrics.jsonl of every run.

    claims.json, Snakemake's benchmark files (benchmarks/**/*.tsv), data/disjoint.json and model/base<n>.json are shown where
    they exist, and the comparison with a reference (default: results/reference/<name>) where there is one. command: what
    makes these results. Raises ValueError naming the missing file if there is no figure or no run.
    """
    path = results.root / "report.html"
    page = render(context(results, command=command, reference=reference or FOLDER / results.name))
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


def context(results: Results, *, command: str, reference: Path) -> dict[str, Any]:
    """All that the template shows, as plain values."""
    infos = {run: results.run_info(*run) for run in results.runs}
    blocks = run_blocks(results, infos)
    jobs = benchmarks(results)
    shown = figures(results.root / "figures")
    return {
        "name": results.name,
        "methods": results.methods,
        "seeds": results.seeds,
        "tasks": results.tasks,
        "accuracy": results.accuracy,
        "verdicts": verdicts(read_claims(results.root), {figure["name"] for figure in shown}),
        "tables": [(name, build(name, results)) for name in TABLES],
        "headline_figures": [figure for figure in shown if figure["name"] in HEADLINE],
        "more_figures": [figure for figure in shown if figure["name"] not in HEADLINE],
        "reference": agreement(results, reference),
        "configs": configs(blocks),
        "differences": differences(blocks),
        "presets": preset_differences(),
        "environment": environment(infos.values()),
        "checks": checks(results.root),
        "cost": cost(results.metrics, jobs, infos.values()),
        "benchmarks": jobs,
        "files": files(results),
        "command": command,
        "commits": sorted({str(info.get("git_commit") or "unknown") for info in infos.values()}),
    }


def figures(folder: Path) -> list[dict[str, Any]]:
    """Every PNG of the folder as {name, source: data URI, caption: its Description, width, height}, in FIGURE_ORDER."""
    paths = sorted(folder.glob("*.png"), key=lambda path: (_order(path.stem), path.stem))
    if not paths:
        require(folder / f"{FIGURE_ORDER[0]}.png")
    found = []
    for path in paths:
        with Image.open(path) as image:
            caption = image.info.get("Description", path.stem.replace("_", " "))
            width, height = image.size
        source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        kinds = [kind for kind in ("pdf", "png", "csv") if path.with_suffix(f".{kind}").is_file()]
        names = {"name": path.stem, "title": path.stem.replace("_", " ").capitalize(), "kinds": kinds}
        found.append(names | {"source": source, "caption": caption, "width": width, "height": height})
    return found


def agreement(results: Results, folder: Path) -> dict[str, Any] | None:
    """The comparison with the reference in `folder`: its headline, rows and notes; None without a reference."""
    if not folder.is_dir():
        return None
    try:
        found = compare(results, folder)
    except ValueError as error:  # other problems, another accuracy: the page says so
        return {"headline": f"not comparable: {error}", "holds": False, "rows": [], "notes": []}
    notes = list(found.notes)
    if sha256(results.root / "scores.csv") == sha256(folder / "scores.csv"):
        notes.insert(0, "scores.csv is the reference's own, byte for byte")
    return {"headline": found.headline, "holds": found.holds, "rows": _rows(found), "notes": notes}


def _rows(found: Agreement) -> list[dict[str, Any]]:
    return found.rows.to_dict("records")


def _order(name: str) -> int:
    return FIGURE_ORDER.index(name) if name in FIGURE_ORDER else len(FIGURE_ORDER)

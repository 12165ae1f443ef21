"""report.html: one self-contained page, the verdicts first. Opens offline, has no scripts and asks nothing of the network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from sdpg.analysis.reference import FOLDER, Agreement, compare
from sdpg.analysis.results import Results, require
from sdpg.artefacts import Job, declared, planned, table
from sdpg.artefacts.declare import PAPER, ArtefactSpec
from sdpg.artefacts.report.configs import checks, configs, differences, environment, preset_differences, run_blocks
from sdpg.artefacts.report.cost import benchmarks, cost
from sdpg.artefacts.report.files import files
from sdpg.artefacts.report.verdicts import read_claims, verdicts
from sdpg.config.command import snakemake_command
from sdpg.io import sha256, write_atomic

ARTEFACT = ArtefactSpec(
    about="report.html: verdicts, figures, tables, configurations, cost and files on one page",
    reads=lambda files: [
        *(path for name in files.several("") if name not in ("report", "manifest") for path in files.made(name)),
        *files.records,
        *files.metrics,
        files.data_report,
        *files.base_reports,
        *files.reference,  # with a reference, the page says whether the results agree with it
    ],
    writes=("report.html",),
    files=("sdpg/artefacts/report/templates/*", "config/presets/*.yaml", "config/methods/*.yaml"),
    caption="All on one page that opens offline. Its links to single files work where it lies in the results folder.",
    shown="html",
    category="Report",
)

TEMPLATES = Path(__file__).parent / "templates"
HEADLINE = 10  # figures with a lower place come before the tables


def make(job) -> None:
    """Write report.html from the figures, the score files, run.json and metrics.jsonl of every run.

    Snakemake's benchmark files (benchmarks/**/*.tsv), data/report.json and model/base<n>.json are shown where they exist, and
    the comparison with a reference (results/reference/<name>) where there is one. Raises ValueError naming the missing file if
    there is no figure or no run.
    """
    command = snakemake_command(job.scale, job.overrides)
    page = render(context(job, command=command, reference=FOLDER / job.results.name))
    with write_atomic(job.results.root / "report.html") as file:
        file.write(page)


def render(values: dict[str, Any]) -> str:
    """Return the page. Every value is escaped by the template engine; an undefined one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(**values)


def context(job: Job, *, command: str, reference: Path) -> dict[str, Any]:
    """Return all that the template shows, as plain values."""
    results = job.results
    infos = {run: results.run_info(*run) for run in results.runs}
    blocks = run_blocks(results, infos)
    jobs = benchmarks(results)
    shown = figures(results.root / "figures")
    tables = sorted((item.spec.place, name, item) for name, item in planned(job.config).items() if name.startswith("tables/"))
    return {
        "name": results.name,
        "methods": results.methods,
        "seeds": results.seeds,
        "tasks": results.tasks,
        "accuracy": results.accuracy,
        "verdicts": verdicts(read_claims(results.root), {figure["name"] for figure in shown}),
        "tables": [(Path(name).name, table(item, job)) for _, name, item in tables],
        "headline_figures": [figure for figure in shown if figure["place"] < HEADLINE],
        "more_figures": [figure for figure in shown if figure["place"] >= HEADLINE],
        "paper": PAPER,
        "diverged": diverged(results, infos),
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


def diverged(results: Results, infos: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each run that diverged: its name, step, reason, last checkpoint and the folder of its batch."""
    rows = []
    for (method, seed), found in results.diverged.items():
        outcome = infos[method, seed].get("outcome", {})
        last, batch = outcome.get("last_checkpoint"), f"runs/{method}/seed{seed}/{outcome.get('batch', 'diverged')}/"
        if outcome.get("status") == "collapsed":  # stopped, with nothing broken to look at
            batch = ""
        rows.append({"run": f"{method}, seed {seed}", "step": found.step, "reason": found.reason, "last": last, "batch": batch})
    return rows


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return every PNG of the folder as {name, place, source: data URI, caption, width, height}, by place."""
    paths = sorted(folder.glob("*.png"), key=lambda path: (_place(path.stem), path.stem))
    if not paths:
        require(folder / "final_accuracy.png")
    found = []
    for path in paths:
        with Image.open(path) as image:
            caption = image.info.get("Description", path.stem.replace("_", " "))
            width, height = image.size
        source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        kinds = [kind for kind in ("pdf", "png", "csv") if path.with_suffix(f".{kind}").is_file()]
        names = {
            "name": path.stem,
            "place": _place(path.stem),
            "title": path.stem.replace("_", " ").capitalize(),
            "kinds": kinds,
        }
        found.append(names | {"source": source, "caption": caption, "width": width, "height": height})
    return found


def agreement(results: Results, folder: Path) -> dict[str, Any] | None:
    """Return the comparison with the reference in `folder`: its headline, rows and notes; None without a reference."""
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


def _place(name: str) -> int:
    """Return a figure's rank in the report; a picture that no artefact declares comes last."""
    item = declared().get(f"figures/{name}")
    return item.spec.place if item else 99

"""Sample generations of every method: at its first, middle and last checkpoint, right ones and wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from sdpg.analysis.generations import read_generations, verdict, visible
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import ArtefactSpec
from sdpg.io import write_atomic

ARTEFACT = ArtefactSpec(
    about="samples.html: responses of every method at its first, middle and last checkpoint, right and wrong",
    reads=lambda files: [
        *files.evaluations,
        *(f"{files.root}/data/eval/{task}.parquet" for task in files.config.data.evaluation),
    ],
    writes=("samples.html",),
    files=tuple(f"sdpg/artefacts/report/templates/{name}" for name in ("samples.html", "head.html", "report.css")),
    caption="Responses of the first seed's run of every method, at its first, middle and last checkpoint, right and wrong.",
    shown="html",
    category="Report",
)

LONGEST = 8000  # characters of a response, or of a question, that the page shows
TEMPLATES = Path(__file__).parent / "report" / "templates"


def make(job) -> None:
    """Write samples.html. Raises ValueError for a missing file."""
    results = job.results
    loader = jinja2.FileSystemLoader(TEMPLATES)
    how = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, **how)
    methods = [(method, [s for task in results.tasks for s in chosen(results, method, task)]) for method in results.methods]
    text = environment.get_template("samples.html").render(name=results.name, seed=results.seeds[0], methods=methods)
    with write_atomic(results.root / "samples.html") as file:
        file.write(text)


def chosen(results: Results, method: str, task: str) -> list[dict[str, Any]]:
    """Return what the page shows of one method and set: at three checkpoints a right response and a wrong one."""
    path = results.eval_dir(method, results.seeds[0]) / f"{task}.parquet"
    facts = read_generations(path, texts=False)
    problems = pd.read_parquet(results.root / "data" / "eval" / f"{task}.parquet").set_index("id")
    steps = sorted(facts["step"].unique())
    found, first = [], {}
    for step in dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])):
        there = facts[facts["step"] == step]
        for correct, wanted in ((True, "right"), (False, "wrong")):
            some = there[there["correct"] == correct]
            if len(some):
                first[len(found)] = tuple(some.iloc[0][["step", "problem_id", "sample"]])
            found.append({"step": step, "task": task, "wanted": wanted, "count": len(some), "of": len(there), "verdict": ""})
    rows = read_generations(path, steps={key[0] for key in first.values()}, problems={key[1] for key in first.values()})
    by_key = {(row.step, row.problem_id, row.sample): row for row in rows.itertuples()}
    for i, key in first.items():
        found[i] |= _shown(by_key[key], problems)
    return found


def _shown(row, problems: pd.DataFrame) -> dict[str, Any]:
    known = row.problem_id in problems.index
    return {
        "verdict": verdict(row),
        "correct": row.correct,
        "problem": visible(row.problem_id),
        "sample": row.sample,
        "tokens": row.tokens,
        "question": _cut(problems["question"][row.problem_id]) if known else "not among the problems of this scale any more",
        "answer": _cut(problems["answer"][row.problem_id]) if known else "",
        "text": _cut(row.text),
    }


def _cut(text: str) -> str:
    more = len(text) - LONGEST
    return visible(text[:LONGEST]) + (f"\n[{more} more characters: sdpg show]" if more > 0 else "")

"""The leaderboard: every method of every scale, with intervals, collapses and cost."""

from __future__ import annotations

import pandas as pd

from sdpg.analysis.intervals import Share
from sdpg.artefacts.tables.main import TIED
from sdpg.experiment.pages.first import accuracy, cost
from sdpg.experiment.pages.read import Reference, References, label, not_run
from sdpg.markdown import table

HEAD = ["method", "last checkpoint, all runs", "collapsed", "accuracy, healthy runs", "FLOPs, GRPO = 1", "seconds a run"]


def tables(references: References, up: str) -> str:
    """Return a table for each evaluation set of each scale, in the order of what all runs of a method end at."""
    parts = []
    for scale in references.scales:
        of = references.get(scale)
        parts.append(f"### Scale `{scale}`\n")
        parts += [not_run(scale) + "\n"] if of is None else [_table(of, task) for task in of.tasks]
    return "\n".join(parts)


def _table(of: Reference, task: str) -> str:
    entries = of.main[of.main["task"] == task].sort_values("last", ascending=False, kind="stable")
    rows = [_row(of, entry) for entry in entries.to_dict("records")]
    base = f" Before training: {of.base[task]:.3f}." if task in of.base else ""
    where = f"results/reference/{of.scale}/tables/main.csv"
    return f"Set `{task}` ({entries['metric'].iloc[0]}; `{where}`).{base}\n\n{table(HEAD, rows, right=5)}\n"


def _row(of: Reference, entry: dict) -> list[str]:
    k, n = int(entry["collapsed"]), int(entry["runs"])
    low, high = Share(k, n).interval()
    name = label(entry["method"])
    best = accuracy(entry)
    if entry["shown_best"] is True:
        name, best = f"**{name}**", f"**{best}**"
    seconds = of.spent["seconds"].get(entry["method"])
    return [
        name,
        f"{entry['last']:.3f} [{entry['last_low']:.3f}, {entry['last_high']:.3f}]",
        f"{k} of {n} [{low:.2f}, {high:.2f}]",
        (TIED if entry["tied"] is True else "") + best,
        cost(of, entry["method"]),
        "–" if seconds is None or pd.isna(seconds) else f"{seconds:.0f}",
    ]

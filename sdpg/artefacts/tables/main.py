"""Table 1's layout: a row per method, Last and Best of every evaluation set, each as mean and interval over seeds."""

from __future__ import annotations

import pandas as pd

from sdpg.analysis.comparisons import ALPHA
from sdpg.analysis.intervals import interval_name
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.tables.layout import Cell, Table, interval, number

ARTEFACT = TableSpec(reads=lambda files: [*files.made("scores"), *files.metrics], place=1)

COLUMNS = ["method", "task", "metric", "step", "last", "last_low", "last_high", "best", "best_low", "best_high", "bold"]
BASE = "base model (step 0)"


def build(results: Results) -> Table:
    """Build it; needs scores.csv, intervals.csv and comparisons.csv. Raises ValueError naming the method and set without a
    value.
    """
    data = [_entry(results, method, task) for method in results.methods for task in results.tasks]
    for task in results.tasks:
        bold = bold_methods({e["method"]: e["last"] for e in data if e["task"] == task}, _separated(results, task))
        for entry in data:
            if entry["task"] == task:
                entry["bold"] = entry["method"] in bold
    base = {task: _base(results, task) for task in results.tasks}
    rows = []
    if all(value is not None for value in base.values()):
        rows.append((BASE, [cell for value in base.values() for cell in (Cell(number(value)), Cell())]))
        data += [dict.fromkeys(COLUMNS) | {"method": "base", "task": t, "step": 0, "last": v} for t, v in base.items()]
    for method in results.methods:
        entries = [entry for entry in data if entry["method"] == method]
        rows.append((method, [cell for entry in entries for cell in _cells(entry)]))
    columns = [(task, name) for task in results.tasks for name in ("Last", "Best")]
    frame = pd.DataFrame(data, columns=COLUMNS)
    frame["metric"] = results.accuracy
    return Table(_caption(results), "method", columns, rows, frame)


def bold_methods(last: dict[str, float], separated: set[frozenset[str]]) -> set[str]:
    """Return the method with the highest Last and those not separated from it; none if that is every method.

    last: accuracy per method. separated: the pairs whose paired difference is significant.
    """
    top = max(last, key=last.__getitem__)
    tied = {method for method in last if method == top or frozenset((method, top)) not in separated}
    return set() if len(tied) == len(last) else tied


def _separated(results: Results, task: str) -> set[frozenset[str]]:
    rows = results.comparisons.query("task == @task and metric == @results.accuracy and p_holm <= @ALPHA")
    return {frozenset(pair) for pair in zip(rows["method"], rows["other"], strict=True)}


def _entry(results: Results, method: str, task: str) -> dict:
    rows = results.intervals.query("method == @method and task == @task and metric == @results.accuracy")
    steps, best = rows.query("selection == 'step'"), rows.query("selection == 'best'")
    if steps.empty or len(best) != 1:
        raise ValueError(
            f"{results.root / 'intervals.csv'} has no {results.accuracy} of {method} on {task}; make it again from this config"
        )
    last = steps.loc[steps["step"].idxmax()]
    entry = {"method": method, "task": task, "step": int(last["step"])}
    for name, row in (("last", last), ("best", best.iloc[0])):
        entry |= {name: row["mean"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
    return entry


def _base(results: Results, task: str) -> float | None:
    """Return accuracy at step 0, averaged over all runs (they start from the same model); None if it was not evaluated."""
    rows = results.scores.query("task == @task and metric == @results.accuracy and step == 0")
    return None if rows.empty else float(rows["value"].mean())


def _cells(entry: dict) -> tuple[Cell, Cell]:
    last = interval(entry["last"], entry["last_low"], entry["last_high"])
    best = interval(entry["best"], entry["best_low"], entry["best_high"])
    return Cell(last, bold=entry["bold"]), Cell(best)


def _caption(results: Results) -> str:
    count = len(results.seeds)
    return (
        f"Accuracy ({results.accuracy} at the evaluation temperature, fraction) of {count} seed{'s' * (count > 1)} per "
        f"method: mean and {interval_name(count)}. Last is the last checkpoint, the primary number. Best is each seed's "
        "highest checkpoint, picked on the test set itself and so biased upwards (its interval takes the choice as given). "
        "Bold: the highest Last and every method that cannot be told from it, that is, whose difference paired by seed and "
        f"problem has a Holm-adjusted p-value above {ALPHA:.2g} (adjusted for all pairs of methods on the same set); nothing "
        "is bold where that is all of them."
    )

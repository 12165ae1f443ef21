"""Table 1's layout: a row per method, Last and Best of every evaluation set; beside them, what methods are compared by."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from sdpg.analysis.intervals import ALPHA, Share, interval_name
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.stability import collapses
from sdpg.artefacts.tables.layout import Cell, Table, interval, number

ARTEFACT = TableSpec(reads=lambda files: [*files.made("scores"), *files.metrics], place=1)

COLUMNS = ["method", "task", "metric", "step", "last", "last_low", "last_high", "best", "best_low", "best_high"]
COLUMNS += ["healthy", "healthy_low", "healthy_high", "collapsed", "runs", "shown_best", "tied"]
TIED = "≈ "  # before a value of a method that may be the best
BASE = "base model (step 0)"


def build(results: Results) -> Table:
    """Build it; needs scores.csv, intervals.csv and comparisons.csv. Raises ValueError naming the method and set without a
    value.
    """
    data = [_entry(results, method, task) for method in results.methods for task in results.tasks]
    for task in results.tasks:
        on_it = [entry for entry in data if entry["task"] == task]
        best, tied = told_apart(
            {e["method"]: e["healthy"] for e in on_it if e["healthy"] is not None and e["method"] in results.compared},
            _better(results, task),
            {e["method"] for e in on_it if 2 * e["collapsed"] > e["runs"]},
        )
        for entry in on_it:
            entry |= {"shown_best": entry["method"] == best, "tied": entry["method"] in tied}
    base = {task: _base(results, task) for task in results.tasks}
    rows = []
    if all(value is not None for value in base.values()):
        rows.append((BASE, [cell for value in base.values() for cell in (Cell(number(value)), Cell(), Cell(), Cell())]))
        data += [dict.fromkeys(COLUMNS) | {"method": "base", "task": t, "step": 0, "last": v} for t, v in base.items()]
    for method in results.methods:
        entries = [entry for entry in data if entry["method"] == method]
        rows.append((method, [cell for entry in entries for cell in _cells(entry)]))
    columns = [(task, name) for task in results.tasks for name in ("Last", "Best", "Healthy", "Collapsed")]
    frame = pd.DataFrame(data, columns=COLUMNS)
    frame["metric"] = results.accuracy
    return Table(_caption(results), "method", columns, rows, frame)


def told_apart(
    healthy: dict[str, float], better: set[tuple[str, str]], few: Collection[str] = ()
) -> tuple[str | None, set[str]]:
    """Return (the method that is shown to be better than every other, or None; those that may be the best, if it is not alone
    and they are not all).

    healthy: accuracy per method. better: pairs of which the first is shown to be better. few: methods of which fewer than half
    of the runs are healthy. May be the best: what nothing is shown to be better than, and is not of `few`, whose accuracy is
    that of the runs that are left.
    """
    leading = [method for method in healthy if not any((other, method) in better for other in healthy)]
    for method in leading:
        if len(healthy) > 1 and all((method, other) in better for other in healthy if other != method):
            return method, set()
    tied = {method for method in leading if method not in few}
    return None, set() if len(tied) in (1, len(healthy)) else tied


def _better(results: Results, task: str) -> set[tuple[str, str]]:
    """Return the pairs of methods of which the first is shown to be better: by performance among healthy runs or by fewer
    collapses, and not shown to be worse by the other.
    """
    found = set()
    rows = results.comparisons.query("task == @task and metric == @results.accuracy and measure == 'late'")
    for row in rows.itertuples():
        signs = [(row.difference > 0) - (row.difference < 0) if row.p_holm <= ALPHA else 0]
        fewer = (row.other_collapsed > row.collapsed) - (row.other_collapsed < row.collapsed)
        signs.append(fewer if row.p_collapse_holm <= ALPHA else 0)
        if max(signs) - min(signs) < 2 and any(signs):
            found.add((row.method, row.other) if sum(signs) > 0 else (row.other, row.method))
    return found


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
    healthy = rows.query("selection == 'healthy'")
    values = healthy[["mean", "low", "high"]].iloc[0] if len(healthy) else (None, None, None)
    entry |= dict(zip(("healthy", "healthy_low", "healthy_high"), values, strict=True))
    fell = collapses(results, method, task).ever
    return entry | {"collapsed": int(fell.sum()), "runs": len(fell)}


def _base(results: Results, task: str) -> float | None:
    """Return accuracy at step 0, averaged over all runs (they start from the same model); None if it was not evaluated."""
    rows = results.scores.query("task == @task and metric == @results.accuracy and step == 0")
    return None if rows.empty else float(rows["value"].mean())


def _cells(entry: dict) -> tuple[Cell, ...]:
    last = interval(entry["last"], entry["last_low"], entry["last_high"])
    best = interval(entry["best"], entry["best_low"], entry["best_high"])
    healthy = Cell()
    if entry["healthy"] is not None:
        text = interval(entry["healthy"], entry["healthy_low"], entry["healthy_high"])
        healthy = Cell((TIED if entry["tied"] else "") + text, bold=entry["shown_best"])
    low, high = Share(entry["collapsed"], entry["runs"]).interval()
    ends = f" [{low:.2f}, {high:.2f}]" if entry["runs"] > 1 else ""
    return Cell(last), Cell(best), healthy, Cell(f"{entry['collapsed']} of {entry['runs']}{ends}")


def _caption(results: Results) -> str:
    count = len(results.seeds)
    return (
        f"Accuracy ({results.accuracy} at the evaluation temperature, fraction) of {count} seed{'s' * (count > 1)} per "
        f"method: mean and {interval_name(count)}. Last is the last checkpoint of all runs. Best is each seed's highest "
        "checkpoint, picked on the test set itself and so biased upwards (its interval takes the choice as given). "
        "Methods are compared by two outcomes. Healthy is the mean of the second half's checkpoints over the runs that "
        "did not collapse; Collapsed counts those whose accuracy ever fell below half of its running maximum or ends below "
        "its start, that "
        "diverged or that were stopped, with the exact 95% interval of their share. Bold: shown to be better than every "
        "other method, by performance among units whose two runs are healthy (paired t-test) or by collapses (McNemar's "
        f"exact test), each with a Holm-adjusted p-value of at most {ALPHA:.2g} over all pairs on the set; nothing is bold "
        f"if no method is. {TIED.strip()}: not shown to be worse than any, and at least half of its runs healthy; "
        "no mark where that is all of them."
    )

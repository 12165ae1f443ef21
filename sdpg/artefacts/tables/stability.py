"""Every metric of stability for every method: mean over seeds, and the worst seed where one direction is bad."""

from __future__ import annotations

import pandas as pd

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.stability import ACCURACY, METRICS, TRAINING, read, text, worst
from sdpg.artefacts.tables.layout import NONE, Cell, Table

ARTEFACT = TableSpec(reads=lambda files: [*files.made("stability"), *files.metrics], place=2)

COLUMNS = ["method", "task", "metric", "unit", "bad", "mean", "worst_seed", "lowest_seed", "highest_seed", "seeds"]


def build(results: Results) -> Table:
    """Build it; needs stability.csv. Raises ValueError naming a metric that it lacks for some method."""
    frame = read(results)
    shown = [(task, metric) for task in results.tasks for metric in ACCURACY] + [(None, metric) for metric in TRAINING]
    data, rows = [], []
    for method in results.methods:
        entries = [_entry(results, frame, method, task, metric) for task, metric in shown]
        rows.append((method, [_cell(entry) for entry in entries]))
        data += entries
    columns = [(task or "training", METRICS[metric].label) for task, metric in shown]
    return Table(_caption(results), "method", columns, rows, pd.DataFrame(data, columns=COLUMNS))


def _entry(results: Results, frame: pd.DataFrame, method: str, task: str | None, metric: str) -> dict:
    own = frame[(frame["method"] == method) & (frame["metric"] == metric)]
    values = own[own["task"] == task if task else own["task"].isna()]["value"]
    expected = 1 if metric == "seed_spread" else len(results.seeds)
    if len(values) != expected:
        raise ValueError(
            f"{results.root / 'stability.csv'} has {len(values)} rows for {metric} of {method}{f' on {task}' if task else ''}, "
            f"expected {expected}; make it again from this config"
        )
    entry = {"method": method, "task": task, "metric": metric, "unit": METRICS[metric].unit, "bad": METRICS[metric].bad}
    ends = {"worst_seed": worst(metric, values), "lowest_seed": values.min(), "highest_seed": values.max()}
    alone = metric == "seed_spread"  # one number for all seeds: no worst one
    return entry | {"mean": values.mean(), **(dict.fromkeys(ends) if alone else ends), "seeds": len(results.seeds)}


def _cell(entry: dict) -> Cell:
    if pd.isna(entry["mean"]):
        return Cell(NONE)
    if entry["metric"] in ("collapsed", "collapsed_end", "rollouts_collapsed"):
        return Cell(f"{round(entry['mean'] * entry['seeds'])} of {entry['seeds']}")
    mean, extreme = text(entry["mean"]), entry["worst_seed"]
    return Cell(mean if pd.isna(extreme) or entry["seeds"] == 1 else f"{mean} ({text(extreme)})")


def _caption(results: Results) -> str:
    count = len(results.seeds)
    bad = {way: ", ".join(about.label for about in METRICS.values() if about.bad == way) for way in ("low", "high")}
    seeds = f"mean over {count} seeds, in brackets the worst one" if count > 1 else "one seed"
    return (
        f"Stability of training: {seeds}; collapsed: seeds whose accuracy ever fell below half of its running maximum, that "
        "end below their start, that diverged or were stopped; first fall: mean step of those. "
        f"Bad when low: {bad['low']}; bad when high: {bad['high']}; for the others it depends on the accuracy. {NONE}: no such "
        "number (no reference, too few steps, one seed). Units and definitions: docs/metrics.md."
    )

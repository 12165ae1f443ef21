"""Accuracy against what a run has spent: results/<scale>/cost.csv, one row per (method, seed, task, checkpoint).

Four axes: training steps, generated tokens, FLOPs (forward and backward passes of all models and the rollouts, as
metrics.jsonl records them) and seconds of training. A run whose metrics.jsonl has no FLOPs has none here: they are not guessed.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from sdpg.analysis.diverged import Run
from sdpg.analysis.results import Results, read_csv
from sdpg.artefacts.declare import SummarySpec
from sdpg.artefacts.stability import accuracy_curves

ARTEFACT = SummarySpec(reads=lambda files: [*files.made("scores"), *files.metrics])

COLUMNS = ["method", "seed", "task", "step", "accuracy", "tokens", "flops", "seconds"]
AXES = {  # column here: column of metrics.jsonl that adds up to it
    "step": None,
    "tokens": "sampled_tokens",
    "flops": "flops",
    "seconds": "seconds",
}
BUDGET_COLUMNS = ["task", "axis", "budget", "limit_method", "limit_seed", "method", "mean", "low", "high"]


def summarise(results: Results) -> pd.DataFrame:
    """Return what each checkpoint scored, and what its run had spent by then (COLUMNS); step 0 has spent nothing.

    Needs scores.csv and every metrics.jsonl. Raises ValueError for a missing file, score or value (flops may be missing).
    """
    spent = {run: spending(results, *run) for run in results.runs}
    rows = []
    for method in results.methods:
        for task in results.tasks:
            table = accuracy_curves(results, method, task)
            for seed in table.columns:
                how = "ffill" if (method, seed) in results.diverged else None  # it spends nothing more
                at = spent[method, seed].reindex(table.index, method=how)
                if at["seconds"].isna().any():
                    step = int(at.index[at["seconds"].isna()][0])
                    raise ValueError(f"{method} seed {seed} has a score at step {step}, which metrics.jsonl lacks")
                values = zip(table.index, table[seed], at["tokens"], at["flops"], at["seconds"], strict=True)
                rows += [(method, seed, task, *row) for row in values]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"step": int, "tokens": int})


def read(results: Results) -> pd.DataFrame:
    """Return cost.csv, restricted to the config's methods and seeds."""
    frame = read_csv(results.root / "cost.csv", COLUMNS)
    return frame[frame["method"].isin(results.methods) & frame["seed"].isin(results.seeds)]


def spending(results: Results, method: str, seed: int) -> pd.DataFrame:
    """Return the tokens, FLOPs and seconds so far, by step 0, 1, ...; flops is NaN throughout unless every step has recorded
    it.
    """
    frame = results.metrics.query("method == @method and seed == @seed").set_index("step")
    sums = {}
    for axis, column in AXES.items():
        if column is None:
            continue
        values = frame[column].astype(float) if column in frame else pd.Series(np.nan, index=frame.index)
        if values.isna().any():
            if axis != "flops":
                path = results.run_dir(method, seed) / "metrics.jsonl"
                raise ValueError(f"{path} has no {column} in some rows; train this run again")
            values = values * np.nan
        sums[axis] = values.cumsum()
    start = pd.DataFrame({axis: [total.iloc[0] * 0] for axis, total in sums.items()}, index=[0])
    return pd.concat([start, pd.DataFrame(sums)])


def recorded(frame: pd.DataFrame, axis: str) -> list[str]:
    """Return the methods of a cost frame all of whose runs have that axis."""
    return [method for method, rows in frame.groupby("method", sort=False) if rows[axis].notna().all()]


def budgets(frame: pd.DataFrame, diverged: Collection[Run] = ()) -> dict[str, tuple[float, str, int]]:
    """Return axis -> the largest budget that every run reached, and the run that ends there (method, seed).

    Of the methods that have the axis (`recorded`); an axis that none has is left out. Runs that diverged set no budget, unless
    all did.
    """
    runs = pd.Series(list(zip(frame["method"], frame["seed"], strict=True)), index=frame.index)
    if not (ended := runs.isin(list(diverged))).all():
        frame = frame[~ended]
    found = {}
    for axis in AXES:
        spent = frame[frame["method"].isin(recorded(frame, axis))]
        if not spent.empty:
            totals = spent.groupby(["method", "seed"], sort=False)[axis].max()
            found[axis] = (float(totals.min()), *totals.idxmin())
    return found


def at_equal_budget(frame: pd.DataFrame, diverged: Collection[Run] = ()) -> pd.DataFrame:
    """Return accuracy at the budgets of `budgets`, linear between checkpoints (BUDGET_COLUMNS): mean, lowest and highest
    seed.
    """
    rows = []
    for axis, (budget, *limit) in budgets(frame, diverged).items():
        for task, of_task in frame.groupby("task", sort=False):
            for method in recorded(frame, axis):
                runs = of_task[of_task["method"] == method].groupby("seed")
                values = [float(np.interp(budget, run[axis], run["accuracy"])) for _, run in runs]
                rows.append((task, axis, budget, *limit, method, np.mean(values), min(values), max(values)))
    return pd.DataFrame(rows, columns=BUDGET_COLUMNS)

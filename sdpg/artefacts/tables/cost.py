"""Accuracy of every method at the same budget of steps, tokens, FLOPs and seconds."""

from __future__ import annotations

import pandas as pd

from sdpg.analysis.results import Results
from sdpg.artefacts.cost import AXES, BUDGET_COLUMNS, at_equal_budget, budgets, read, recorded
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.tables.layout import Cell, Table, number

ARTEFACT = TableSpec(reads=lambda files: [*files.made("cost"), *files.metrics], place=3)

NAMES = {"step": "steps", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}


def build(results: Results) -> Table:
    """Build it; needs cost.csv. An axis that a method's runs have not recorded is an empty cell, and the caption says so."""
    frame = read(results)
    limits = budgets(frame, results.diverged)
    data = at_equal_budget(frame, results.diverged)
    found = data.set_index(["task", "axis", "method"])
    columns = [(task, _heading(axis, limits)) for task in results.tasks for axis in AXES]
    rows = []
    for method in results.methods:
        keys = [(task, axis, method) for task in results.tasks for axis in AXES]
        rows.append((method, [_cell(found.loc[key], len(results.seeds)) if key in found.index else Cell() for key in keys]))
    return Table(_caption(results, frame, limits), "method", columns, rows, data[BUDGET_COLUMNS])


def _heading(axis: str, limits: dict) -> str:
    return f"{amount(limits[axis][0])} {NAMES[axis]}" if axis in limits else f"{NAMES[axis]} (not recorded)"


def amount(value: float) -> str:
    """Return three figures: 160, 143,000 and, from a billion, 1.23e+12."""
    if value >= 1e9:
        return f"{value:.2e}"
    digits = len(str(int(value)))
    return f"{round(value, min(0, 3 - digits)):,.0f}"


def _cell(row: pd.Series, seeds: int) -> Cell:
    spread = f" ({number(row['low'])}–{number(row['high'])})" if seeds > 1 else ""
    return Cell(f"{number(row['mean'])}{spread}")


def _caption(results: Results, frame: pd.DataFrame, limits: dict) -> str:
    ends = "; ".join(f"{NAMES[axis]}: {method} seed {seed}" for axis, (_, method, seed) in limits.items() if axis != "step")
    caption = (
        f"Accuracy ({results.accuracy}) at equal cost: at the largest budget that every run of every method reached, by linear "
        "interpolation between checkpoints; mean over seeds"
        f"{' (lowest to highest)' if len(results.seeds) > 1 else ''}. The runs that end first and so set the budgets: {ends}. "
        "Steps and tokens are exact; seconds are of the machine that ran, with whatever else ran on it."
    )
    missing = [method for method in results.methods if method not in recorded(frame, "flops")]
    if missing:
        who = "any run" if len(missing) == len(results.methods) else ", ".join(missing)
        caption += f" FLOPs are not recorded for {who}."
    return caption

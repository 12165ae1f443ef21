"""Runs that diverged: where they ended, and how the steps that they did not reach are counted.

A diverged run counts with its last checkpoint's scores at all later ones, and with its last values of metrics.jsonl at all
later steps; the same holds of a single step whose metric was not finite (null). No run is left out of a mean, and captions say
so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

Run = tuple[str, int]  # method, seed


class Divergence(NamedTuple):
    """The step at which a run diverged, and what was not finite."""

    step: int
    reason: str


def read_divergence(path: Path) -> Divergence | None:
    """Return what the last row of a metrics.jsonl says; None for a run that did not diverge, or without that file."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or '"diverged"' not in lines[-1]:
        return None
    row = json.loads(lines[-1])
    return Divergence(row["step"], row["diverged"])


def unexplained(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return which rows of metrics.jsonl have no value of a column although all of the step's metrics were finite."""
    counted = frame["nonfinite"].fillna(0) if "nonfinite" in frame else 0
    return frame[column].isna() & (counted == 0)


def held(frame: pd.DataFrame, column: str, seeds: Sequence[int], steps: int) -> pd.DataFrame:
    """Return a column of the metrics of one method's runs by step 1..steps (rows) and seed (columns).

    Where a run has no value it keeps the one before, at its start the one after. A run without any has NaN throughout.
    """
    table = frame.pivot(index="step", columns="seed", values=column).reindex(columns=list(seeds)).astype(float)
    return table.reindex(range(1, steps + 1)).ffill().bfill()


def held_at(own: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return for each of `steps` the index in `own` (both ascending) of the last one that is not later."""
    return np.maximum(np.searchsorted(own, steps, side="right") - 1, 0)


def sentences(diverged: Mapping[Run, Divergence], methods: Collection[str] | None = None) -> str:
    """Return what a caption says of the diverged runs of these methods (None: all), beginning with a space; "" for none."""
    named: dict[str, list[str]] = {"Diverged": [], "Stopped as collapsed": []}
    for (method, seed), found in diverged.items():
        if methods is None or method in methods:
            how = "Stopped as collapsed" if found.reason.startswith("collapsed: ") else "Diverged"
            named[how].append(f"{method} seed {seed} at step {found.step}")
    said = "; ".join(f"{how}: {', '.join(runs)}" for how, runs in named.items() if runs)
    return f" {said}; from there on a run counts with its last checkpoint and its last metrics." if said else ""

"""Runs that ended early, since they diverged or the program stopped them: where, and how the steps that they did not reach
count.

Such a run has collapsed. It counts with its last checkpoint's scores at all later ones, and with its last values of
metrics.jsonl at all later steps; the same holds of a single step whose metric was not finite (null). No run is left out of a
mean, and captions say so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

Run = tuple[str, int]  # method, seed
KINDS = ("diverged", "stopped")  # keys of a run's last row


class Divergence(NamedTuple):
    """The step at which a run ended, what was not finite or why it was stopped, and which of the two."""

    step: int
    reason: str
    kind: str = "diverged"


def read_divergence(path: Path) -> Divergence | None:
    """Return what the last row of a metrics.jsonl says, by its key `diverged` or `stopped`; None for a run that went on to its
    end, or without that file.
    """
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[-1]) if lines and any(f'"{kind}"' in lines[-1] for kind in KINDS) else {}
    return next((Divergence(row["step"], row[kind], kind) for kind in KINDS if row.get(kind)), None)


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
    """Return what a caption says of the runs of these methods (None: all) that diverged or were stopped, beginning with a
    space; "" for none.
    """
    text = ""
    for kind in KINDS:
        named = [
            f"{method} seed {seed} at step {found.step}"
            for (method, seed), found in diverged.items()
            if found.kind == kind and (methods is None or method in methods)
        ]
        if named:
            text += (
                f" {kind.capitalize()}: {', '.join(named)}; from there on a run counts with its last checkpoint and metrics."
            )
    return text

"""Which runs collapsed: a fall below half of the highest accuracy so far. An outcome of its own beside performance.

Shapes: S seeds, K checkpoints or steps, ascending.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHARE = 0.5  # of the running maximum; below it a run has fallen
LEAST = 0.05  # and by at least so much accuracy: at a level of .05 the noise of a batch halves it


class Collapse(NamedTuple):
    """Of each of S runs: whether it ever fell, whether it is down at the end, and the step at which it first fell (NaN: never).

    A run that ended before its last step (it diverged, or the program stopped it) counts as both, from where it ended.
    """

    ever: np.ndarray
    end: np.ndarray
    step: np.ndarray

    @property
    def healthy(self) -> np.ndarray:
        """Whether a run never fell: [S]."""
        return ~self.ever


def fallen(accuracy_SK: np.ndarray) -> np.ndarray:
    """Return where each curve lies below SHARE of its running maximum, by LEAST or more: [..., K], the first value included."""
    accuracy_SK = np.asarray(accuracy_SK, dtype=float)
    peak_SK = np.maximum.accumulate(accuracy_SK, axis=-1)
    return (accuracy_SK < SHARE * peak_SK) & (peak_SK - accuracy_SK >= LEAST)


def collapse(accuracy_SK: np.ndarray, steps_K: np.ndarray, ended_S: np.ndarray | None = None) -> Collapse:
    """Return what became of each of S runs. steps_K: of the curves' values; ended_S: steps at which runs ended early (NaN)."""
    down_SK = fallen(accuracy_SK)
    ever_S = down_SK.any(axis=1)
    step_S = np.where(ever_S, np.asarray(steps_K, dtype=float)[down_SK.argmax(axis=1)], np.nan)
    ended_S = np.full(len(step_S), np.nan) if ended_S is None else np.asarray(ended_S, dtype=float)
    early_S = ~np.isnan(ended_S)
    return Collapse(ever_S | early_S, down_SK[:, -1] | early_S, np.fmin(step_S, ended_S))

"""Which runs collapsed: fell below half of the highest accuracy so far, or end below where they started. An outcome of its own
beside performance.

Shapes: S seeds, K checkpoints or T steps, ascending.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from sdpg.analysis.results import smoothing_window

SHARE = 0.5  # of the running maximum; below it a run has fallen
LEAST = 0.05  # and by at least so much accuracy: at a level of .05 the noise of a batch halves it
PROBLEMS = 128  # that a smoothed value of the rollouts rests on: with 8 a step, three unlucky batches would make a collapse
SURE = 3.0  # standard errors, from step to step, by which the end of the rollouts must lie below their start
TENTH = 0.1  # of the rollouts: their start and their end


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


def sunk(accuracy_SK: np.ndarray, width: int = 1) -> np.ndarray:
    """Return which curves end below where they start, by LEAST or more: [S]. Start and end: means of `width` values; of more
    than one, the two must also differ by SURE standard errors (by the spread from each value to the next).
    """
    accuracy_SK = np.asarray(accuracy_SK, dtype=float)
    loss_S = accuracy_SK[:, :width].mean(axis=1) - accuracy_SK[:, -width:].mean(axis=1)
    if width == 1:
        return loss_S >= LEAST
    variance_S = (np.diff(accuracy_SK, axis=1) ** 2).mean(axis=1) / 2
    return (loss_S >= LEAST) & (loss_S >= SURE * np.sqrt(2 * variance_S / width))


def collapse(
    accuracy_SK: np.ndarray,
    steps_K: np.ndarray,
    ended_S: np.ndarray | None = None,
    *,
    sunk_S: np.ndarray | None = None,
    rise: float = 0.0,
) -> Collapse:
    """Return what became of each of S runs.

    steps_K: of the curves' values. ended_S: steps at which runs ended early (NaN). sunk_S: which runs end below where they
    start (by the curves' first and last values unless given); a collapse from the step on from which they stay so far below.
    rise: what a curve must have risen by above its first value before any of this counts.
    """
    accuracy_SK = np.asarray(accuracy_SK, dtype=float)
    sunk_S = sunk(accuracy_SK) if sunk_S is None else sunk_S
    below_SK = accuracy_SK[:, :1] - accuracy_SK >= LEAST
    below_SK[:, -1] = True
    stays_SK = np.logical_and.accumulate(below_SK[:, ::-1], axis=1)[:, ::-1]
    rose_SK = np.maximum.accumulate(accuracy_SK, axis=1) - accuracy_SK[:, :1] >= rise
    down_SK = (fallen(accuracy_SK) | (stays_SK & sunk_S[:, None])) & rose_SK
    ever_S = down_SK.any(axis=1)
    step_S = np.where(ever_S, np.asarray(steps_K, dtype=float)[down_SK.argmax(axis=1)], np.nan)
    ended_S = np.full(len(step_S), np.nan) if ended_S is None else np.asarray(ended_S, dtype=float)
    early_S = ~np.isnan(ended_S) & rose_SK[:, -1]
    return Collapse(ever_S | early_S, down_SK[:, -1] | early_S, np.fmin(step_S, np.where(early_S, ended_S, np.nan)))


def of_rollouts(
    accuracy_ST: np.ndarray,
    problems: int | None,
    ended_S: np.ndarray | None = None,
    *,
    until: int | None = None,
    rise: float = 0.0,
) -> Collapse:
    """Return what became of S runs by their rollouts at steps 1 to T, smoothed; by step `until` if one is given. problems: of a
    step (`smoothed`). Whether they sank is asked of the last step alone, and of the means of their first and last tenth.
    """
    accuracy_ST = np.asarray(accuracy_ST, dtype=float)
    S, T = accuracy_ST.shape
    whole = until is None or until >= T
    sunk_S = sunk(accuracy_ST, max(1, round(TENTH * T))) if whole else np.zeros(S, dtype=bool)
    curve_ST, steps_T = smoothed(accuracy_ST, problems), np.arange(1, T + 1)
    return collapse(curve_ST[:, :until], steps_T[:until], ended_S, sunk_S=sunk_S, rise=rise)


def smoothed(values_ST: np.ndarray, problems: int | None) -> np.ndarray:
    """Return curves of the rollouts as centred means: as wide as the figures' (`smoothing_window`), and over PROBLEMS problems
    at the least, or all of the run's. At both ends they keep the first and the last whole mean. problems: of a step; None where
    that is not known.
    """
    steps = values_ST.shape[1]
    least = 1 if problems is None else -(-PROBLEMS // problems)
    width = min(steps, max(smoothing_window(steps), least + 1 - least % 2))  # odd, but for all steps
    return pd.DataFrame(values_ST.T).rolling(width, center=True).mean().bfill().ffill().to_numpy().T

"""The numbers that claims are tested on, read once: evaluation scores and training curves of every seed.

Shapes: S seeds, K checkpoints, P problems, T training steps.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from sdpg.analysis.collapse import Collapse, collapse, of_rollouts, sunk
from sdpg.analysis.comparisons import area_weights
from sdpg.analysis.diverged import held, unexplained
from sdpg.analysis.evaluations import TaskScores, correct_lengths, task_scores
from sdpg.analysis.results import Results, smoothing_window
from sdpg.config import nearest

AXES = {"tokens": "sampled_tokens", "compute": "flops"}  # column of metrics.jsonl that a step adds; steps count themselves
LAST = 0.1  # share of the run that "ends at" is averaged over


class NotRun(Exception):
    """These results cannot answer a claim; the message says why."""


class Runs:
    """Readers over one scale's results. They raise NotRun where a method, an evaluation set or a window is not there."""

    def __init__(self, results: Results):
        self.results = results
        self._scores = cache(self._read_scores)
        self._training = cache(self._read_training)

    def evaluation(self, method: str, task: str, metric: str, window: list[float]) -> np.ndarray:
        """Return the scores [S, P], averaged over the checkpoints of the window."""
        steps, x_SKP = self._evaluated(method, task, metric)
        return x_SKP[:, self._inside(steps, window, "checkpoint")].mean(axis=1)

    def area(self, method: str, task: str, metric: str) -> np.ndarray:
        """Return the area under the curve of the checkpoints' scores, as its mean height: [S, P]."""
        steps, x_SKP = self._evaluated(method, task, metric)
        return np.einsum("skp,k->sp", x_SKP, area_weights(steps))

    def collapse(self, method: str, task: str | None, until: float = 1.0, rise: float = 0.0) -> Collapse:
        """Return what became of the method's runs by the share `until` of the run: by their smoothed rollouts (task None), or
        their curve on one set. Whether they end below where they start is asked of whole runs. rise: what a curve must have
        risen by before.
        """
        if task is None:
            curve_SK = self.curve(method, "accuracy")
            steps = np.arange(1, curve_SK.shape[1] + 1)
        else:
            steps, x_SKP = self._evaluated(method, task, "accuracy")
            curve_SK = x_SKP.mean(axis=2)
        inside_K = self._inside(steps, [-1.0, until], "step" if task is None else "checkpoint")
        ended_S = self.results.ended(method)
        ended_S = np.where(ended_S <= until * steps[-1] + 1e-9, ended_S, np.nan)
        if task is None:
            return of_rollouts(curve_SK, self.results.prompts, ended_S, until=int(inside_K.sum()), rise=rise)
        sunk_S = sunk(curve_SK) & inside_K.all()
        return collapse(curve_SK[:, inside_K], steps[inside_K], ended_S, sunk_S=sunk_S, rise=rise)

    def came_to(self, method: str, task: str | None, window: list[float]) -> np.ndarray:
        """Return which of the method's runs had not ended before the first step or checkpoint of the window: [S]."""
        if task is None:
            steps, what = np.arange(1, self._steps(self._known(method)) + 1), "step"
        else:
            steps, what = self._evaluated(method, task, "accuracy")[0], "checkpoint"
        return ~(self.results.ended(method) < steps[self._inside(steps, window, what)][0])

    def lengths(self, method: str) -> np.ndarray:
        """Return the lengths in tokens of all right responses at the last checkpoint, on the first evaluation set: [n]."""
        return np.concatenate([self._lengths(self._known(method), seed) for seed in self.results.seeds])

    def _evaluated(self, method: str, task: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (steps [K], scores [S, K, P])."""
        if task not in self.results.tasks:
            raise NotRun(f"evaluation set {task} is not part of this scale")
        scores = self._scores(self._known(method), task)
        name = self.results.accuracy if metric == "accuracy" else metric
        if name not in scores.values:
            raise ValueError(f"config/claims.yaml: no metric {metric!r} in the evaluation; {nearest(name, scores.values)}")
        return scores.steps, scores.values[name]

    def _lengths(self, method: str, seed: int) -> np.ndarray:
        return correct_lengths(self.results, method, seed, self.results.tasks[0])

    def training(self, method: str, metric: str, window: list[float], smooth: bool = False) -> np.ndarray:
        """Return the mean of a column of metrics.jsonl over the steps of a window, for each run: [S, 1]. smooth: of `curve`."""
        curve_ST = self.curve(method, metric, smooth)
        return curve_ST[:, self._inside(np.arange(1, curve_ST.shape[1] + 1), window, "step")].mean(axis=1)[:, None]

    def curve(self, method: str, metric: str, smooth: bool = False) -> np.ndarray:
        """Return a column of metrics.jsonl of every run, held where a run diverged: [S, T]; smoothed as in the figures on
        demand.
        """
        frame = self._training(self._known(method))
        if metric not in frame:
            raise ValueError(f"config/claims.yaml: no column {metric!r} in metrics.jsonl of {method}; {nearest(metric, frame)}")
        table = held(frame, metric, self.results.seeds, self._steps(method))
        if unexplained(frame, metric).any() or table.isna().any(axis=None):
            raise NotRun(f"{method} has no values of {metric} at every step")
        if smooth:
            table = table.rolling(smoothing_window(len(table)), center=True, min_periods=1).mean()
        return table.to_numpy().T

    def cost(self, method: str, axis: str) -> np.ndarray:
        """Return what each run has spent by the end of each step: [S, T]; steps, sampled tokens, or FLOPs.

        A run that diverged counts as if it had gone on spending: it is not the cheaper for it.
        """
        if axis == "steps":
            return np.tile(np.arange(1.0, self._steps(self._known(method)) + 1), (len(self.results.seeds), 1))
        if AXES[axis] not in self._training(self._known(method)):
            raise NotRun(f"these runs did not record {AXES[axis]}")
        return self.curve(method, AXES[axis]).cumsum(axis=1)

    def published(self, figure: str, method: str, metric: str, window: list[float]) -> float:
        """Return the mean of one of the paper's curves over a window. Raises ValueError naming the nearest."""
        curves = self.results.published_curves
        for column, value in (("figure", figure), ("method", method), ("metric", metric)):
            known = set(curves[column])
            if value not in known:
                raise ValueError(f"config/claims.yaml: no {column} {value!r} in curves.csv; {nearest(value, known)}")
            curves = curves[curves[column] == value]
        return float(curves[self._inside(curves["step"].to_numpy(), window, "step")]["value"].mean())

    def _steps(self, method: str) -> int:
        return self.results.steps or int(self._training(method)["step"].max())

    def _known(self, method: str) -> str:
        if method not in self.results.methods:
            raise NotRun(f"{method} is not part of this scale")
        return method

    def _inside(self, steps: np.ndarray, window: list[float], what: str) -> np.ndarray:
        fraction = steps / steps[-1]
        inside = (fraction > window[0] + 1e-9) & (fraction <= window[1] + 1e-9)
        if not inside.any():
            raise NotRun(f"no {what} between {window[0]:.4g} and {window[1]:.4g} of the run")
        return inside

    def _read_scores(self, method: str, task: str) -> TaskScores:
        return task_scores(self.results, method, task)

    def _read_training(self, method: str) -> pd.DataFrame:
        return pd.concat([self.results.run_metrics(method, seed) for seed in self.results.seeds], ignore_index=True)

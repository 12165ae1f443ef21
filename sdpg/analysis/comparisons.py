"""Is method a better than method b? Paired contrasts, their p-values, and Holm's correction for asking many times.

The seeds of two methods are pairs: run s of either starts from the same base model and reads the same data in the same order.
Shapes: S seeds, P problems; x_SP[s, p] is the score of problem p under the run of seed s. Why not the bootstrap of
`intervals.py`: docs/adr/0010-paired-t-for-differences.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from sdpg.analysis.intervals import LEVEL, bootstrap_p, difference_draws, paired_difference, probability_of_improvement

ALPHA = round(1 - LEVEL, 12)


class Contrast(NamedTuple):
    """An effect with its standard error and degrees of freedom; error NaN: a single number, nothing known about its spread."""

    effect: float
    error: float
    df: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the ends of the two-sided t-interval; (NaN, NaN) without a standard error."""
        half = self.error * stats.t.ppf((1 + level) / 2, self.df) if self.error else self.error
        return self.effect - half, self.effect + half

    def p_above(self, threshold: float = 0.0) -> float:
        """Return the one-sided p-value of the null hypothesis "the effect is not above `threshold`"; 1 without a standard
        error.
        """
        if np.isnan(self.error):
            return 1.0
        if self.error == 0:  # every run and every problem say the same
            return 0.0 if self.effect > threshold else 1.0
        return float(stats.t.sf((self.effect - threshold) / self.error, self.df))

    def p_below(self, threshold: float = 0.0) -> float:
        """Return the one-sided p-value of "the effect is not below `threshold`"."""
        return Contrast(-self.effect, self.error, self.df).p_above(-threshold)

    @property
    def p(self) -> float:
        """Two-sided p-value of "the effect is 0"."""
        return min(1.0, 2 * min(self.p_above(), self.p_below()))


class Variances(NamedTuple):
    """What the squared standard error of a mean over S seeds and P problems is made of, and its degrees of freedom."""

    seeds: float  # variance of the run means over S: shrinks with more seeds
    problems: float  # variance of the problem means over P: shrinks with more problems
    S: int
    P: int

    @property
    def total(self) -> float:
        return self.seeds + self.problems

    @property
    def df(self) -> float:
        """Welch and Satterthwaite's: total^2 / (seeds^2 / (S - 1) + problems^2 / (P - 1))."""
        parts = [(self.seeds, self.S - 1), (self.problems, self.P - 1)]
        below = sum(value**2 / count for value, count in parts if count > 0)
        return self.total**2 / below if below else np.inf


def variances(d_SP: np.ndarray) -> Variances:
    """Return the two parts for d_SP [S, P]; 0 for seeds if S = 1 and for problems if P = 1.

    Seeds and problems are both sampled (crossed random effects), so both count. The noise of single scores is in both parts,
    which makes the sum a little too large where neither seeds nor problems matter, never too small.
    """
    S, P = d_SP.shape
    seeds = d_SP.mean(axis=1).var(ddof=1) / S if S > 1 else 0.0
    problems = d_SP.mean(axis=0).var(ddof=1) / P if P > 1 else 0.0
    return Variances(float(seeds), float(problems), S, P)


def contrast(a_SP: np.ndarray, b_SP: np.ndarray | None = None) -> Contrast:
    """Return the mean(a - b), or mean(a) without b, with a standard error over seeds and problems (a t-test paired by seed and
    problem).

    a_SP, b_SP: [S, P], rows of the same seeds and columns of the same problems. P = 1 for a value per run; S = 1 leaves the
    spread of the problems alone, and S = P = 1 no standard error. Raises ValueError if the shapes differ.
    """
    a_SP = np.asarray(a_SP, dtype=float)
    if b_SP is not None and np.shape(b_SP) != a_SP.shape:
        raise ValueError(f"a paired contrast needs the same seeds and problems: got [S, P] = {a_SP.shape} and {np.shape(b_SP)}")
    d_SP = a_SP if b_SP is None else a_SP - b_SP
    parts = variances(d_SP)
    error = np.nan if d_SP.size == 1 else np.sqrt(parts.total)
    return Contrast(float(d_SP.mean()), float(error), float(parts.df))


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), in the order given: reject where they are <= alpha, and at most alpha of all
    families of true null hypotheses have any rejection, however the tests depend on each other.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped)) if len(p) else stepped
    return adjusted.tolist()


def compare(a_SP: np.ndarray, b_SP: np.ndarray) -> tuple[float, ...]:
    """Return the difference, low, high, p (paired t); low, high, p (bootstrap); probability of improvement, low, high.

    Raises ValueError if seeds or problems differ.
    """
    tested = contrast(a_SP, b_SP)
    _, *bootstrap = paired_difference(a_SP, b_SP)
    p_bootstrap = bootstrap_p(difference_draws(a_SP, b_SP))
    better = probability_of_improvement(a_SP, b_SP)
    return tested.effect, *tested.interval(), tested.p, *bootstrap, p_bootstrap, *better

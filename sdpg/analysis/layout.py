"""The error of a difference, pooled over methods, and whether a difference depends on the base model.

Shapes: M methods, U units (a base model with a seed), P problems. y_MU[m, u] is a run's mean score; NaN: that run is left out.
Why the error is pooled, and when it is not: docs/adr/0017-two-outcomes-and-two-thresholds.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from sdpg.analysis.intervals import Contrast, satterthwaite

FEWEST = 3  # pairs of healthy runs below which nothing is concluded
OWN = 0.5  # level of the test by which a pair that varies more than the others keeps its own error: whatever speaks for more


class Pool(NamedTuple):
    """Run means of the methods that lend their error to a contrast: y_MU, and the methods' names."""

    y_MU: np.ndarray
    methods: tuple[str, ...]

    def without(self, *methods: str) -> Pool:
        keep = [i for i, name in enumerate(self.methods) if name not in methods]
        return Pool(self.y_MU[keep], tuple(self.methods[i] for i in keep))


class Residual(NamedTuple):
    """Variance of one run about what its method and its unit say, and its degrees of freedom (0: nothing is known)."""

    variance: float
    df: int


class FTest(NamedTuple):
    """An F statistic with its degrees of freedom and p-value."""

    F: float
    df1: int
    df2: int
    p: float


def residual(y_MU: np.ndarray) -> Residual:
    """Return what is left of y_MU after an effect for each method and each unit (least squares; missing cells left out)."""
    y_MU = np.asarray(y_MU, dtype=float)
    methods, units = np.nonzero(np.isfinite(y_MU))
    if not len(methods):
        return Residual(np.nan, 0)
    design = np.hstack([np.eye(len(y_MU))[methods], np.eye(y_MU.shape[1])[units]])
    y = y_MU[methods, units]
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    df = len(y) - int(rank)
    return Residual(float(((y - design @ coefficients) ** 2).sum() / df), df) if df else Residual(np.nan, 0)


def contrast(a_UP: np.ndarray, b_UP: np.ndarray | None = None, others: Pool | None = None) -> Contrast:
    """Return mean(a - b), or mean(a), with a standard error over units and problems, paired by both.

    a_UP, b_UP: [U, P], rows of the same units and columns of the same problems; P = 1 for a value per run. Both are sampled
    (crossed), and the squared error is the sum of the units' part and the problems' part, with Welch and Satterthwaite's
    degrees of freedom. others: the run means of further methods [M, U'], from which the units' part is pooled, unless
    the pair itself varies more. U = 1 leaves the problems' spread alone, and U = P = 1 no error.
    Raises ValueError if the shapes differ.
    """
    a_UP = np.asarray(a_UP, dtype=float)
    if b_UP is not None and np.shape(b_UP) != a_UP.shape:
        raise ValueError(f"a paired contrast needs the same units and problems: got [U, P] = {a_UP.shape} and {np.shape(b_UP)}")
    d_UP = a_UP if b_UP is None else a_UP - b_UP
    U, P = d_UP.shape
    parts = []
    if U > 1:
        own = Residual(float(d_UP.mean(axis=1).var(ddof=1)) / 2, U - 1)  # of one run: a difference has twice as much
        runs = pooled(own, residual(others.y_MU)) if others is not None and len(others.methods) > 1 else own
        parts.append((2 * runs.variance / U, runs.df))
    if P > 1:
        parts.append((float(d_UP.mean(axis=0).var(ddof=1)) / P, P - 1))
    variance, df = satterthwaite(parts)
    return Contrast(float(d_UP.mean()), float(np.sqrt(variance)) if parts else np.nan, df, U)


def pooled(own: Residual, rest: Residual) -> Residual:
    """Return a pair's own residual together with that of other methods; its own alone if it is larger than theirs (F), or
    nothing is known of theirs.
    """
    if not own.df or not rest.df:
        return own if own.df else rest
    if own.variance > rest.variance * stats.f.isf(OWN, own.df, rest.df):
        return own
    df = own.df + rest.df
    return Residual((own.variance * own.df + rest.variance * rest.df) / df, df)


def interaction(d_U: np.ndarray, base_U: np.ndarray) -> FTest | None:
    """Test whether a difference d_U of each unit depends on its base model (one-way analysis of variance).

    None where no base model has two units, or there is one base model: the two cannot then be told apart.
    """
    d_U, bases = np.asarray(d_U, dtype=float), np.asarray(base_U)
    names = np.unique(bases)
    df1, df2 = len(names) - 1, len(d_U) - len(names)
    if df1 < 1 or df2 < 1:
        return None
    means = {name: d_U[bases == name].mean() for name in names}
    fitted = np.array([means[base] for base in bases])
    between, within = ((fitted - d_U.mean()) ** 2).sum() / df1, ((d_U - fitted) ** 2).sum() / df2
    if within == 0:
        return FTest(np.inf if between else 0.0, df1, df2, float(not between))
    return FTest(float(between / within), df1, df2, float(stats.f.sf(between / within, df1, df2)))

"""How likely are differences as large as these between two honest runs of one experiment? Pure functions from arrays.

Two runs of an experiment have the same methods, and either the same units (base models and seeds; then what differs is chance
alone: rounding, the order of sums) or other ones. Shapes: M methods, S and T units; a_MS[m, s] is a run's score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from sdpg.analysis.intervals import Contrast
from sdpg.analysis.layout import Residual, pooled, residual

DIGITS = 7  # of an accuracy; fewer than any file has
DRAWS = 2000  # permutations of the check of everything together


def pooled_spread(a_MS: np.ndarray, b_MT: np.ndarray, *, shared: bool) -> Residual:
    """Return the residual of one run about its method and, where both runs have the same units, its unit. NaN: left out."""
    if shared:
        one, two = residual(a_MS), residual(b_MT)
        df = one.df + two.df
        total = sum(of.variance * of.df for of in (one, two) if of.df)
        return Residual(total / df, df) if df else Residual(np.nan, 0)
    return _within([row for matrix in (a_MS, b_MT) for row in matrix])


def difference(a_S: np.ndarray, b_T: np.ndarray, spread: Residual, *, shared: bool) -> Contrast:
    """Return how one method's healthy runs (NaN: not healthy) differ, with the pooled error, or the method's own where that is
    larger; NaN throughout if there is nothing to compare.

    With the same units (`shared`), those that are healthy in both runs are compared: base models differ by more than chance,
    so that means over other units would differ by which ones are left. Otherwise mean(a) - mean(b).
    """
    if shared:
        gaps = (a_S - b_T)[np.isfinite(a_S) & np.isfinite(b_T)]
        own = Residual(float(gaps.var(ddof=1)) / 2, len(gaps) - 1) if len(gaps) > 1 else Residual(np.nan, 0)
        effect, share = (float(gaps.mean()), 2 / len(gaps)) if len(gaps) else (np.nan, np.nan)
    else:
        a, b = a_S[np.isfinite(a_S)], b_T[np.isfinite(b_T)]
        own = _within([a, b])
        effect, share = (float(a.mean() - b.mean()), 1 / len(a) + 1 / len(b)) if len(a) and len(b) else (np.nan, np.nan)
    if np.isnan(effect):
        return Contrast(np.nan, np.nan, np.inf)
    of = pooled(own, spread)
    return Contrast(effect, float(np.sqrt(of.variance * share)) if of.df else np.nan, float(of.df or np.inf))


def counts_p(a: int, n: int, b: int, m: int) -> float:
    """Return Fisher's exact two-sided p-value of a of n collapsed runs against b of m."""
    return float(stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue)


def welch(a: Contrast, b: Contrast) -> Contrast:
    """Return the difference of two independent estimates."""
    parts = [(of.error**2, of.df) for of in (a, b)]
    total = sum(part for part, _ in parts)
    below = sum(part**2 / df for part, df in parts)
    return Contrast(a.effect - b.effect, float(np.sqrt(total)), float(total**2 / below) if below else np.inf)


def together(here: Sequence[np.ndarray], there: Sequence[np.ndarray], *, shared: bool, draws: int = DRAWS) -> float:
    """Return the chance that two honest runs differ by as much in all scores together, collapsed runs included: a permutation
    test.

    here, there: for each evaluation set, scores [M, S] and [M, T] in the same order. The statistic is the sum of squared
    differences of means, each over the variance of all its scores. With the same units, each run of a method and seed is as
    likely here as there; with others, each unit is, with all of its runs. Exact for any distribution. 1 if nothing differs.
    """
    S, T = here[0].shape[1], there[0].shape[1]
    M, rng = len(here[0]), np.random.default_rng(0)
    if shared:
        swaps = rng.random((draws, M, S)) < 0.5
    else:
        picks = np.argsort(rng.random((draws, S + T)), axis=1) < S  # which units count as here
    observed, drawn = 0.0, np.zeros(draws)
    for a, b in zip([np.round(x, DIGITS) for x in here], [np.round(x, DIGITS) for x in there], strict=True):
        both = np.hstack([a, b])
        scale = both.var(axis=1) + 1e-12
        observed += float(((a.mean(axis=1) - b.mean(axis=1)) ** 2 / scale).sum())
        if shared:
            gaps = np.where(swaps, b - a, a - b).mean(axis=2)
        else:
            mine = np.einsum("mu,bu->bm", both, picks) / S
            gaps = mine - (both.sum(axis=1) - S * mine) / T
        drawn += (gaps**2 / scale).sum(axis=1)
    return float((1 + (drawn >= observed * (1 - 1e-9)).sum()) / (1 + draws))


def _within(groups: Sequence[np.ndarray]) -> Residual:
    """Return the variance within groups of scores, NaN left out."""
    kept = [group[np.isfinite(group)] for group in groups]
    df = sum(max(0, len(group) - 1) for group in kept)
    squares = sum(((group - group.mean()) ** 2).sum() for group in kept if len(group) > 1)
    return Residual(float(squares / df), df) if df else Residual(np.nan, 0)

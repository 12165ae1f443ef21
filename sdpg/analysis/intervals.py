"""Means with 95% intervals, as pure functions from score arrays to estimates.

Shapes: S seeds (training runs), P problems, B bootstrap draws.  x_SP[s, p] is a score of problem p under the run of seed s
(already averaged over the samples of that problem).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
DRAWS = 2000
RANGE_NAME = "range over seeds"


def interval_name(seeds: int) -> str:
    """What captions and legends call `hierarchical_interval`; one seed says nothing about the spread between seeds."""
    return f"{LEVEL:.0%} interval, bootstrap over {'seeds and problems' if seeds > 1 else 'problems (one seed)'}"


class Estimate(NamedTuple):
    """A point estimate and the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap_weights(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of `count` units in each of `draws` resamples: [B, count], every row sums to 1.

    Draws count - 1 units with replacement (Rao and Wu 1988), which makes the bootstrap variance of a mean equal to the usual
    unbiased one; with 3 seeds, drawing all 3 would make it a third too small. A single unit has weight 1 (no spread known).
    """
    if count < 1:
        raise ValueError("bootstrap_weights got no units; give at least one seed and one problem")
    if count == 1:
        return np.ones((draws, 1))
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=draws) / (count - 1)


def bootstrap_means(x_SP: np.ndarray, *, draws: int = DRAWS, seed: int = 0, seed_stream: int = 0) -> np.ndarray:
    """Bootstrap distribution of the mean over seeds and problems: [B].

    Seeds and problems are resampled independently of each other, and a draw uses the same problems for every seed, because all
    runs answer the same problems. The problem weights depend on `seed` alone, so two calls with different `seed_stream`
    (two methods) share their problems draw by draw: subtract the results for a paired difference.
    """
    x_SP = _matrix(x_SP)
    S, P = x_SP.shape
    w_BP = _cached_weights(P, draws, (seed, 0))
    w_BS = _cached_weights(S, draws, (seed, 1, seed_stream))
    return ((w_BP @ x_SP.T) * w_BS).sum(axis=1)  # [B, S] * [B, S] -> [B]


def hierarchical_interval(x_SP: np.ndarray, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of x_SP [S, P] and its percentile interval under `bootstrap_means`. The same arguments give the same numbers."""
    x_SP = _matrix(x_SP)
    return Estimate(float(x_SP.mean()), *_ends(bootstrap_means(x_SP, draws=draws, seed=seed), level))


def paired_difference(
    a_SP: np.ndarray, b_TP: np.ndarray, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """mean(a) - mean(b) for two methods on the same P problems (columns in the same order), with a percentile interval.

    Problems are resampled jointly, the seeds of the two methods independently. Raises ValueError if P differs.
    """
    a_SP, b_TP = _matrix(a_SP), _matrix(b_TP)
    if a_SP.shape[1] != b_TP.shape[1]:
        raise ValueError(f"a paired difference needs the same problems: got {a_SP.shape[1]} and {b_TP.shape[1]}")
    difference_B = bootstrap_means(a_SP, draws=draws, seed=seed, seed_stream=0) - bootstrap_means(
        b_TP, draws=draws, seed=seed, seed_stream=1
    )
    return Estimate(float(a_SP.mean() - b_TP.mean()), *_ends(difference_B, level))


def seed_range(values_SK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, smallest and largest over the seeds (first axis) of values [S, K]: three arrays [K].

    With 3 seeds a t-interval is 2.5 standard deviations wide on either side and mostly shows its own
    noise; the range shows the runs.
    """
    values_SK = _matrix(values_SK)
    return values_SK.mean(axis=0), values_SK.min(axis=0), values_SK.max(axis=0)


@lru_cache(maxsize=32)
def _cached_weights(count: int, draws: int, stream: tuple[int, ...]) -> np.ndarray:
    """The weights depend on nothing else, and drawing them costs more than using them."""
    weights = bootstrap_weights(count, draws, np.random.default_rng(stream))
    weights.flags.writeable = False
    return weights


def _ends(draws_B: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws_B, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _matrix(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected a non-empty matrix [seeds, problems], got shape {x.shape}")
    if not np.isfinite(x).all():
        seed, problem = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"scores must be finite numbers; the one of seed index {seed}, problem index {problem} is not")
    return x

"""Every interval of the project: of a difference (t), a median (order statistics), a share (Clopper and Pearson), two paired
shares (exact), and by the bootstrap of one method's mean. Pure functions from arrays and counts.

The first four are estimates with the same face: `effect`, `interval(level)`, and the one-sided p-values `p_above(threshold)` of
"the effect is not above it" and `p_below(threshold)` of "it is not below it". What a verdict rests on, and nothing else.

Shapes: S seeds (training runs), P problems, B bootstrap draws.  x_SP[s, p] is a score of problem p under the run of seed s
(already averaged over the samples of that problem); m_BS the runs' means over the problems of each draw, w_BS their weights.
`fewer` everywhere: seeds and problems left out of each draw, 1 (Rao and Wu) unless told; 0 is the textbook's and rliable's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
ALPHA = round(1 - LEVEL, 12)
DRAWS = 2000
TIE = 1e-12  # two means of shares of samples differ by much more or not at all
MANY = 10  # units that must all say the same before that they do says anything of other units


def interval_name(seeds: int) -> str:
    """Return what captions and legends call `hierarchical_interval`; one seed says nothing about the spread between seeds."""
    return f"{LEVEL:.0%} interval, bootstrap over {'seeds and problems' if seeds > 1 else 'problems (one seed)'}"


class Estimate(NamedTuple):
    """A point estimate and the ends of its interval."""

    mean: float
    low: float
    high: float

    def within(self, least: float, most: float) -> Estimate:
        """Return the same with ends that stop at what can be."""
        return self._replace(low=max(self.low, least), high=min(self.high, most))


class Contrast(NamedTuple):
    """An effect with its standard error and degrees of freedom; error NaN: a single number, nothing known about its spread.

    units: how many it is of. Fewer than MANY that all say the same, up to rounding, are no certainty: nothing known, either.
    """

    effect: float
    error: float
    df: float
    units: int = MANY

    @property
    def same(self) -> bool:
        """Whether it is of too few units to go by that all say the same."""
        return self.error < TIE and self.units < MANY

    @property
    def known(self) -> bool:
        """Whether anything is known of its spread."""
        return not np.isnan(self.error) and not self.same

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the ends of the two-sided t-interval; (NaN, NaN) where nothing is known of its spread."""
        if not self.known:
            return np.nan, np.nan
        half = self.error * stats.t.ppf((1 + level) / 2, self.df) if self.error else self.error
        return self.effect - half, self.effect + half

    def p_above(self, threshold: float = 0.0) -> float:
        """Return the one-sided p-value of the null hypothesis "the effect is not above `threshold`"; 1 where nothing is known
        of its spread.
        """
        if not self.known:
            return 1.0
        if self.error < TIE:  # every run and every problem say the same, up to rounding
            return 0.0 if self.effect - threshold > TIE else 1.0
        return float(stats.t.sf((self.effect - threshold) / self.error, self.df))

    def p_below(self, threshold: float = 0.0) -> float:
        """Return the one-sided p-value of "the effect is not below `threshold`"."""
        return self.turned().p_above(-threshold)

    @property
    def p(self) -> float:
        """Two-sided p-value of "the effect is 0"."""
        return min(1.0, 2 * min(self.p_above(), self.p_below()))

    def turned(self) -> Contrast:
        """Return the same with the other sign."""
        return self._replace(effect=-self.effect)


class Median(NamedTuple):
    """The median of one value per run, by the sign test: exact for any distribution, so for runs that fall or stay, too.

    NaN: a value that is missing. Whatever it would have been, it counts against what is asked: as not above, as not below, and
    as beyond either end of the interval, which may then be infinite.
    """

    values: tuple[float, ...]

    @property
    def missing(self) -> int:
        return int(np.isnan(self.values).sum())

    @property
    def effect(self) -> float:
        """The median of the values that are there; NaN for none."""
        there = [value for value in self.values if not np.isnan(value)]
        return float(np.median(there)) if there else np.nan

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return two order statistics that hold the median with at least `level`; (NaN, NaN) if too few values can."""
        n = len(self.values)
        rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))  # values outside on either side: P(fewer) <= (1 - level) / 2
        if rank < 1 or 2 * rank > n:
            return np.nan, np.nan
        low = np.sort(np.nan_to_num(self.values, nan=-np.inf))[rank - 1]
        high = np.sort(np.nan_to_num(self.values, nan=np.inf))[n - rank]
        return float(low), float(high)

    def p_above(self, threshold: float = 0.0) -> float:
        """Return the p-value of "the median is not above `threshold`"; a value on it speaks for that."""
        return float(stats.binom.sf(sum(value > threshold for value in self.values) - 1, len(self.values), 0.5))

    def p_below(self, threshold: float = 0.0) -> float:
        return self.turned().p_above(-threshold)

    def turned(self) -> Median:
        return Median(tuple(-value for value in self.values))


class Share(NamedTuple):
    """k of n runs: the share with Clopper and Pearson's exact interval (1934)."""

    k: int
    n: int

    @property
    def effect(self) -> float:
        return self.k / self.n

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        tail = (1 - level) / 2
        low = float(stats.beta.ppf(tail, self.k, self.n - self.k + 1)) if self.k else 0.0
        high = float(stats.beta.ppf(1 - tail, self.k + 1, self.n - self.k)) if self.k < self.n else 1.0
        return low, high

    def p_above(self, threshold: float = 0.0) -> float:
        return float(stats.binom.sf(self.k - 1, self.n, threshold))

    def p_below(self, threshold: float = 0.0) -> float:
        return float(stats.binom.cdf(self.k, self.n, threshold))


class PairedShares(NamedTuple):
    """Share of units in which the first method alone has an event, minus that of the second alone: `first`, `second` of n.

    Above 0: McNemar's exact test, the sign test on the units in which the two differ. Below a threshold t > 0: the difference
    is at most the share of the first alone, and Clopper and Pearson's limit bounds that; never liberal, whatever the second
    does.
    """

    first: int
    second: int
    n: int

    @property
    def effect(self) -> float:
        return (self.first - self.second) / self.n

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return (NaN, NaN): the two shares with their own intervals say more than one of their difference."""
        return np.nan, np.nan

    def p_above(self, threshold: float = 0.0) -> float:
        """Return McNemar's one-sided p-value; 1 for a threshold other than 0, which it cannot test."""
        differ = self.first + self.second
        return float(stats.binom.sf(self.first - 1, differ, 0.5)) if threshold == 0 and differ else 1.0

    def p_below(self, threshold: float = 0.0) -> float:
        if threshold <= 0:
            return PairedShares(self.second, self.first, self.n).p_above(-threshold)
        return Share(self.first, self.n).p_below(min(1.0, threshold))

    @property
    def p(self) -> float:
        """Two-sided p-value of "both are as likely"."""
        return min(1.0, 2 * min(self.p_above(), self.p_below()))


class Resampled(NamedTuple):
    """Bootstrap draws of one method's runs: m_BS, the runs' means over the draw's problems, and w_BS, the runs' weights."""

    m_BS: np.ndarray
    w_BS: np.ndarray


def bootstrap_weights(count: int, draws: int, rng: np.random.Generator, *, fewer: int = 1) -> np.ndarray:
    """Return the weights of `count` units in each of `draws` resamples: [B, count], every row sums to 1.

    Draws count - 1 units with replacement (Rao and Wu 1988), which makes the bootstrap variance of a mean equal to the usual
    unbiased one; with 3 seeds, drawing all 3 (`fewer` = 0) would make it a third too small. A single unit has weight 1 (no
    spread known).
    """
    if count < 1:
        raise ValueError("bootstrap_weights got no units; give at least one seed and one problem")
    if count == 1:
        return np.ones((draws, 1))
    return rng.multinomial(count - fewer, np.full(count, 1 / count), size=draws) / (count - fewer)


def resample(x_SP: np.ndarray, *, draws: int = DRAWS, seed: int = 0, seed_stream: int = 0, fewer: int = 1) -> Resampled:
    """Return the bootstrap draws over seeds and problems of x_SP [S, P].

    Seeds and problems are resampled independently of each other, and a draw uses the same problems for every seed, because all
    runs answer the same problems. The problem weights depend on `seed` alone, so two calls with different `seed_stream`
    (two methods) share their problems draw by draw: subtract the results for a paired difference.
    """
    x_SP = _matrix(x_SP)
    S, P = x_SP.shape
    w_BP = _cached_weights(P, draws, (seed, 0), fewer)
    return Resampled(w_BP @ x_SP.T, _cached_weights(S, draws, (seed, 1, seed_stream), fewer))


def bootstrap_means(x_SP: np.ndarray, *, draws: int = DRAWS, seed: int = 0, seed_stream: int = 0, fewer: int = 1) -> np.ndarray:
    """Return the bootstrap distribution of the mean over seeds and problems: [B]."""
    m_BS, w_BS = resample(x_SP, draws=draws, seed=seed, seed_stream=seed_stream, fewer=fewer)
    return (m_BS * w_BS).sum(axis=1)


def interquartile_mean(m_BS: np.ndarray, w_BS: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of the middle half of each row's S values: [B] (Agarwal et al. 2021, rliable's IQM).

    floor(S / 4) values are cut at either end, so that up to 3 values give the plain mean. w_BS: weights whose rows sum to 1;
    then the same share of the weight is cut, and a value on the border counts in part.
    """
    m_BS = _matrix(m_BS)
    S = m_BS.shape[1]
    w_BS = np.full(m_BS.shape, 1 / S) if w_BS is None else w_BS
    cut = (S // 4) / S
    order = np.argsort(m_BS, axis=1, kind="stable")
    upper = np.take_along_axis(w_BS, order, axis=1).cumsum(axis=1)
    lower = np.hstack([np.zeros((len(upper), 1)), upper[:, :-1]])
    kept = np.clip(np.minimum(upper, 1 - cut) - np.maximum(lower, cut), 0, None)
    return (np.take_along_axis(m_BS, order, axis=1) * kept).sum(axis=1) / kept.sum(axis=1)


def hierarchical_interval(
    x_SP: np.ndarray, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0, fewer: int = 1
) -> Estimate:
    """Return the mean of x_SP [S, P] and its percentile interval under `bootstrap_means`, widened for few runs
    (`_widened`) unless it is the textbook's (`fewer` 0). The same arguments give the same numbers.
    """
    x_SP = _matrix(x_SP)
    point, draws_B = float(x_SP.mean()), bootstrap_means(x_SP, draws=draws, seed=seed, fewer=fewer)
    return Estimate(point, *(_widened(x_SP, point, draws_B, level) if fewer else _ends(draws_B, level)))


def iqm_interval(x_SP: np.ndarray, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0, fewer: int = 1) -> Estimate:
    """Return the interquartile mean over the S runs of their means over the problems, with its percentile interval under
    `resample`, widened for few runs (`_widened`).

    Over runs, not over all S x P scores: those are shares of a few samples, most of them 0 or 1, whose middle half is 1 as soon
    as three quarters of the problems are solved.
    """
    x_SP = _matrix(x_SP)
    point = float(interquartile_mean(x_SP.mean(axis=1)[None])[0])
    draws_B = interquartile_mean(*resample(x_SP, draws=draws, seed=seed, fewer=fewer))
    return Estimate(point, *(_widened(x_SP, point, draws_B, level) if fewer else _ends(draws_B, level)))


def improvement_draws(a_SP: np.ndarray, b_TP: np.ndarray, *, draws: int = DRAWS, seed: int = 0, fewer: int = 1) -> np.ndarray:
    """Return the bootstrap distribution of `probability_of_improvement`: [B]. Problems are resampled jointly, seeds
    independently.
    """
    a = resample(a_SP, draws=draws, seed=seed, seed_stream=0, fewer=fewer)
    b = resample(b_TP, draws=draws, seed=seed, seed_stream=1, fewer=fewer)
    return np.einsum("bs,bt,bst->b", a.w_BS, b.w_BS, _wins(a.m_BS[:, :, None], b.m_BS[:, None, :]))


def probability_of_improvement(
    a_SP: np.ndarray, b_TP: np.ndarray, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0, fewer: int = 1
) -> Estimate:
    """Return the chance that a run of method a has a higher mean over the problems than a run of method b, a tie counting half.

    rliable's definition with the evaluation set as the one task: the Mann-Whitney statistic over S * T. Where every run of
    one is above every run of the other, the interval has no width; that says nothing about runs not made.
    """
    a_SP, b_TP = _pair(a_SP, b_TP)
    point = _wins(a_SP.mean(axis=1)[:, None], b_TP.mean(axis=1)).mean()
    return Estimate(float(point), *_ends(improvement_draws(a_SP, b_TP, draws=draws, seed=seed, fewer=fewer), level))


@lru_cache(maxsize=32)
def _cached_weights(count: int, draws: int, stream: tuple[int, ...], fewer: int) -> np.ndarray:
    """Return the weights depend on nothing else, and drawing them costs more than using them."""
    weights = bootstrap_weights(count, draws, np.random.default_rng(stream), fewer=fewer)
    weights.flags.writeable = False
    return weights


def _ends(draws_B: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws_B, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (variance, df) of a sum of independent parts, each a variance with its degrees of freedom (Satterthwaite 1946).

    df is infinite where nothing varies.
    """
    total, below = sum(part for part, _ in parts), sum(part**2 / df for part, df in parts)
    return float(total), float(total**2 / below) if below else np.inf


def _widened(x_SP: np.ndarray, point: float, draws_B: np.ndarray, level: float) -> tuple[float, float]:
    """Return the ends of the percentile interval, their distances from the point both stretched to a mean of t(df) SD, where SD
    is that of the draws.

    A percentile interval is z SD wide on either side where the draws are normal, so that this is a factor of t(df) / z
    (Hesterberg 2015); draws of two runs of three reach no further than the outermost run, less than z SD, which the factor
    makes good. df: `satterthwaite` of the squared standard errors over the runs' means and over the problems' means.
    """
    low, high = _ends(draws_B, level)
    if high - low <= TIE:
        return low, high
    parts = [(x_SP.mean(axis=1 - axis).var(ddof=1) / count, count - 1) for axis, count in enumerate(x_SP.shape) if count > 1]
    stretch = float(stats.t.ppf((1 + level) / 2, satterthwaite(parts)[1]) * draws_B.std() / ((high - low) / 2))
    return point - stretch * (point - low), point + stretch * (high - point)


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 where a > b, 1/2 where they are equal up to rounding (means of the same counts in another order), else 0."""
    return np.where(np.abs(a - b) < TIE, 0.5, a > b)


def _pair(a_SP: np.ndarray, b_TP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a_SP, b_TP = _matrix(a_SP), _matrix(b_TP)
    if a_SP.shape[1] != b_TP.shape[1]:
        raise ValueError(f"a paired difference needs the same problems: got {a_SP.shape[1]} and {b_TP.shape[1]}")
    return a_SP, b_TP


def _matrix(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected a non-empty matrix [seeds, problems], got shape {x.shape}")
    if not np.isfinite(x).all():
        seed, problem = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"scores must be finite numbers; the one of seed index {seed}, problem index {problem} is not")
    return x

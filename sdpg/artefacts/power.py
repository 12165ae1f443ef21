"""How many seeds would tell two methods apart: power.csv, from the spread that the runs show.

Shapes: S seeds, P problems, n samples per problem; d_SP is the difference of two methods' scores, paired by seed and problem.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from sdpg.analysis.comparisons import ALPHA, contrast
from sdpg.analysis.evaluations import TaskScores, task_scores
from sdpg.analysis.results import POWER_COLUMNS, Results
from sdpg.artefacts import write_csv
from sdpg.artefacts.declare import ArtefactSpec

ARTEFACT = ArtefactSpec(
    about="power.csv: the seeds that telling two methods apart takes",
    reads=lambda files: [*files.evaluations, *files.metrics],
    writes=("power.csv",),
)

POWER = 0.8
TARGETS = (0.02, 0.05)  # differences in accuracy, beside the observed one
MOST = 1000  # seeds; more count as never
CERTAIN = 30.0  # standard errors beyond the critical value; further out SciPy's noncentral t is NaN


class Spread(NamedTuple):
    """Variance components of d_SP: its mean over S seeds has the variance seeds / S + problems / P + rest / (S P)."""

    seeds: float  # between runs, over the expected score on these problems
    problems: float  # between problems, over the expected score of runs
    rest: float  # seed x problem, sampling noise included
    P: int

    def squared_error(self, S: float) -> tuple[float, float]:
        """Return what `comparisons.variances` expects for S seeds: (part of the seeds, part of the problems)."""
        return self.seeds / S + self.rest / (S * self.P), self.problems / self.P + self.rest / (S * self.P)


def spread(d_SP: np.ndarray) -> Spread | None:
    """Return the components of the two-way random-effects model by the method of moments, none below 0; None for fewer than 2
    seeds.
    """
    S, P = d_SP.shape
    if min(S, P) < 2:
        return None
    rest_SP = d_SP - d_SP.mean(axis=0) - d_SP.mean(axis=1, keepdims=True) + d_SP.mean()
    rest = (rest_SP**2).sum() / ((S - 1) * (P - 1))
    seeds = max(0.0, d_SP.mean(axis=1).var(ddof=1) - rest / P)
    problems = max(0.0, d_SP.mean(axis=0).var(ddof=1) - rest / S)
    return Spread(float(seeds), float(problems), float(rest), P)


def power(effect: float, of: Spread, S: int, alpha: float = ALPHA) -> float:
    """Return the chance that `comparisons.contrast` with S seeds is significant (two-sided, alpha) if the true difference is
    `effect`.

    Noncentral t (Cohen 1988, ch. 2): with V the expected squared standard error and f its Satterthwaite degrees of freedom,
    P(|t'_f(effect / sqrt(V))| > t_{f, 1 - alpha/2}).
    """
    parts = of.squared_error(S)
    total = sum(parts)
    if total == 0:
        return float(effect != 0)
    df = total**2 / (parts[0] ** 2 / (S - 1) + parts[1] ** 2 / (of.P - 1))
    critical, shift = stats.t.ppf(1 - alpha / 2, df), abs(effect) / np.sqrt(total)
    if shift > critical + CERTAIN:
        return 1.0
    return float(stats.nct.sf(critical, df, shift) + np.nan_to_num(stats.nct.cdf(-critical, df, shift)))


def seeds_needed(effect: float, of: Spread, alpha: float = ALPHA, wanted: float = POWER) -> int | None:
    """Return the smallest number of seeds (2 to MOST) whose power is `wanted`; None if MOST do not reach it.

    None also means: no number of seeds does, since the difference between the problems is as large; more problems would.
    """
    counts = range(2, MOST + 1)
    found = bisect_left(counts, wanted, key=lambda S: power(effect, of, S, alpha))
    return counts[found] if found < len(counts) else None


def sampling_variance(x_SP: np.ndarray, samples: int) -> float:
    """Return the variance of a run's mean accuracy that comes from its n samples alone: mean over runs of sum_p x (1 - x) / (n
    - 1) / P^2.

    x_SP: shares of right answers. NaN for n = 1, which says nothing about it.
    """
    if samples < 2:
        return np.nan
    return float((x_SP * (1 - x_SP)).mean() / (samples - 1) / x_SP.shape[1])


def power_rows(results: Results, task: str, by_method: dict[str, TaskScores]) -> list[tuple]:
    """Return rows of power.csv for the last checkpoint on one set: every two methods, and every target."""
    rows = []
    for method, other in itertools.combinations(by_method, 2):
        a, b = (by_method[name].values[results.accuracy][:, -1] for name in (method, other))
        difference, of = contrast(a, b).effect, spread(a - b)
        if of is None:
            continue
        within = sampling_variance(a, results.samples) + sampling_variance(b, results.samples)
        between = max(0.0, (a - b).mean(axis=1).var(ddof=1) - within)
        shared = np.sqrt([between, within, of.problems / of.P])
        key = (method, other, task, results.accuracy, len(a), difference, *shared)
        for target, effect in (("observed", abs(difference)), *((f"{size:g}", size) for size in TARGETS)):
            rows.append((*key, target, effect, seeds_needed(effect, of)))
    return rows


def make(job) -> None:
    """Write power.csv. Without a second seed nothing is known of their spread: it has no rows."""
    results, rows = job.results, []
    for task in results.tasks:
        rows += power_rows(results, task, {method: task_scores(results, method, task) for method in results.methods})
    frame = pd.DataFrame(rows, columns=POWER_COLUMNS).astype({"seeds_needed": "Int64"})
    write_csv(frame, results.root / "power.csv")

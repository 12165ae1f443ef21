"""What difference so many units can find: power.csv, from the spread of the runs about their method and unit.

No power of a difference that was seen: that says again what its p-value says. Shapes: M methods, U units, P problems.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize, stats

from sdpg.analysis.comparisons import MEASURES, Outcome, pool
from sdpg.analysis.evaluations import task_scores
from sdpg.analysis.intervals import ALPHA
from sdpg.analysis.layout import OWN, Residual, residual
from sdpg.analysis.results import POWER_COLUMNS, Results
from sdpg.artefacts import write_csv
from sdpg.artefacts.declare import ArtefactSpec
from sdpg.artefacts.scores import outcomes_of

ARTEFACT = ArtefactSpec(
    about="power.csv: the differences between two methods that so many units can find",
    reads=lambda files: [*files.evaluations, *files.metrics],
    writes=("power.csv",),
)

POWER = 0.8
COMPARISONS = (1, 10)  # alone, and the first of so many (Holm, fallback)
PLANNED = (5, 10, 20)  # units, beside those that were run
CERTAIN = 30.0  # standard errors beyond the critical value; further out SciPy's noncentral t is NaN
GRID = (np.arange(64) + 0.5) / 64  # quantiles over which a variance is averaged


def power(effect: float, error: float, df: float, alpha: float = ALPHA, rest_df: float = 0) -> float:
    """Return the chance that a t-test with this expected standard error is significant (two-sided) if the effect is true.

    Noncentral t (Cohen 1988, ch. 2): P(|t'_df(effect / error)| > t_{df, 1 - alpha/2}). rest_df: degrees of freedom of other
    methods' error, from which the pair's own (df) is pooled unless it is larger (layout.pooled).
    """
    if error == 0:
        return float(effect != 0)
    if rest_df:
        return _power_pooled(abs(effect) / error, df, rest_df, alpha)
    critical, shift = stats.t.ppf(1 - alpha / 2, df), abs(effect) / error
    if shift > critical + CERTAIN:
        return 1.0
    return float(stats.nct.sf(critical, df, shift) + np.nan_to_num(stats.nct.cdf(-critical, df, shift)))


def _power_pooled(shift: float, df: float, rest_df: float, alpha: float) -> float:
    """Return the power of the test that pools, averaged over the two estimates of the variance (1 is true)."""
    own, rest = np.meshgrid(stats.chi2.ppf(GRID, df) / df, stats.chi2.ppf(GRID, rest_df) / rest_df, indexing="ij")
    alone, both = own > rest * stats.f.isf(OWN, df, rest_df), df + rest_df
    variance = np.where(alone, own, (own * df + rest * rest_df) / both)
    bar = np.sqrt(variance) * np.where(alone, stats.t.isf(alpha / 2, df), stats.t.isf(alpha / 2, both))
    return float(np.mean(stats.norm.sf(bar - shift) + stats.norm.cdf(-bar - shift)))


def detectable(error: float, df: float, alpha: float = ALPHA, wanted: float = POWER, rest_df: float = 0) -> float:
    """Return the smallest effect whose power is `wanted`; 0 without any error. The others: as `power`."""
    if error == 0:
        return 0.0
    most = stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(0.999, df)
    return float(error * optimize.brentq(lambda shift: power(shift, 1.0, df, alpha, rest_df) - wanted, 0.0, most, xtol=1e-6))


def problems_part(outcomes: dict[str, Outcome], methods: tuple[str, ...]) -> float:
    """Return the squared standard error of a difference of two methods from the choice of problems, which more units do not
    reduce: twice the residual of a method on a problem about both, over P; 0 for one problem.
    """
    means_MP = np.array([outcomes[name].x_SP[outcomes[name].collapse.healthy].mean(axis=0) for name in methods])
    of = residual(means_MP) if means_MP.shape[1] > 1 else Residual(0.0, 0)
    return 2 * of.variance / means_MP.shape[1] if of.df else 0.0


def power_rows(results: Results, task: str, outcomes: dict[str, Outcome], measure: str) -> list[tuple]:
    """Return rows of power.csv of one set and measure; none where the spread of runs is not known."""
    lent = pool(outcomes)
    of = residual(lent.y_MU)
    if not of.df:
        return []
    problems, methods = problems_part(outcomes, lent.methods), len(lent.methods)
    rows = []
    for units in sorted({len(results.seeds), *PLANNED}):
        own = units - 1
        df = max(1, methods - 2) * own  # the pair's own, and those of the others
        error = np.sqrt(2 * of.variance / units + problems)
        for comparisons in COMPARISONS:
            found = detectable(float(error), own, ALPHA / comparisons, rest_df=df - own)
            key = (task, results.accuracy, measure, methods, np.sqrt(of.variance), df, np.sqrt(problems))
            rows.append((*key, units, comparisons, found))
    return rows


def make(job) -> None:
    """Write power.csv. Without a second seed nothing is known of the spread: it has no rows."""
    results, rows = job.results, []
    for task in results.tasks:
        by_method = {method: task_scores(results, method, task) for method in results.compared}
        for measure in MEASURES:
            rows += power_rows(results, task, outcomes_of(results, by_method, measure), measure)
    write_csv(pd.DataFrame(rows, columns=POWER_COLUMNS), results.root / "power.csv")

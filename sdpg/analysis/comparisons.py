"""Every two methods of a scale on one evaluation set: performance among healthy runs, and how many collapsed.

Runs of one unit (a base model and a seed) are pairs: they start from the same base model and read the same data in the same
order. Shapes: S seeds, K checkpoints, P problems. Why a t-test and not the bootstrap: docs/adr/0010-paired-t-for-
differences.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sdpg.analysis.collapse import Collapse
from sdpg.analysis.intervals import Contrast, PairedShares, probability_of_improvement
from sdpg.analysis.layout import FEWEST, FTest, Pool, contrast, interaction

LATE = 0.5  # checkpoints after this share of the run make the mean that methods are compared by
MEASURES = ("late", "area")  # of performance: mean of the late checkpoints; area under the curve


class Outcome(NamedTuple):
    """One method's runs on one set: x_SP, the score that is compared, and their collapse."""

    x_SP: np.ndarray
    collapse: Collapse


class Comparison(NamedTuple):
    """difference: among the units whose two runs are healthy (kept_S), NaN throughout if fewer than FEWEST are. fell: how many
    collapsed in the first method alone and in the second alone. base: does the difference depend on the base model?"""

    difference: Contrast
    kept_S: np.ndarray
    fell: PairedShares
    base: FTest | None


def late(steps: np.ndarray, after: float = LATE) -> np.ndarray:
    """Return which checkpoints lie after the given share of the run: [K]."""
    return steps > after * steps[-1] + 1e-9 if len(steps) > 1 else np.ones(1, dtype=bool)


def area_weights(steps: np.ndarray) -> np.ndarray:
    """Return the weights [K] with which scores at the checkpoints make the area under their curve (trapezoids), which sum to 1;
    one checkpoint has weight 1.
    """
    if len(steps) == 1:
        return np.ones(1)
    gaps = np.diff(np.asarray(steps, dtype=float))
    return (np.append(gaps, 0) + np.insert(gaps, 0, 0)) / 2 / gaps.sum()


def scored(steps: np.ndarray, x_SKP: np.ndarray, measure: str) -> np.ndarray:
    """Return scores at checkpoints [S, K, P] as one score by measure "late" or "area": [S, P]."""
    weights_K = area_weights(steps) if measure == "area" else late(steps) / late(steps).sum()
    return np.einsum("skp,k->sp", x_SKP, weights_K)


def pool(outcomes: dict[str, Outcome]) -> Pool:
    """Return the run means of the methods of which at least half of the runs are healthy, NaN for those that are not."""
    kept = {name: of for name, of in outcomes.items() if 2 * of.collapse.healthy.sum() >= len(of.x_SP)}
    rows = [np.where(of.collapse.healthy, of.x_SP.mean(axis=1), np.nan) for of in kept.values()]
    units = len(next(iter(outcomes.values())).x_SP) if outcomes else 0
    return Pool(np.array(rows).reshape(len(rows), units), tuple(kept))


def compare(a: str, b: str, outcomes: dict[str, Outcome], lent: Pool, bases: Sequence[int]) -> Comparison:
    """Return how two methods differ. lent: see `pool`; bases: each seed's base model. Raises ValueError if shapes differ."""
    one, two = outcomes[a], outcomes[b]
    kept_S = one.collapse.healthy & two.collapse.healthy
    fell = paired_collapse(one.collapse.ever, two.collapse.ever)
    if kept_S.sum() < min(FEWEST, len(kept_S)):
        return Comparison(Contrast(np.nan, np.nan, np.inf), kept_S, fell, None)
    x, y = one.x_SP[kept_S], two.x_SP[kept_S]
    found = contrast(x, y, lent.without(a, b))
    if len(x) == 1:  # one run of each: the problems' spread says nothing about other runs
        found = Contrast(found.effect, np.nan, np.inf)
    return Comparison(found, kept_S, fell, interaction((x - y).mean(axis=1), np.asarray(bases)[kept_S]))


def paired_collapse(a_S: np.ndarray, b_S: np.ndarray) -> PairedShares:
    """Return the collapses of two methods' runs [S] of the same units."""
    return PairedShares(int((a_S & ~b_S).sum()), int((b_S & ~a_S).sum()), len(a_S))


def improvement(a: Outcome, b: Outcome) -> tuple[float, float, float]:
    """Return the probability that a run of a scores above one of b, healthy or not, with its interval."""
    return tuple(probability_of_improvement(a.x_SP, b.x_SP))

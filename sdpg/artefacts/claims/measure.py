"""One claim on one evaluation set, or on the rollouts: its estimate, the runs that it rests on, and how many collapsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sdpg.analysis.comparisons import Outcome, compare, paired_collapse, pool
from sdpg.analysis.intervals import ALPHA, Contrast, Median, PairedShares, Share
from sdpg.analysis.layout import FTest, Pool
from sdpg.artefacts.claims.kinds import KINDS, Claim, reached
from sdpg.artefacts.claims.runs import NotRun, Runs
from sdpg.artefacts.claims.verdicts import Estimate, Part, thresholds


class Measured(NamedTuple):
    """part: what is decided by. units: seeds of the runs that it rests on. fell: method -> seeds whose runs collapsed. base:
    does the difference depend on the base model? left: method -> how many of its runs had collapsed by the end of the claim's
    window. never: method -> in how many of the units it did not get to the level of a cost. flat: method -> how many of its
    runs collapsed without having risen as the claim asks, which are not in `fell`.
    """

    part: Part
    units: list[int]
    fell: Mapping[str, list[int]]
    base: FTest | None = None
    left: Mapping[str, int] = {}
    never: Mapping[str, int] = {}
    flat: Mapping[str, int] = {}


def measure(runs: Runs, claim: Claim, task: str | None) -> Measured:
    """Return the claim's estimate. Raises NotRun where a method or a window is not there."""
    kind, methods, seeds = KINDS[claim["test"]], claim["methods"], runs.results.seeds
    rise = claim.get("after_rise", 0.0)
    collapses = {method: runs.collapse(method, task, rise=rise) for method in methods}
    fell = {method: _which(seeds, of.ever) for method, of in collapses.items()}
    margin, half = thresholds(claim, claim["relative"] or kind.relative)
    sign = 1 if claim["direction"] == "above" else -1
    if kind.of == "collapse":
        ever = [collapses[method].ever for method in methods]
        shares = Share(int(ever[0].sum()), len(seeds)) if len(ever) == 1 else paired_collapse(*ever)
        every = {method: int(runs.collapse(method, task).ever.sum()) for method in methods} if rise else {}
        flat = {method: count - len(fell[method]) for method, count in every.items()}
        return Measured(Part(task, shares, margin, half), list(seeds), fell, flat=flat)
    if kind.of == "median":
        values_SP = kind.values(runs, claim, methods[0], task)
        median = Median(tuple(sign * value for value in values_SP.mean(axis=1).tolist()))
        return Measured(Part(task, median, margin, half), list(seeds), fell)
    until = claim.get("window", [0.0, 1.0])[1]  # what becomes of a run later does not decide whether it counts
    outcomes = {
        method: Outcome(kind.values(runs, claim, method, task), runs.collapse(method, task, until)) for method in methods
    }
    lent = pool(outcomes | _others(runs, claim, task, until)) if kind.pools else Pool(np.empty((0, len(seeds))), ())
    found = compare(*methods, outcomes, lent, runs.results.starts)
    up = found.difference if sign == 1 else found.difference.turned()
    barred = ""
    if claim["metric"] == "accuracy" and len(seeds) > 1 and found.fell.p_above() <= ALPHA:
        barred = f"{methods[0]} collapses more often"
    never = {}
    if claim["test"] == "time_to":
        missed = [~reached(runs, claim, method).any(axis=1)[found.kept_S] for method in methods]
        never = {method: int(missed_U.sum()) for method, missed_U in zip(methods, missed, strict=True)}
        if len(seeds) > 1 and paired_collapse(*missed).p_above() <= ALPHA:
            barred = barred or f"{methods[0]} gets there less often"
    left = {method: int(of.collapse.ever.sum()) for method, of in outcomes.items()}
    return Measured(Part(task, up, margin, half, barred), _which(seeds, found.kept_S), fell, found.base, left, never)


def known(of: Estimate) -> bool:
    """Return whether anything is known of the estimate's spread."""
    return not isinstance(of, Contrast) or of.known


def counts(fell: Mapping[str, list[int]], total: int) -> list[dict[str, Any]]:
    """Return how many runs of each method collapsed, with the exact interval of the share."""
    rows = []
    for method, seeds in fell.items():
        low, high = Share(len(seeds), total).interval()
        rows.append({"method": method, "collapsed": len(seeds), "runs": total, "low": low, "high": high})
    return rows


def paired_p(fell: Mapping[str, list[int]], total: int) -> float | None:
    """Return McNemar's two-sided p-value of the two methods' collapses; None for one method."""
    if len(fell) != 2:
        return None
    first, second = (set(seeds) for seeds in fell.values())
    return PairedShares(len(first - second), len(second - first), total).p


def _others(runs: Runs, claim: Claim, task: str | None, until: float) -> dict[str, Outcome]:
    """Return the outcomes of the scale's other methods that have these numbers."""
    found = {}
    for method in runs.results.methods:
        if method not in claim["methods"]:
            try:
                values_SP = KINDS[claim["test"]].values(runs, claim, method, task)
                found[method] = Outcome(values_SP, runs.collapse(method, task, until))
            except NotRun:
                continue
    return found


def _which(seeds: tuple[int, ...], mask_S: np.ndarray) -> list[int]:
    return [seed for seed, held in zip(seeds, mask_S, strict=True) if held]

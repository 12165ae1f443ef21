"""Can these results test a claim at all? Conditions that a claim states (`needs`), of the method that it compares with.

A claim about what becomes of one method looks at that method; `pace` looks at all of the scale's. Each gives what was found
and what is needed; a claim with one that does not hold is "not testable here", and the numbers are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

from sdpg.artefacts.claims.kinds import Claim
from sdpg.artefacts.claims.runs import LAST, NotRun, Runs

CURVE = 3  # degree of the curve of entropy over accuracy
EXPLAINED = 0.8  # share of entropy's variation that accuracy may explain, below which entropy says something of its own


class Found(NamedTuple):
    """A condition in words, the number found, the number needed, and whether it holds."""

    what: str
    value: float
    needed: float
    met: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g}, at least {self.needed:.3g} needed"


def check(runs: Runs, claim: Claim) -> list[Found]:
    """Return what was found for each condition of the claim. Raises NotRun where a condition's method is not there."""
    return [CONDITIONS[need["what"]](runs, claim, need) for need in claim.get("needs", [])]


def headroom(runs: Runs, claim: Claim, need: dict[str, Any]) -> Found:
    """Room above the method's accuracy in the claim's window for the paper's effect: least of the sets that must show it."""
    least = need.get("least", claim.get("effect"))
    if claim.get("data") == "evaluation":
        tasks = claim.get("tasks", runs.results.tasks)
        rooms = [1 - _level(runs, need["method"], task, claim["window"]) for task in tasks]
        room = max(rooms) if claim["combine"] == "any" else min(rooms)
    else:
        room = 1 - _level(runs, need["method"], None, claim["window"])
    return Found(f"room above {need['method']}'s accuracy", room, least, room >= least)


def entropy(runs: Runs, claim: Claim, need: dict[str, Any]) -> Found:
    """The method's entropy at the end (nats per token), or else that it is no function of its accuracy (over all steps)."""
    method, least = need["method"], need["least"]
    level = _level(runs, method, None, [1 - LAST, 1.0], "entropy")
    if level >= least:
        return Found(f"entropy of {method} at the end", level, least, True)
    both = (runs.curve(method, name, smooth=True) for name in ("accuracy", "entropy"))
    accuracy, values = (curve_ST.ravel() for curve_ST in both)
    left = values - Polynomial.fit(accuracy, values, CURVE)(accuracy) if np.ptp(accuracy) > 0 else values - values.mean()
    explained = 1 - float(left.var() / values.var()) if values.var() > 0 else 1.0
    what = f"entropy of {method} at the end (accuracy explains {explained:.0%} of it, over all steps)"
    return Found(what, level, least, explained <= EXPLAINED)


def length(runs: Runs, claim: Claim, need: dict[str, Any]) -> Found:
    """The 90th over the 10th percentile of the lengths of the method's right responses, on the first evaluation set."""
    lengths = runs.lengths(need["method"])
    ratio = float(np.divide(*np.quantile(lengths, [0.9, 0.1]))) if len(lengths) else 0.0
    what = f"length of {need['method']}'s right responses, 90th over 10th percentile"
    return Found(what, ratio, need["least"], ratio >= need["least"])


def rise(runs: Runs, claim: Claim, need: dict[str, Any]) -> Found:
    """How far the method's rollouts rise in accuracy above where they start: highest smoothed value, mean over runs."""
    curve_ST = runs.curve(need["method"], "accuracy", smooth=True)
    gain = float((curve_ST.max(axis=1) - curve_ST[:, 0]).mean())
    return Found(f"rise of {need['method']}'s accuracy before it falls", gain, need["least"], gain >= need["least"])


def pace(runs: Runs, claim: Claim, need: dict[str, Any]) -> Found:
    """How far the fastest of the scale's methods gets by the claim's window: the mean of its smoothed curve there less where
    the curve starts, mean over runs. Needed without `least` is half of the paper's effect: where nothing rises by so much,
    nothing is so far ahead.
    """
    gains = {}
    for method in runs.results.methods:
        try:
            level_S = runs.training(method, claim["metric"], claim["window"], smooth=True)[:, 0]
            gains[method] = float((level_S - runs.curve(method, claim["metric"], smooth=True)[:, 0]).mean())
        except NotRun:
            continue
    least, fastest = need.get("least", claim.get("effect", 0) / 2), max(gains, key=gains.__getitem__)
    return Found(f"gain of the fastest method, {fastest}, in the window", gains[fastest], least, gains[fastest] >= least)


def _level(runs: Runs, method: str, task: str | None, window: list[float], metric: str = "accuracy") -> float:
    """Return the mean over healthy runs, of all if none is."""
    values_SP = runs.evaluation(method, task, metric, window) if task else runs.training(method, metric, window)
    healthy_S = runs.collapse(method, task).healthy
    return float(values_SP[healthy_S if healthy_S.any() else slice(None)].mean())


CONDITIONS: dict[str, Callable[[Runs, Claim, dict[str, Any]], Found]] = {
    "headroom": headroom,
    "entropy": entropy,
    "length": length,
    "rise": rise,
    "pace": pace,
}

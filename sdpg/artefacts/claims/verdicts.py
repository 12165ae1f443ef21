"""From the estimates of a claim to its verdict.

A claim has two thresholds, on the claimed side of 0: its margin m, the least that counts, and h, half of what the paper itself
found. Turned so that the claimed side is up, two one-sided tests ask p_support: could the effect be m or less? and p_refute:
could it be h or more? A claim is supported where the first is ruled out, and otherwise refuted where the second is, and else
open: the data allow both. Each direction is a family of its own at alpha / 2: the primary claims by the fallback procedure in
the order of the file, the others by Holm among themselves. Why: docs/adr/0017-two-outcomes-and-two-thresholds.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdpg.analysis.intervals import ALPHA, Contrast, Median, PairedShares, Share
from sdpg.analysis.multiplicity import fallback, holm

SUPPORTED, REFUTED, OPEN = "supported", "refuted", "open"
NOT_TESTABLE, NOT_RUN, SINGLE = "not testable here", "not run at this scale", "single run, no interval"
DECIDED = (SUPPORTED, REFUTED)
PRIMARY, EXPLORATORY, EXACT, PUBLISHED = "primary", "exploratory", "exact", "published"
PROCEDURES: dict[str, Callable[[Sequence[float]], list[float]]] = {PRIMARY: fallback, EXPLORATORY: holm}
Estimate = Contrast | Median | Share | PairedShares


@dataclass(frozen=True)
class Part:
    """One evaluation set of a claim (task None: rollouts), its estimate turned so that the claimed side is up."""

    task: str | None
    up: Estimate
    margin: float  # on the estimate's scale, >= 0
    half: float | None = None  # of the paper's effect, on the same scale; None: the claim cannot be refuted
    barred: str = ""  # why it cannot be supported, if so

    @property
    def p_support(self) -> float:
        return 1.0 if self.barred else self.up.p_above(self.margin)

    @property
    def p_refute(self) -> float:
        return 1.0 if self.half is None else self.up.p_below(self.half)


@dataclass(frozen=True)
class Combined:
    """A claim's one-sided p-values over its parts, and the part that decides each."""

    p_support: float
    p_refute: float
    support: Part
    refute: Part

    @property
    def part(self) -> Part:
        return self.support if self.p_support <= self.p_refute else self.refute


@dataclass(frozen=True)
class Decision:
    """p: twice the one-sided p-value of the verdict's direction, of an open claim the smaller of the two; p_adjusted: the same
    after the correction of its direction's family. part: the one that decided it, or that came nearest to.
    """

    verdict: str
    reason: str
    p: float
    p_adjusted: float
    part: Part


UNDECIDED = Part(None, Contrast(0.0, np.nan, np.inf), 0.0)  # holds a place in a family


def combine(parts: Sequence[Part], rule: str) -> Combined:
    """Decide by rule "all": every part must hold, so the largest p_support counts (intersection-union), and one failing part
    refutes, so the smallest p_refute does, times the number of parts (Bonferroni). "any": the other way round. The deciding
    part is the one whose p-value that is.
    """
    count = len(parts)
    pick = {"all": (max, min), "any": (min, max)}[rule]
    support = pick[0](parts, key=lambda part: part.p_support)
    refute = pick[1](parts, key=lambda part: part.p_refute)
    p_support = support.p_support * (count if rule == "any" else 1)
    p_refute = refute.p_refute * (count if rule == "all" else 1)
    return Combined(min(1.0, p_support), min(1.0, p_refute), support, refute)


def thresholds(claim: dict[str, Any], relative: bool) -> tuple[float, float | None]:
    """Return (margin, half of the paper's effect) on the scale of the estimate, both on the claimed side of 0.

    Relative effects are of logarithms: log(1 + m) up and -log(1 - m) down; half of one is half of its logarithm.
    """

    def scaled(size: float) -> float:
        if not relative:
            return size
        return float(np.log1p(size) if claim["direction"] == "above" else -np.log1p(-size))

    return scaled(claim["margin"]), scaled(claim["effect"]) / 2 if claim.get("effect") is not None else None


def decide(claims: Sequence[Combined | None], alpha: float, role: str) -> list[Decision | None]:
    """Decide the claims of one role, in their order. None, a claim that cannot be tested on these data, keeps its place."""
    held = [claim or Combined(1.0, 1.0, UNDECIDED, UNDECIDED) for claim in claims]
    adjust = PROCEDURES[role]
    adjusted = zip(adjust([of.p_support for of in held]), adjust([of.p_refute for of in held]), strict=True)
    return [claim and _decision(claim, up, down, alpha, role) for claim, (up, down) in zip(claims, adjusted, strict=True)]


def _decision(claim: Combined, support: float, refute: float, alpha: float, role: str) -> Decision:
    if 2 * support <= alpha:
        small = claim.support.half is not None and 2 * claim.support.up.p_below(claim.support.half) <= alpha
        reason = "beyond the margin" + ", though short of half of the paper's effect" * small
        return Decision(SUPPORTED, reason, 2 * claim.p_support, 2 * support, claim.support)
    if 2 * refute <= alpha:
        return Decision(REFUTED, _short(claim.refute), 2 * claim.p_refute, 2 * refute, claim.refute)
    p, p_adjusted = (min(1.0, 2 * min(pair)) for pair in ((claim.p_support, claim.p_refute), (support, refute)))
    return Decision(OPEN, _undecided(claim, alpha, role), p, p_adjusted, claim.part)


def _short(part: Part) -> str:
    if 2 * part.up.p_below(-part.margin) <= ALPHA:
        return "the opposite holds"
    if isinstance(part.up, Share | PairedShares):
        return f"fewer than {part.half:.0%} of runs"
    return "no effect as large as half of the paper's"


def _undecided(claim: Combined, alpha: float, role: str) -> str:
    for p, verdict in ((claim.p_support, SUPPORTED), (claim.p_refute, REFUTED)):
        if 2 * p <= alpha:
            return f"would be {verdict} alone, not among the {role} claims together"
    part = claim.part
    if part.barred:
        return part.barred
    if isinstance(part.up, Contrast) and part.up.same:
        return f"all {part.up.units} units say the same: no spread to judge by"
    if isinstance(part.up, Contrast) and np.isnan(part.up.error):
        return "too few pairs of healthy runs"
    if least_p(part.up) * 2 > alpha:
        return f"{units(part.up)} runs are too few for an exact test"
    if part.half is None:
        return "not shown; the paper gives no effect to be short of"
    return "the data allow effects short of the margin and beyond half of the paper's"


def least_p(of: Estimate) -> float:
    """Return the smallest one-sided p-value that so many runs can have; 0 for a t-test."""
    match of:
        case Median(values):  # of values without spread; those that are missing speak for neither side
            return Median(tuple(0.0 * value for value in values)).p_above(-1.0)
        case PairedShares(_, _, n):
            return 0.5**n
    return 0.0


def units(of: Estimate) -> int:
    return len(of.values) - of.missing if isinstance(of, Median) else of.n

"""From the contrasts of a claim to its verdict.

The claim is that an effect lies beyond a margin m on the claimed side. Turned so that this side is up, two one-sided t-tests
ask p_support: could the effect be m or less? and p_refute: could it be m or more? The claim's p is twice the smaller one. All
claims of a family are corrected together (Holm), and then, if p_holm <= alpha, the claim is supported or refuted, whichever the
smaller one was, and inconclusive otherwise. Refuted thus means significantly short of the margin: on the other side of 0, or
within (-m, m), where no effect counts (an equivalence test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdpg.analysis.comparisons import Contrast, holm

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
NOT_RUN, SINGLE = "not run at this scale", "single run, no interval"


@dataclass(frozen=True)
class Part:
    """One evaluation set of a claim (task None: rollouts), its contrast turned so that the claimed side is up."""

    task: str | None
    up: Contrast
    margin: float  # on the contrast's scale, >= 0

    @property
    def p_support(self) -> float:
        return self.up.p_above(self.margin)

    @property
    def p_refute(self) -> float:
        return self.up.p_below(self.margin)


@dataclass(frozen=True)
class Combined:
    """A claim's one-sided p-values over its parts, and the part that decides."""

    p_support: float
    p_refute: float
    part: Part

    @property
    def p(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self.p_support, self.p_refute))

    @property
    def leaning(self) -> str:
        return SUPPORTED if self.p_support < self.p_refute else REFUTED


def combine(parts: list[Part], rule: str) -> Combined:
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
    return Combined(min(1.0, p_support), min(1.0, p_refute), support if p_support < p_refute else refute)


def margin_of(claim: dict[str, Any], relative: bool) -> float:
    """Return the margin on the scale of the contrast: for relative effects of logarithms, log(1 + m) up and -log(1 - m)
    down.
    """
    if not relative:
        return claim["margin"]
    return float(np.log1p(claim["margin"]) if claim["direction"] == "above" else -np.log1p(-claim["margin"]))


def decide(claims: list[Combined], alpha: float) -> list[tuple[float, str, str]]:
    """Return (p_holm, verdict, reason) of each claim of a family."""
    return [
        (adjusted, *_verdict(claim, adjusted, len(claims), alpha))
        for claim, adjusted in zip(claims, holm([claim.p for claim in claims]), strict=True)
    ]


def _verdict(claim: Combined, adjusted: float, family: int, alpha: float) -> tuple[str, str]:
    if adjusted > alpha:
        if claim.p > alpha:
            return INCONCLUSIVE, "the data allow effects on both sides of the margin"
        return INCONCLUSIVE, f"would be {claim.leaning} alone, not when {family} claims are tested together"
    if claim.leaning == SUPPORTED:
        return SUPPORTED, "beyond the margin"
    low, high = claim.part.up.interval()
    if high < -claim.part.margin:
        return REFUTED, "the opposite holds"
    if low > -claim.part.margin:
        return REFUTED, "no effect as large as the margin"
    return REFUTED, "short of the margin"

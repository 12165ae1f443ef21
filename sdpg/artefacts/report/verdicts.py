"""The verdicts as the page shows them: claims.json in groups, each claim with its numbers in words and its picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sdpg.artefacts.claims.standing import collapsed, distance, effects, grouped, p_value, thresholds_text
from sdpg.artefacts.claims.verdicts import NOT_RUN
from sdpg.artefacts.report.picture import pictures
from sdpg.io import read_json

# verdict -> (symbol, class of its colour); in the order of the summary
VERDICTS = {
    "supported": ("✓", "yes"),
    "refuted": ("✗", "no"),
    "not testable here": ("∅", "none"),
    "open": ("?", "open"),
    "single run, no interval": ("○", "open"),
    "not run at this scale": ("–", "none"),
}


def read_claims(root: Path) -> list[dict[str, Any]] | None:
    """Return claims.json, or None without it. Raises ValueError for a verdict that the page does not know."""
    path = root / "claims.json"
    if not path.is_file():
        return None
    claims = read_json(path)
    for claim in claims:
        if claim["verdict"] not in VERDICTS:
            raise ValueError(
                f"{path}: claim {claim['id']} has the verdict {claim['verdict']!r}, expected one of {', '.join(VERDICTS)}"
            )
    return claims


def verdicts(claims: list[dict[str, Any]] | None, figures: set[str]) -> dict[str, Any] | None:
    """Return {counts: (role, [(verdict, symbol, class, how many)]), groups: (heading, claims as the template shows them)}; None
    without claims.

    A claim's figure is a link only if it is one of `figures`, those on the page.
    """
    if claims is None:
        return None
    counts = []
    for role in dict.fromkeys(claim["role"] for claim in claims):
        number = Counter(claim["verdict"] for claim in claims if claim["role"] == role)
        counts.append((role, [(verdict, *look, number[verdict]) for verdict, look in VERDICTS.items() if number[verdict]]))
    return {"counts": counts, "groups": [(heading, [_row(of, figures) for of in rows]) for heading, rows in grouped(claims)]}


def _row(claim: dict[str, Any], figures: set[str]) -> dict[str, Any]:
    symbol, look = VERDICTS[claim["verdict"]]
    run = claim["verdict"] != NOT_RUN
    return {
        **claim,
        "symbol": symbol,
        "class": look,
        "reason": claim["reason"].rstrip("."),
        "distance": distance(claim),
        "effects": effects(claim) if run else "",
        "thresholds": thresholds_text(claim) if run else "",
        "p_text": p_value(claim["p_adjusted"]),
        "collapses": collapsed(claim) if claim["collapsed"] else "",
        "conditions": [condition_text(of) for of in claim["preconditions"]],
        "pictures": pictures(claim),
        "link": claim["figure"] if claim["figure"] in figures else None,
    }


def condition_text(found: dict[str, Any]) -> str:
    """Return a condition with its numbers and a mark."""
    return f"{'✓' if found['met'] else '✗'} {found['what']}: {found['value']:.3g} ({found['needed']:.3g} needed)"

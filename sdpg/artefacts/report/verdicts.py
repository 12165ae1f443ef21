"""The verdict table: claims.json as the page shows it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sdpg.io import read_json

# verdict -> (symbol, class of its colour); in the order of the summary
VERDICTS = {
    "supported": ("✓", "yes"),
    "refuted": ("✗", "no"),
    "inconclusive": ("?", "open"),
    "single run, no interval": ("○", "open"),
    "not run at this scale": ("–", "none"),
}
WIDTH, HEIGHT = 132, 20  # of the interval's picture, CSS pixels


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
    """Return {counts: (verdict, symbol, class, how many), rows: claims with symbol, class, picture and link}; None without
    claims.

    A claim's figure is a link only if it is one of `figures`, those on the page.
    """
    if claims is None:
        return None
    number = Counter(claim["verdict"] for claim in claims)
    rows = [
        {
            **claim,
            "symbol": VERDICTS[claim["verdict"]][0],
            "class": VERDICTS[claim["verdict"]][1],
            "text": effect_text(claim),
            "picture": picture(claim),
            "link": claim["figure"] if claim["figure"] in figures else None,
        }
        for claim in claims
    ]
    counts = [(verdict, *look, number[verdict]) for verdict, look in VERDICTS.items() if number[verdict]]
    return {"counts": counts, "rows": rows}


def effect_text(claim: dict[str, Any]) -> str:
    """Return the effect with its interval and unit, "–" for what is not known."""
    if claim["effect"] is None:
        return "–"
    text = number(claim["effect"])
    if claim["low"] is not None and claim["high"] is not None:
        text += f" [{number(claim['low'])}, {number(claim['high'])}]"
    return text


def number(value: float) -> str:
    """Return three decimals with a sign; from 100 on, three digits."""
    text = f"{value:+.3f}" if abs(value) < 100 else f"{value:+.3g}"
    return text.replace("-", "−")


def picture(claim: dict[str, Any]) -> dict[str, float] | None:
    """Return the positions of zero, the margin, the effect and the ends of its interval on a line WIDTH pixels long; None
    without one.
    """
    values = [claim[key] for key in ("effect", "low", "high")]
    if any(value is None for value in values):
        return None
    margin = claim["margin"] or 0.0
    extent = 1.15 * max(map(abs, [*values, margin])) or 1.0

    def position(value: float) -> float:
        return round(WIDTH * (value + extent) / (2 * extent), 1)

    effect, low, high = map(position, values)
    return {"effect": effect, "low": low, "high": high, "zero": position(0), "margin": position(margin)}

"""The verdict tables: claims.json as the page shows it, what is decided first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sdpg.artefacts.claims.table import collapsed, grouped
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
    """Return {counts: (role, [(verdict, symbol, class, how many)]), groups: (heading, claims with symbol, class, picture and
    link)}; None without claims.

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
    return {
        **claim,
        "symbol": symbol,
        "class": look,
        "text": effect_text(claim),
        "collapses": collapsed(claim),
        "conditions": [condition_text(of) for of in claim["preconditions"]],
        "picture": picture(claim),
        "link": claim["figure"] if claim["figure"] in figures else None,
    }


def condition_text(found: dict[str, Any]) -> str:
    """Return a condition with its numbers and a mark."""
    return f"{'✓' if found['met'] else '✗'} {found['what']}: {found['value']:.3g} ({found['needed']:.3g} needed)"


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
    """Return the positions of zero, the margin, the paper's effect, the effect and the ends of its interval on a line WIDTH
    pixels long; None without one. Margin and paper's effect stand on the claimed side; the latter is None where the paper gives
    none.
    """
    values = [claim[key] for key in ("effect", "low", "high")]
    if any(value is None for value in values):
        return None
    sign = -1 if claim["direction"] == "below" else 1
    margin, paper = sign * (claim["margin"] or 0.0), claim["paper"]
    extent = 1.15 * max(map(abs, [*values, margin, paper or 0.0])) or 1.0

    def position(value: float) -> float:
        return round(WIDTH * (value + extent) / (2 * extent), 1)

    effect, low, high = map(position, values)
    ends = {"effect": effect, "low": low, "high": high, "zero": position(0), "margin": position(margin)}
    return ends | {"paper": None if paper is None else position(sign * paper)}

"""Where a row of claims.json stands, for readers: its group, its thresholds as reported, how far an open one is from each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sdpg.artefacts.claims.verdicts import DECIDED, EXACT, EXPLORATORY, NOT_RUN, NOT_TESTABLE, OPEN, PRIMARY, PUBLISHED, SINGLE
from sdpg.artefacts.tables.layout import NONE

RELATIVE, ERROR = "relative change", "absolute error"  # units in claims.json
Row = dict[str, Any]
GROUPS = {  # heading -> verdicts of claims that are tested on runs
    "Decided": DECIDED,
    "Not testable here": (NOT_TESTABLE,),
    "Open": (OPEN,),
    "Not run at this scale": (NOT_RUN,),
}
PROPOSITION, CURVES = "Proposition 3.1: exact, without statistics", "What the paper's own curves say"


def grouped(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Return (heading, rows): decided, not testable here, open, not run, each with its primary claims first; then, apart, the
    exact one and the differences of the paper's own curves. No heading without rows.
    """

    def apart(row: Row) -> str | None:
        return PROPOSITION if row["role"] == EXACT else CURVES if PUBLISHED == row["role"] or row["verdict"] == SINGLE else None

    ordered = sorted(rows, key=lambda row: [PRIMARY, EXPLORATORY, EXACT, PUBLISHED].index(row["role"]))
    found = [
        (heading, [row for row in ordered if row["verdict"] in verdicts and not apart(row)])
        for heading, verdicts in GROUPS.items()
    ]
    found += [(heading, [row for row in ordered if apart(row) == heading]) for heading in (PROPOSITION, CURVES)]
    return [(heading, members) for heading, members in found if members]


def scales(row: Row) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Return the functions from an effect as reported to the scale of the test, and back: logarithms of relative changes."""
    return (np.log1p, np.expm1) if row["unit"] == RELATIVE else (float, float)


def limits(row: Row) -> tuple[float, float | None]:
    """Return (margin, half of the paper's effect), as reported and with their signs; None where the paper gives no effect."""
    to, back = scales(row)
    sign = -1 if row["direction"] == "below" else 1
    half = None if row["paper"] is None else float(back(to(sign * row["paper"]) / 2))
    return sign * row["margin"], half


def distance(row: Row) -> str:
    """Return how far an open claim is from being supported and from being refuted; "" for any other."""
    if row["verdict"] != OPEN:
        return ""
    if row["low"] is None or row["high"] is None:
        if row["p"] is None:
            return ""
        return f"p {p_value(row['p'])} alone, {p_value(row['p_adjusted'])} adjusted, where at most 0.05 decides"
    sign = -1 if row["direction"] == "below" else 1
    near, far = (row["low"], row["high"]) if sign > 0 else (row["high"], row["low"])
    margin, half = limits(row)
    ways = [("supported", near, margin, sign * (margin - near))]
    if half is not None:
        ways.append(("refuted", far, half, sign * (far - half)))
    texts = []
    for verdict, end, threshold, gap in ways:
        missing = f"{100 * gap:.1f} points" if row["unit"] == RELATIVE else number(gap, row["unit"]).lstrip("+")
        how = f"{missing} short of {verdict}" if gap > 0 else f"by its interval alone it would be {verdict}"
        ends, least = number(end, row["unit"]), number(threshold, row["unit"])
        texts.append(f"{how} (the interval ends at {ends}, the threshold is {least})")
    return "; ".join(texts)


def collapsed(row: Row) -> str:
    """Return the collapse counts in words: "grpo 1 of 10 [.00, .45]; ..."."""
    if not row.get("collapsed"):
        return NONE
    each = [f"{of['method']} {of['collapsed']} of {of['runs']} [{of['low']:.2f}, {of['high']:.2f}]" for of in row["collapsed"]]
    p = (
        f"; p {row['p_collapse']:.2g}"
        if row.get("p_collapse") is not None and any(of["collapsed"] for of in row["collapsed"])
        else ""
    )
    return "; ".join(each) + p


def thresholds_text(row: Row) -> str:
    """Return "above 0.01; 0.1": the margin, and the paper's effect where it gives one."""
    below_zero = row["direction"] == "below" and row["axis"]

    def size(value: float) -> str:
        shown = f"{value:.0%}" if row["unit"] == RELATIVE else f"{value:g}"
        return f"{'−' if below_zero and value else ''}{shown}"

    paper = f"; {size(row['paper'])}" if row["paper"] is not None else ""
    return f"{row['direction']} {size(row['margin'])}{paper}"


def effect_text(of: Row, unit: str) -> str:
    """Return the effect of a row or of one of its parts with its interval, without the unit's name; "–" for none."""
    if of["effect"] is None:
        return NONE
    text = number(of["effect"], unit)
    return text if of["low"] is None else f"{text} [{number(of['low'], unit)}, {number(of['high'], unit)}]"


def effects(row: Row) -> str:
    """Return a row's effect on each evaluation set with its interval, in its unit: "chain +0.137 [+0.090, +0.185]; ..."."""
    parts = row["parts"] or [row | {"task": None}]
    if all(part["effect"] is None for part in parts):
        return NONE
    texts = [(f"{part['task']} " if part["task"] else "") + effect_text(part, row["unit"]) for part in parts]
    return "; ".join(texts) + ("" if row["unit"] in (RELATIVE, "fraction", ERROR) else f" {row['unit']}")


def number(value: float, unit: str) -> str:
    """Return a number of claims.json with its sign: a percentage of relative changes, whole tokens, else three decimals."""
    if unit == ERROR:
        return f"{value:.1e}"
    text = f"{value:+{'.1%' if unit == RELATIVE else '.0f' if unit == 'tokens' else '.3f'}}"
    if not any(digit in text for digit in "123456789"):
        text = text[1:]  # what rounds to 0 has no sign
    return text.replace("-", "−")


def p_value(value: float | None) -> str:
    """Return a p-value of three decimals, "–" for none."""
    if value is None:
        return NONE
    return "<0.001" if value < 0.001 else f"{value:.3f}"

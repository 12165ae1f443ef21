"""Each claim's picture: its estimates with their intervals and both thresholds on one axis, as positions that a template draws.

Positions are pixels of a drawing WIDTH wide; colours and letters are the page's business (templates/claims.html, report.css).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdpg.artefacts.claims.standing import RELATIVE, Row, effect_text, limits, number, scales
from sdpg.artefacts.claims.verdicts import EXACT, NOT_RUN, NOT_TESTABLE, SINGLE

WIDTH, EDGE = 320, 18  # of the drawing, and what is left free on either side
LABELLED, BARE, TOP = 32, 20, 22  # height of a line with and without a label, and of what stands above the first
HALF = "half of the paper's"
APART = 40  # between the labels of two ticks
LETTER = 6.1  # width of a letter, about
FOLDS = (-0.99, -0.95, -0.9, -0.8, -0.65, -0.5, -0.3, 0.0, 0.5, 1.0, 2.0, 4.0, 9.0, 19.0, 99.0)  # ticks of ratios
Ends = tuple[float | None, float | None, float | None]  # value, low, high


@dataclass
class Axis:
    """From values to pixels. to: onto the scale that is drawn; shown: a value's text."""

    low: float
    high: float
    to: Callable[[float], float]
    shown: Callable[[float], str]

    def __call__(self, value: float) -> float:
        return round(float(EDGE + (WIDTH - 2 * EDGE) * (self.to(value) - self.low) / (self.high - self.low)), 1)


@dataclass
class Picture:
    """lines: {label, y, value, low, high}. marks: thresholds {x, text, at: where the text begins, up: named above, side: the
    verdict beyond it or "", x2: where that side ends}. ticks: (x, text). text: what is seen, in words.
    """

    lines: list[dict[str, Any]]
    marks: list[dict[str, Any]]
    ticks: list[tuple[float, str]]
    zero: float | None
    text: str
    width: int = WIDTH
    edge: int = EDGE
    bottom: int = field(init=False)
    height: int = field(init=False)

    def __post_init__(self) -> None:
        self.bottom = TOP + sum(LABELLED if line["label"] else BARE for line in self.lines)
        self.height = self.bottom + (36 if any(not mark["up"] for mark in self.marks) else 20)


def pictures(row: Row) -> list[Picture]:
    """Return what shows a claim of claims.json: its estimates; or, where it cannot be tested, the conditions that fail; or
    nothing.
    """
    if row["verdict"] == NOT_RUN:
        return []
    if row["verdict"] == NOT_TESTABLE:
        return [_condition(found) for found in row["preconditions"] if not found["met"]]
    if row["role"] == EXACT:
        return [_exact(row)]
    found = _shares(row) if row["test"] == "collapse" else _effects(row)
    return [found] if found else []


def _effects(row: Row) -> Picture | None:
    parts = [part for part in row["parts"] or [row] if part["effect"] is not None]
    if not parts:
        return None
    unit, (to, _), (margin, half) = row["unit"], scales(row), limits(row)
    lines = [(part.get("task") if len(parts) > 1 else None, (part["effect"], part["low"], part["high"])) for part in parts]
    axis = _axis([0.0, margin, half, *(value for _, ends in lines for value in ends)], to, lambda value: number(value, unit))
    up = row["direction"] == "above"
    side = "" if row["verdict"] == SINGLE else "supported"
    marks = [_mark(axis, margin, "margin", side, rising=up, above=True)]
    if half is not None:
        marks.append(_mark(axis, half, HALF, "refuted", rising=not up, above=False))
    told = [f"{part['task'] + ' ' if len(parts) > 1 else ''}{effect_text(part, unit)}" for part in parts]
    words = f"estimate with 95% interval: {'; '.join(told)}. Margin: {number(margin, unit)}."
    words += "" if half is None else f" Half of the paper's effect: {number(half, unit)}."
    return _picture(axis, lines, marks, _ticks(axis, unit == RELATIVE), words)


def _shares(row: Row) -> Picture | None:
    """Return each method's share of collapsed runs: the claim is about their difference, which has no interval."""
    if not row["collapsed"]:
        return None
    axis = Axis(0.0, 1.0, float, lambda value: f"{value:.0%}")
    lines = [
        (f"{of['method']}: {of['collapsed']} of {of['runs']} collapsed", (of["collapsed"] / of["runs"], of["low"], of["high"]))
        for of in row["collapsed"]
    ]
    _, half = limits(row)
    marks = [] if half is None else [_mark(axis, half, HALF, "refuted", rising=False, above=False)]
    words = "; ".join(f"{label} (95% interval {low:.0%} to {high:.0%})" for label, (_, low, high) in lines) + "."
    words += "" if half is None else f" Half of the paper's effect: {half:.0%}."
    return _picture(axis, lines, marks, [(axis(value), axis.shown(value)) for value in (0, 0.25, 0.5, 0.75, 1)], words)


def _condition(found: dict[str, Any]) -> Picture:
    """Return the number that was found, and the one that is needed."""
    value, needed = found["value"], found["needed"]
    axis = _axis([0.0, value, needed], float, lambda value: f"{value:.3g}")
    mark = _mark(axis, needed, "needed", "testable", rising=True, above=True)
    words = f"{found['what']}: {value:.3g}; {needed:.3g} needed."
    return _picture(axis, [(f"measured: {value:.3g}", (value, None, None))], [mark], _ticks(axis, False), words)


def _exact(row: Row) -> Picture:
    """Return the error on a logarithmic axis."""
    error, margin = max(row["effect"], 1e-18), row["margin"]
    decades = np.arange(-18, 1, 3)
    axis = Axis(-18.0, 0.0, np.log10, lambda value: f"{value:.0e}")
    mark = _mark(axis, margin, "margin", "supported", rising=False, above=True)
    words = f"largest error {row['effect']:.1e}; margin {margin:.0e}."
    ticks = [(axis(10.0**decade), f"1e{decade}" if decade else "1") for decade in decades]
    return _picture(axis, [(f"largest error {row['effect']:.1e}", (error, None, None))], [mark], ticks, words, zero=False)


def _picture(axis: Axis, lines: Sequence[tuple[str | None, Ends]], marks, ticks, words: str, zero: bool = True) -> Picture:
    drawn, y = [], TOP
    for label, ends in lines:
        y += LABELLED if label else BARE
        value, low, high = (None if end is None else axis(end) for end in ends)
        drawn.append({"label": label or "", "y": y - 9, "value": value, "low": low, "high": high})
    return Picture(drawn, marks, ticks, axis(0.0) if zero else None, words)


def _axis(values: Sequence[float | None], to: Callable[[float], float], shown: Callable[[float], str]) -> Axis:
    """Return an axis that holds the values, with a twentieth of its length free on either side."""
    at = [float(to(value)) for value in values if value is not None]
    low, high = min(at), max(at)
    free = 0.05 * (high - low) or 1.0
    return Axis(low - free, high + free, to, shown)


def _mark(axis: Axis, value: float, name: str, side: str, *, rising: bool, above: bool) -> dict[str, Any]:
    """Return a threshold and the side of it, to the right if rising, on which a verdict lies; its name begins or ends there,
    within the drawing.
    """
    x, named = axis(value), f"{name} {axis.shown(value)}"
    text = named if not side else f"{named}, {side} →" if rising else f"← {side}, {named}"
    wide = LETTER * len(text)
    at = min(max(x if rising else x - wide, EDGE), WIDTH - EDGE - wide)
    return {"x": x, "text": text, "at": round(at, 1), "up": above, "side": side, "x2": WIDTH - EDGE if rising else EDGE}


def _ticks(axis: Axis, relative: bool) -> list[tuple[float, str]]:
    """Return (x, text) of round values, 0 first of all, none of whose labels touch."""
    if relative and axis.high - axis.low > 0.7:
        values = [value for value in FOLDS if axis.low <= np.log1p(value) <= axis.high]
    else:
        back = np.expm1 if relative else float
        low, high = float(back(axis.low)), float(back(axis.high))
        decade = 10.0 ** np.floor(np.log10((high - low) / 4))
        step = next(times * decade for times in (1, 2, 5, 10) if times * decade >= (high - low) / 4)
        values = [k * step for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
    kept: list[tuple[float, str]] = []
    for value in sorted(values, key=abs):
        x = axis(value)
        if all(abs(x - other) >= APART for other, _ in kept):
            kept.append((x, f"{100 * value:+.4g}%" if relative else f"{value:+.4g}"))
    return [(x, "0" if text in ("+0", "+0%") else text.replace("-", "−")) for x, text in sorted(kept)]

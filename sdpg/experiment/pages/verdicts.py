"""The verdicts with their preconditions, and what the paper's own curves say."""

from __future__ import annotations

from typing import Any

from sdpg.artefacts.claims.table import grouped
from sdpg.artefacts.claims.verdicts import PUBLISHED
from sdpg.experiment.pages.read import References, not_run, rows_of

RELATIVE = "relative change"
NONE = "–"
HEAD = ["", "claim", "verdict", "effect [95% interval]", "needs more than; paper", "collapsed", "precondition", "why"]


def tables(references: References, up: str) -> str:
    """Return the verdicts of each scale, grouped as in the report, primary claims first."""
    parts = []
    for scale in references.scales:
        of = references.get(scale)
        parts.append(f"### Scale `{scale}`\n")
        if of is None:
            parts.append(not_run(scale) + "\n")
            continue
        for heading, members in grouped([row for row in of.claims if row["role"] != PUBLISHED]):
            parts.append(f"**{heading}**\n\n{rows_of(HEAD, [_row(row) for row in members])}\n")
    return "\n".join(parts)


def published(references: References, up: str) -> str:
    """Return the differences of the paper's own curves, which no run of ours changes."""
    of = next((references.found[name] for name in references.found), None)
    if of is None:
        return "Not computed yet: no scale has a reference."
    rows = [
        [row["id"], f"{row['claim']} ({row['source']})", row["comparison"], effect(row)]
        for row in of.claims
        if row["role"] == PUBLISHED
    ]
    return rows_of(["", "what is looked at", "curves", "difference"], rows)


def _row(row: dict[str, Any]) -> list[str]:
    primary = " (primary)" if row["role"] == "primary" else ""
    fell = "; ".join(f"{of['method']} {of['collapsed']} of {of['runs']}" for of in row["collapsed"])
    needs = "; ".join(f"{of['what']}: {of['value']:.3g}, {of['needed']:.3g} needed" for of in row["preconditions"])
    return [
        row["id"],
        f"{row['claim']}{primary}",
        f"**{row['verdict']}**",
        effect(row),
        _thresholds(row),
        fell or NONE,
        needs or "none",
        row["reason"] or NONE,
    ]


def effect(row: dict[str, Any]) -> str:
    """Return the effect on each set with its interval, in its unit."""
    unit = row["unit"]
    of_all = {"task": None, "effect": row["effect"], "low": row["low"], "high": row["high"]}
    parts = row["parts"] or [of_all]
    if all(part["effect"] is None for part in parts):
        return NONE
    if row["unit"] == "absolute error":
        return f"{row['effect']:.1e}"
    several = len(parts) > 1 or parts[0]["task"] not in (None, unit)
    texts = []
    for part in parts:
        text = NONE if part["effect"] is None else number(part["effect"], unit)
        ends = "" if part["low"] is None else f" [{number(part['low'], unit)}, {number(part['high'], unit)}]"
        texts.append((f"{part['task']} " if several and part["task"] else "") + text + ends)
    return "; ".join(texts) + ("" if unit in (RELATIVE, "fraction") else f" {unit}")


def _thresholds(row: dict[str, Any]) -> str:
    sign = "−" if row["direction"] == "below" and row["axis"] else ""

    def size(value: float) -> str:
        return (sign if value else "") + (f"{value:.0%}" if row["unit"] == RELATIVE else f"{value:g}")

    return size(row["margin"]) + (f"; {size(row['paper'])}" if row["paper"] is not None else "")


def number(value: float, unit: str) -> str:
    """Return a number with its sign, to three places, in percent or in whole tokens."""
    form = ".1%" if unit == RELATIVE else ".0f" if unit == "tokens" else ".3f"
    return f"{value:+{form}}".replace("-", "−")

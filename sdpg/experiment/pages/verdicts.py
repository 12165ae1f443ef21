"""The verdicts with their preconditions, and what the paper's own curves say."""

from __future__ import annotations

from typing import Any

from sdpg.artefacts.claims.standing import distance, effects, grouped, thresholds_text
from sdpg.artefacts.claims.verdicts import PUBLISHED
from sdpg.artefacts.tables.layout import NONE
from sdpg.experiment.pages.read import References, not_run
from sdpg.markdown import table

HEAD = ["", "claim", "verdict", "effect [95% interval]", "margin; paper", "collapsed", "precondition", "why"]


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
            parts.append(f"**{heading}**\n\n{table(HEAD, [_row(row) for row in members])}\n")
    return "\n".join(parts)


def published(references: References, up: str) -> str:
    """Return the differences of the paper's own curves, which no run of ours changes."""
    of = next((references.found[name] for name in references.found), None)
    if of is None:
        return "Not computed yet: no scale has a reference."
    rows = [
        [row["id"], f"{row['claim']} ({row['source']})", row["comparison"], effects(row)]
        for row in of.claims
        if row["role"] == PUBLISHED
    ]
    return table(["", "what is looked at", "curves", "difference"], rows)


def _row(row: dict[str, Any]) -> list[str]:
    primary = " (primary)" if row["role"] == "primary" else ""
    fell = "; ".join(f"{of['method']} {of['collapsed']} of {of['runs']}" for of in row["collapsed"])
    needs = "; ".join(f"{of['what']}: {of['value']:.3g}, {of['needed']:.3g} needed" for of in row["preconditions"])
    return [
        row["id"],
        f"{row['claim']}{primary}",
        f"**{row['verdict']}**",
        effects(row),
        thresholds_text(row),
        fell or NONE,
        needs or "none",
        "; ".join(filter(None, [row["reason"], distance(row)])) or NONE,
    ]

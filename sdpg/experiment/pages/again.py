"""Does it replicate? The verdicts of a scale's reference beside those of its second run, with other rounding."""

from __future__ import annotations

from sdpg.artefacts.claims.standing import effects
from sdpg.artefacts.claims.verdicts import DECIDED, EXPLORATORY, PRIMARY
from sdpg.experiment.pages.first import how
from sdpg.experiment.pages.read import AGAIN, Reference, References, not_run
from sdpg.markdown import table

HEAD = ["", "claim", "verdict", "second run", "effect [95% interval]", "second run"]


def second_run(references: References, up: str) -> str:
    """Return the primary claims of each scale that ran twice, and the other claims whose verdicts differ."""
    parts = []
    for scales in AGAIN.items():
        both = [references.get(scale) for scale in scales]
        missing = [not_run(scale) for scale, of in zip(scales, both, strict=True) if of is None]
        parts.append(" ".join(missing) if missing else _compared(*both))
    return "\n\n".join(parts)


def _compared(first: Reference, second: Reference) -> str:
    there = {row["id"]: row for row in second.claims}
    pairs = [(row, there[row["id"]]) for row in first.claims if there.get(row["id"], {}).get("claim") == row["claim"]]
    primary, others = ([(a, b) for a, b in pairs if a["role"] == role] for role in (PRIMARY, EXPLORATORY))
    same = [a for a, b in primary if a["verdict"] == b["verdict"]]
    decided = sum(row["verdict"] in DECIDED for row in same)
    differ = [(a, b) for a, b in others if a["verdict"] != b["verdict"]]
    said = "; ".join(f"{a['id']} is {a['verdict']}, in the second run {b['verdict']}" for a, b in differ)
    return (
        f"The second run: {how(second)}\n\n"
        f"Of {len(primary)} primary claims **{len(same)} have the same verdict, {decided} of them decided**. "
        f"Of {len(others)} exploratory ones {len(differ)} have another one{': ' if said else ''}{said}.\n\n"
        + table(HEAD, [_row(a, b) for a, b in primary])
    )


def _row(a: dict, b: dict) -> list[str]:
    return [a["id"], a["claim"], f"**{a['verdict']}**", f"**{b['verdict']}**", effects(a), effects(b)]

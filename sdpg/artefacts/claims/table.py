"""claims.md: the verdicts as a table, verdict first, and how they were reached."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdpg.analysis.diverged import sentences
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import PAPER
from sdpg.artefacts.tables.layout import NONE

HEAD = ("verdict", "claim", "effect [95% interval]", "margin", "p (Holm)", "axis", "figure", "why")
RELATIVE = "relative change"


def markdown(rows: list[dict[str, Any]], results: Results, alpha: float) -> str:
    """Return the rows of claims.json for a reader."""
    counts = Counter(row["verdict"] for row in rows)
    lines = [
        f"# The paper's claims at scale {results.root.name}",
        "",
        f"The paper is {PAPER}.",
        "",
        ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---" * len(HEAD) + "|",
    ]
    for row in rows:
        what = f"{row['id']}. {row['claim']} ({row['source']}; {row['comparison']})"
        cells = (f"**{row['verdict']}**", what, _effects(row), _margin(row), _p(row["p_holm"]))
        cells += (row["axis"] or NONE, row["figure"] or NONE, row["reason"])
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join([*lines, "", _caption(len(results.seeds), alpha) + sentences(results.diverged)]) + "\n"


def _caption(seeds: int, alpha: float) -> str:
    tested = f"of {seeds} seeds, paired by seed and problem (t-intervals)" if seeds > 1 else "of one seed, nothing is tested"
    return (
        f"Effects {tested}. Supported: the effect is beyond the margin on the claimed side. Refuted: it falls short of the "
        "margin, no effect or the opposite. Inconclusive: neither can be said. All claims of the table are tested together "
        f"at {alpha:.0%} (Holm); the intervals are not corrected. A claim about every evaluation set is decided by its weakest "
        "one, one about any by its strongest. Rows of the published data are single runs of the paper."
    )


def _effects(row: dict[str, Any]) -> str:
    if row["effect"] is None:
        return NONE
    if not row["parts"]:
        return f"{row['effect']:.1e}"
    one = len(row["parts"]) == 1 and row["parts"][0]["task"] is None
    texts = [("" if one else f"{part['task']} ") + _interval(part, row["unit"]) for part in row["parts"]]
    return "; ".join(texts) + ("" if row["unit"] in (RELATIVE, "fraction") else f" {row['unit']}")


def _interval(part: dict[str, Any], unit: str) -> str:
    text = _number(part["effect"], unit)
    if part["low"] is None:
        return text
    return f"{text} [{_number(part['low'], unit)}, {_number(part['high'], unit)}]"


def _number(value: float, unit: str) -> str:
    form = ".1%" if unit == RELATIVE else ".0f" if unit == "tokens" else ".3f"
    return f"{value:+{form}}".replace("-", "−")


def _margin(row: dict[str, Any]) -> str:
    size = f"{row['margin']:.0%}" if row["unit"] == RELATIVE else f"{row['margin']:g}"
    below_zero = row["direction"] == "below" and row["margin"] and row["axis"]
    return f"{row['direction']} {'−' if below_zero else ''}{size}"


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "<0.001" if value < 0.001 else f"{value:.3f}"

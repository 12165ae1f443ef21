"""claims.md: the verdicts as tables, what is decided first, and how they were reached."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdpg.analysis.diverged import sentences
from sdpg.analysis.results import Results
from sdpg.artefacts.claims.verdicts import DECIDED, EXACT, EXPLORATORY, NOT_RUN, NOT_TESTABLE, OPEN, PRIMARY, PUBLISHED, SINGLE
from sdpg.artefacts.declare import PAPER
from sdpg.artefacts.tables.layout import NONE

HEAD = ("verdict", "claim", "effect [95% interval]", "margin; paper", "p (adjusted)", "collapsed", "axis", "figure", "why")
RELATIVE = "relative change"
GROUPS = {  # heading -> verdicts
    "Decided": DECIDED,
    "Not testable here": (NOT_TESTABLE,),
    "Open": (OPEN,),
    "Not run": (NOT_RUN,),
    "The paper's own curves": (SINGLE,),
}


def grouped(rows: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return (heading, rows): decided, not testable here, open, ... with primary claims first; the exact one stands apart."""
    rank = [PRIMARY, EXPLORATORY, EXACT, PUBLISHED]
    ordered = sorted(rows, key=lambda row: rank.index(row.get("role", EXPLORATORY)))
    found = [
        (heading, [row for row in ordered if row["verdict"] in verdicts and row.get("role") != EXACT])
        for heading, verdicts in GROUPS.items()
    ]
    found.insert(1, ("Exact, without statistics", [row for row in rows if row.get("role") == EXACT]))
    return [(heading, members) for heading, members in found if members]


def markdown(rows: list[dict[str, Any]], results: Results, alpha: float) -> str:
    """Return the rows of claims.json for a reader."""
    lines = [f"# The paper's claims at scale {results.root.name}", "", f"The paper is {PAPER}.", ""]
    for role in (PRIMARY, EXPLORATORY):
        counts = Counter(row["verdict"] for row in rows if row["role"] == role)
        if counts:
            lines.append(f"- {role}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for heading, members in grouped(rows):
        lines += ["", f"## {heading}", "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in _cells(row)) + " |" for row in members]
    return "\n".join([*lines, "", _caption(len(results.seeds), alpha) + sentences(results.diverged)]) + "\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    role = f" [{row['role']}]" if row["role"] == PRIMARY else ""
    what = f"{row['id']}. {row['claim']} ({row['source']}; {row['comparison']}){role}"
    cells = (f"**{row['verdict']}**", what, _effects(row), _margin(row), _p(row["p_adjusted"]), collapsed(row))
    return *cells, row["axis"] or NONE, row["figure"] or NONE, row["reason"]


def _caption(units: int, alpha: float) -> str:
    tested = f"of {units} units (a base model with a seed), paired" if units > 1 else "of one run of each, nothing is tested"
    return (
        f"Effects {tested}. Performance is compared among units whose two runs are healthy; a run has collapsed if its "
        "accuracy ever falls below half of its running maximum, if it diverged, or if the program stopped it (counts with "
        "exact 95% intervals). Supported: the effect is beyond the margin on the claimed side. Refuted: it is short of "
        "half of the paper's own effect. Open: the data allow both. Not testable here: a stated condition does not hold, "
        "and no run of this kind could decide. Of the primary claims together, and of the exploratory ones together, each "
        f"direction of verdict is wrong at most in {alpha / 2:.1%} of tables (fallback procedure in the order of the file; "
        "Holm); the intervals are not corrected. A claim about every evaluation set is decided by its weakest one, one "
        "about any by its strongest. Rows of the published data are single runs of the paper."
    )


def collapsed(row: dict[str, Any]) -> str:
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


def _effects(row: dict[str, Any]) -> str:
    if row["effect"] is None and not row["parts"]:
        return NONE
    if not row["parts"]:
        return f"{row['effect']:.1e}"
    one = len(row["parts"]) == 1 and row["parts"][0]["task"] is None
    texts = [("" if one else f"{part['task']} ") + _interval(part, row["unit"]) for part in row["parts"]]
    return "; ".join(texts) + ("" if row["unit"] in (RELATIVE, "fraction") else f" {row['unit']}")


def _interval(part: dict[str, Any], unit: str) -> str:
    if part["effect"] is None:
        return NONE
    text = _number(part["effect"], unit)
    if part["low"] is None:
        return text
    return f"{text} [{_number(part['low'], unit)}, {_number(part['high'], unit)}]"


def _number(value: float, unit: str) -> str:
    form = ".1%" if unit == RELATIVE else ".0f" if unit == "tokens" else ".3f"
    return f"{value:+{form}}".replace("-", "−")


def _margin(row: dict[str, Any]) -> str:
    below_zero = row["direction"] == "below" and row["axis"]

    def size(value: float) -> str:
        shown = f"{value:.0%}" if row["unit"] == RELATIVE else f"{value:g}"
        return f"{'−' if below_zero and value else ''}{shown}"

    paper = f"; {size(row['paper'])}" if row["paper"] is not None else ""
    return f"{row['direction']} {size(row['margin'])}{paper}"


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "<0.001" if value < 0.001 else f"{value:.3f}"

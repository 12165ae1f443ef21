"""claims.md: the verdicts as tables, what is decided first, and how they were reached."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdpg.analysis.diverged import sentences
from sdpg.analysis.results import Results
from sdpg.artefacts.claims.standing import collapsed, distance, effects, grouped, p_value, thresholds_text
from sdpg.artefacts.claims.verdicts import EXPLORATORY, PRIMARY
from sdpg.artefacts.declare import PAPER
from sdpg.artefacts.tables.layout import NONE
from sdpg.markdown import table

HEAD = ("verdict", "claim", "effect [95% interval]", "margin; paper", "p (adjusted)", "collapsed", "axis", "figure", "why")


def markdown(rows: list[dict[str, Any]], results: Results, alpha: float) -> str:
    """Return the rows of claims.json for a reader."""
    lines = [f"# The paper's claims at scale {results.root.name}", "", f"The paper is {PAPER}.", ""]
    for role in (PRIMARY, EXPLORATORY):
        counts = Counter(row["verdict"] for row in rows if row["role"] == role)
        if counts:
            lines.append(f"- {role}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for heading, members in grouped(rows):
        lines += ["", f"## {heading}", "", table(HEAD, map(_cells, members))]
    return "\n".join([*lines, "", _caption(len(results.seeds), alpha) + sentences(results.diverged)]) + "\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    role = f" [{row['role']}]" if row["role"] == PRIMARY else ""
    what = f"{row['id']}. {row['claim']} ({row['source']}; {row['comparison']}){role}"
    cells = (f"**{row['verdict']}**", what, effects(row), thresholds_text(row), p_value(row["p_adjusted"]), collapsed(row))
    return *cells, row["axis"] or NONE, row["figure"] or NONE, "; ".join(filter(None, [row["reason"], distance(row)]))


def _caption(units: int, alpha: float) -> str:
    tested = f"of {units} units (a base model with a seed), paired" if units > 1 else "of one run of each, nothing is tested"
    return (
        f"Effects {tested}. Performance is compared among units whose two runs are healthy; a run has collapsed if its "
        "accuracy ever falls below half of its running maximum or ends below its start, if it diverged, or if the program "
        "stopped it (counts with "
        "exact 95% intervals). Supported: the effect is beyond the margin on the claimed side. Refuted: it is short of "
        "half of the paper's own effect. Open: the data allow both. Not testable here: a stated condition does not hold, "
        "and no run of this kind could decide. Of the primary claims together, and of the exploratory ones together, each "
        f"direction of verdict is wrong at most in {alpha / 2:.1%} of tables (fallback procedure in the order of the file; "
        "Holm); the intervals are not corrected. A claim about every evaluation set is decided by its weakest one, one "
        "about any by its strongest. Rows of the published data are single runs of the paper."
    )

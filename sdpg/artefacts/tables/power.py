"""Seeds that it takes to tell each method from the reference: for the difference seen, and for differences of given sizes."""

from __future__ import annotations

from sdpg.analysis.comparisons import ALPHA
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.power import MOST, POWER, TARGETS
from sdpg.artefacts.tables.layout import Cell, Table, signed

ARTEFACT = TableSpec(reads=lambda files: [*files.made("power"), *files.metrics], place=4)

REFERENCE = "grpo"  # where the config has it, else the first method
NEVER = f">{MOST}"


def build(results: Results) -> Table:
    """Build it; needs power.csv. With one seed the table has no rows and says why."""
    rows = results.power
    reference = REFERENCE if REFERENCE in results.methods else results.methods[0]
    if rows.empty:
        caption = "The number of seeds needed is not known: that takes two methods, and the spread between two seeds."
        return Table(caption, "method", [], [], rows)
    columns, per_method = [], {method: [] for method in results.methods if method != reference}
    for task in results.tasks:
        heads = ("difference", "seeds for it", *(f"for {target:g}" for target in TARGETS))
        columns += [(task, head) for head in heads]
        for method, cells in per_method.items():
            cells += _cells(rows[rows["task"] == task], method, reference)
    caption = (
        f"How many seeds a difference to {reference} takes: for a power of {POWER:.0%} of the paired test at {ALPHA:.0%} "
        "(two-sided, one comparison: correcting for several takes more), if the spread is what the "
        f"{rows['seeds'].iloc[0]} seeds of this scale show, which is itself uncertain. Last accuracy ({results.accuracy}). "
        f"{NEVER}: no number up to {MOST}, since the problems differ as much; it takes more problems."
    )
    return Table(caption, "method", columns, list(per_method.items()), rows)


def _cells(rows, method: str, reference: str) -> list[Cell]:
    forth = rows[(rows["method"] == method) & (rows["other"] == reference)]
    back = rows[(rows["method"] == reference) & (rows["other"] == method)]
    found, sign = (forth, 1) if len(forth) else (back, -1)
    needed = [Cell(NEVER if count != count else f"{int(count)}") for count in found["seeds_needed"]]  # NaN: never
    return [Cell(signed(sign * found["difference"].iloc[0])), *needed]

"""The difference between two methods that so many units can find, alone and as the first of ten comparisons."""

from __future__ import annotations

from sdpg.analysis.intervals import ALPHA
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.power import COMPARISONS, POWER
from sdpg.artefacts.tables.layout import Cell, Table, number

ARTEFACT = TableSpec(reads=lambda files: [*files.made("power"), *files.metrics], place=4)

MEASURE = {"late": "mean of the late checkpoints", "area": "area under the curve"}


def build(results: Results) -> Table:
    """Build it; needs power.csv. With one seed the table has no rows and says why."""
    rows = results.power
    if rows.empty:
        caption = "What difference can be found is not known: that takes two methods, and the spread between two seeds."
        return Table(caption, "measure", [], [], rows)
    units = sorted(rows["units"].unique())
    columns = [(f"{n} units", "alone" if k == 1 else f"first of {k}") for n in units for k in COMPARISONS]
    body = []
    for (task, measure), own in rows.groupby(["task", "measure"], sort=False):
        found = own.set_index(["units", "comparisons"])["detectable"]
        cells = [Cell(number(found[n, k])) for n in units for k in COMPARISONS]
        body.append((f"{task}: {MEASURE[measure]} (SD {number(own['sd'].iloc[0])})", cells))
    caption = (
        f"The smallest difference in accuracy ({results.accuracy}) between two methods that is found with a power of "
        f"{POWER:.0%} at {ALPHA:.0%} (two-sided): by one comparison alone, and by the first of ten. SD: of a healthy run "
        f"about its method and its unit (a base model with a seed), pooled over {rows['methods'].min()} to "
        f"{rows['methods'].max()} methods of which at least half of the {len(results.seeds)} runs are healthy; other "
        "numbers of units are taken to spread alike. The design's power, not that of any difference seen."
    )
    return Table(caption, "measure", columns, body, rows)

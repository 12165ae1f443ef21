"""Which conclusions change with a setting: where each claim is supported, refuted and not decided."""

from __future__ import annotations

from sdpg.analysis.results import Results
from sdpg.analysis.wording import short_name
from sdpg.artefacts.declare import TableSpec
from sdpg.artefacts.sensitivity import CHANGES, VERDICTS, apart_text, read, sentences
from sdpg.artefacts.tables.layout import NONE, Cell, Table

ARTEFACT = TableSpec(reads=lambda files: files.made("sensitivity"), place=0.5, planned=lambda config: bool(config.sensitivity))


def build(results: Results) -> Table:
    """Build it; needs sensitivity.csv and sensitivity_changes.csv."""
    points, changes = read(results)
    columns = [("verdict", f"{name.replace('_', ' ')} at") for name in VERDICTS.values()] + [("together", "conclusion")]
    rows = []
    for row in changes.itertuples():
        label = f"{short_name(row.setting)}: {row.claim} {row.comparison} ({row.what})"
        cells = [Cell(getattr(row, name) or NONE) for name in VERDICTS.values()]
        text = " ".join(filter(None, [row.conclusion, apart_text(row)]))
        rows.append((label, [*cells, Cell(text, bold=row.conclusion == CHANGES)]))
    units = points["runs"].max() if len(points) else len(results.seeds)
    caption = (
        f"Verdicts by the runs at each value, {units} units (base models), as claims.md would have them if it were the scale's "
        "own. Bold: supported at one value and refuted at another. An open verdict is no change: it is not decided there, as "
        f"is common at few units. {sentences(changes, places=False)}"
    )
    return Table(caption, "claim", columns, rows, changes)

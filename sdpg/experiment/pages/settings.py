"""Do the conclusions hang on a setting? The claims of a scale as runs at other values of a setting decide them."""

from __future__ import annotations

import pandas as pd

from sdpg.analysis.results import read_csv
from sdpg.analysis.wording import short_name, value_text
from sdpg.artefacts.claims.standing import effect_text
from sdpg.artefacts.claims.verdicts import PRIMARY
from sdpg.artefacts.sensitivity import ARTEFACT, CHANGES, POINTS, apart_text, read_changes, sentences
from sdpg.experiment.pages.first import how
from sdpg.experiment.pages.read import VARIED, Reference, References, not_run
from sdpg.markdown import table

FIGURE = "figures/sensitivity.png"


def other_settings(references: References, up: str) -> str:
    """Return the primary claims at each value of what the scales of VARIED vary, and in words which claims change."""
    found = {scale: references.get(scale) for scale in VARIED.values()}
    return "\n\n".join(not_run(scale) if of is None else _varied(of, up) for scale, of in found.items())


def _varied(of: Reference, up: str) -> str:
    points = read_csv(of.folder / ARTEFACT.writes[0], POINTS, dtype={"claim": str})
    changes = read_changes(of.folder)
    primary = changes[changes["role"] == PRIMARY]
    tables = [_table(rows, points[points["setting"] == setting]) for setting, rows in primary.groupby("setting", sort=False)]
    place = f"{up}results/reference/{of.scale}/{FIGURE}"
    return (
        f"{how(of)}\n\n{sentences(changes, places=True)}\n\n"
        f"![Figure sensitivity of scale {of.scale}]({place})\n\n"
        f"The primary claims, of all {len(changes)} of `results/reference/{of.scale}/{ARTEFACT.writes[1]}`, with the effect, "
        "its 95% interval and how many runs of either method collapsed:\n\n" + "\n\n".join(tables)
    )


def _table(changes: pd.DataFrame, points: pd.DataFrame) -> str:
    """Return the claims at each value of one setting: a row a claim, a column a value."""
    values = points[["value", "own"]].drop_duplicates().itertuples(index=False)
    head = [f"{value_text(value)}{', the common one' if own else ''}" for value, own in values]
    rows = [_row(row, points[points["claim"] == row.claim]) for row in changes.itertuples()]
    return table([f"claim, by {short_name(points['setting'].iloc[0])}", *head, "so it"], rows)


def _row(change, points: pd.DataFrame) -> list[str]:
    said = f"**{change.conclusion}**" if change.conclusion == CHANGES else change.conclusion
    claim = f"{change.claim} {change.comparison} ({change.what})"
    cells = [_cell(point, change.unit) for point in points.astype(object).where(points.notna(), None).to_dict("records")]
    return [claim, *cells, " ".join(filter(None, [said, apart_text(change)]))]


def _cell(point: dict, unit: str) -> str:
    fell = [point["first_collapsed"], point["second_collapsed"]]
    counts = f"; {' and '.join(f'{int(n or 0)}' for n in fell)} of {point['runs']} collapsed" if any(fell) else ""
    return f"{point['verdict']} {effect_text(point, unit)}{counts}"

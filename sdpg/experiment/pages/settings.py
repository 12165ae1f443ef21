"""Do the conclusions hang on a setting? The claims of a scale as runs at other values of a setting decide them."""

from __future__ import annotations

from sdpg.analysis.wording import short_name
from sdpg.artefacts.claims.verdicts import PRIMARY
from sdpg.artefacts.sensitivity import ARTEFACT, CHANGES, VERDICTS, apart_text, read_changes, sentences
from sdpg.experiment.pages.first import how
from sdpg.experiment.pages.read import VARIED, Reference, References, not_run
from sdpg.markdown import table

HEAD = ["setting", "claim", *(f"{name.replace('_', ' ')} at" for name in VERDICTS.values()), "so it"]
FIGURE = "figures/sensitivity.png"


def other_settings(references: References, up: str) -> str:
    """Return the primary claims at each value of what the scales of VARIED vary, and in words which claims change."""
    found = {scale: references.get(scale) for scale in VARIED.values()}
    return "\n\n".join(not_run(scale) if of is None else _varied(of, up) for scale, of in found.items())


def _varied(of: Reference, up: str) -> str:
    changes = read_changes(of.folder)
    primary = changes[changes["role"] == PRIMARY]
    place = f"{up}results/reference/{of.scale}/{FIGURE}"
    return (
        f"{how(of)}\n\n{sentences(changes, places=True)}\n\n"
        f"![Figure sensitivity of scale {of.scale}]({place})\n\n"
        f"The primary claims, of all {len(changes)} rows of `results/reference/{of.scale}/{ARTEFACT.writes[1]}`:\n\n"
        + table(HEAD, [_row(row) for row in primary.itertuples()])
    )


def _row(row) -> list[str]:
    said = f"**{row.conclusion}**" if row.conclusion == CHANGES else row.conclusion
    claim = f"{row.claim} {row.comparison} ({row.what})"
    values = [getattr(row, name) or "–" for name in VERDICTS.values()]
    return [short_name(row.setting), claim, *values, " ".join(filter(None, [said, apart_text(row)]))]

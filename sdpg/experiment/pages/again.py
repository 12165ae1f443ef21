"""Does it replicate? The verdicts of a reference beside those of a second run, made with other rounding."""

from __future__ import annotations

from pathlib import Path

from sdpg.artefacts.claims.verdicts import REFUTED, SUPPORTED
from sdpg.experiment.pages.read import References, rows_of
from sdpg.experiment.pages.verdicts import effect
from sdpg.io import ROOT, read_json

FOLDER = ROOT / "results" / "replication"  # <scale>/claims.json of the second run, and how.json: how it was made
HEAD = ["", "claim", "verdict", "second run", "effect [95% interval]", "second run"]


def second_run(references: References, up: str, folder: Path = FOLDER) -> str:
    """Return the primary claims of each scale that ran twice, and the other claims whose verdicts differ."""
    parts = []
    for path in sorted(folder.glob("*/claims.json")):
        if (of := references.get(path.parent.name)) is None:
            continue
        how, other = read_json(path.parent / "how.json"), {row["id"]: row for row in read_json(path)}
        said = [row for row in of.claims if row["verdict"] in (SUPPORTED, REFUTED) or row["role"] in ("primary", "exploratory")]
        common = [row for row in said if row["id"] in other and other[row["id"]]["claim"] == row["claim"]]
        primary = [row for row in common if row["role"] == "primary"]
        differ = [row for row in common if row["role"] != "primary" and row["verdict"] != other[row["id"]]["verdict"]]
        same = [row for row in primary if row["verdict"] == other[row["id"]]["verdict"]]
        decided = [row for row in same if row["verdict"] in (SUPPORTED, REFUTED)]
        rest = "; ".join(f"{row['id']} is {row['verdict']}, in the second run {other[row['id']]['verdict']}" for row in differ)
        parts.append(
            f"Scale `{path.parent.name}` ran a second time ({how['date']}, commit {how['commit']}, `{how['command']}`; "
            f"{how['differs']}; scale {how['scale']}). Of {len(primary)} primary claims **{len(same)} have the same verdict, "
            f"{len(decided)} of them decided**. "
            f"Of {len(common) - len(primary)} others {len(differ)} with another one{': ' + rest if rest else ''}.\n\n"
            + rows_of(HEAD, [_row(row, other[row["id"]]) for row in primary])
        )
    return "\n\n".join(parts) or "A second run of a scale that has a reference: not run yet."


def _row(row: dict, other: dict) -> list[str]:
    return [row["id"], row["claim"], f"**{row['verdict']}**", f"**{other['verdict']}**", effect(row), effect(other)]

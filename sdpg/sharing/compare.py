"""Comparing a run with an archive that someone else has made of theirs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sdpg.analysis.outcome import IDENTITY, outcome_of, read_outcome
from sdpg.analysis.reference import FOLDER, Agreement, agreement
from sdpg.analysis.results import Results
from sdpg.sharing.unpack import unpack


def compare_with(results: Results, archive: Path, reference: Path | None = None) -> Agreement:
    """Compare finished results with an archive of `sdpg archive`; without results, the archive with the committed reference.

    reference: another folder than the scale's. Raises ValueError for an archive that is not read, and if there is nothing to
    compare it with.
    """
    here = any(results.root.glob("eval/*/*/*.parquet"))
    if here and reference is not None:
        raise ValueError(f"--reference and --with: the results in {results.root} are compared with one of them; leave one out")
    reference = reference or FOLDER / results.name
    with tempfile.TemporaryDirectory() as made:
        name = unpack(archive, Path(made))
        theirs = read_outcome(Path(made), archive.name)
    notes = [f"{archive.name} is of scale {name}, not {results.name}"] if name != results.name else []
    if here:
        found = agreement(outcome_of(results), theirs, archive.name)
    elif (reference / IDENTITY).is_file():
        found = agreement(theirs, read_outcome(reference))
        notes.append(f"there are no results in {results.root}: `here` is {archive.name}, compared with {reference}")
    else:
        raise ValueError(
            f"there is nothing to compare {archive.name} with: no results in {results.root}, no reference in {reference}; run "
            "`make reproduce` at its scale first"
        )
    found.notes[:0] = notes
    return found

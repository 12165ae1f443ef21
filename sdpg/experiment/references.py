"""Making a scale's results the committed reference, and saying of those that are committed whether they are stale."""

from __future__ import annotations

from sdpg.analysis.reference import FOLDER, make_reference
from sdpg.analysis.results import Results
from sdpg.artefacts.manifest import DATABASE, read_manifest
from sdpg.config import Config
from sdpg.provenance.made import made
from sdpg.provenance.standing import references, standing
from sdpg.provenance.verify import summary, verify


def make(results: Results, config: Config) -> int:
    """Copy the small outcome to results/reference, if code and config made it -> 1 if not, and nothing was done."""
    manifest = read_manifest(results.root)
    if found := verify(results.root, config):
        print(summary(found, manifest) + "The reference stays as it is.")
        return 1
    how = made(results.root, results.name, manifest, results.root.parent / DATABASE)
    files = make_reference(results, FOLDER / results.name, manifest["files"], how.model_dump())
    size = sum(path.stat().st_size for path in files)
    print(f"{FOLDER / results.name}: {len(files)} files, {size / 1e6:.2f} MB. Look at them, run `sdpg docs`, then commit both.")
    if len(how.commits) != 1 or how.commits[0].endswith("-dirty"):
        print(f"note: made at {' and '.join(how.commits) or 'an unknown commit'}, not at one commit as it was committed")
    return 0


def check(scale: str | None) -> int:
    """Print a line for each reference, or for one and what has changed -> 1 if any is stale."""
    there = references(FOLDER)
    if scale and FOLDER / scale not in there:
        names = ", ".join(folder.name for folder in there) or "none"
        raise ValueError(f"there is no reference of scale {scale!r} in {FOLDER}; there are: {names}")
    found = [standing(folder) for folder in ([FOLDER / scale] if scale else there)]
    for of in found:
        print(of.line)
        rows = sorted({f"  {one.kind}: {one.detail}" for one in of.details}) if scale else []
        print("".join(f"{row}\n" for row in rows), end="")
    return 0 if all(of.current for of in found) else 1

"""Make a scale's results the committed reference, results/reference/<name>, if they match their manifest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.reference import FOLDER, make_reference
from sdpg.artefacts.manifest import read_manifest
from sdpg.cli import finished_from, parser, run
from sdpg.provenance.verify import summary, verify


def main(argv: list[str] | None = None) -> int:
    """Command line: --scale NAME --set key=value --results DIR."""
    results, config = finished_from(parser(__doc__, results=True).parse_args(argv))
    manifest = read_manifest(results.root)
    if found := verify(results.root, config):
        print(summary(found, manifest) + "The reference stays as it is.")
        return 1
    folder = FOLDER / results.name
    files = make_reference(results, folder, manifest["files"])
    size = sum(path.stat().st_size for path in files)
    print(f"{folder}: {len(files)} files, {size / 1e6:.2f} MB. Look at them, then commit them.")
    return 0


if __name__ == "__main__":
    run(main)

"""Say which artefacts do not match results/<name>/manifest.json, or the code and config at hand; exit code 1 if any.

The config at hand is the scale's file with the overrides that the results were made with, and --set on top.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.manifest import read_manifest
from sdpg.cli import finished_from, parser, run
from sdpg.provenance.verify import summary, verify


def main(argv: list[str] | None = None) -> int:
    """Command line: --scale NAME --set key=value --results DIR."""
    args = parser(__doc__, results=True).parse_args(argv)
    results, config = finished_from(args)
    found = verify(results.root, config)
    print(summary(found, read_manifest(results.root)), end="")
    return 1 if found else 0


if __name__ == "__main__":
    run(main)

"""Make a scale's results the committed reference, results/reference/<name>, if they match their manifest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.reference import FOLDER, make_reference
from sdpg.analysis.results import Results
from sdpg.cli import config_from, parser, run
from sdpg.config import parse_overrides, resolve
from sdpg.manifest import read_manifest
from sdpg.verification import summary, verify


def main(argv: list[str] | None = None) -> int:
    """Command line: --scale NAME --set key=value."""
    args = parser(__doc__).parse_args(argv)
    root = Path("results") / config_from(args)["name"]
    manifest = read_manifest(root)
    config = resolve(args.scale, manifest.get("overrides", {}) | parse_overrides(args.overrides))
    if found := verify(root, config):
        print(summary(found, manifest) + "The reference stays as it is.")
        return 1
    files = make_reference(Results.from_config(config), FOLDER / root.name)
    size = sum(path.stat().st_size for path in files)
    print(f"{FOLDER / root.name}: {len(files)} files, {size / 1e6:.2f} MB. Look at them, then commit them.")
    return 0


if __name__ == "__main__":
    run(main)

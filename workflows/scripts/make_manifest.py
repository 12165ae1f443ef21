"""Write results/<name>/manifest.json: every artefact with its hash, the job that made it, and that job's inputs and code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.manifest import make_manifest
from sdpg.cli import config_from, parser, run, snakemake_command
from sdpg.config import parse_overrides
from sdpg.provenance import git_commit


def main(argv: list[str] | None = None) -> None:
    """Command line: TARGET ... --scale NAME --set key=value."""
    options = parser(__doc__)
    options.add_argument("--database", type=Path, default=Path("results/.snakemake.db"), help="Snakemake's records")
    options.add_argument(
        "targets", nargs="+", metavar="TARGET", help="files of the results, as the workflow names them"
    )
    args = options.parse_args(argv)
    overrides = parse_overrides(args.overrides)
    header = {
        "scale": args.scale,
        "overrides": overrides,
        "command": snakemake_command(args.scale, overrides),
        "git_commit": git_commit(),
    }
    make_manifest(Path("results") / config_from(args)["name"], args.targets, args.database, header)


if __name__ == "__main__":
    run(main)

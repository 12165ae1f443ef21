"""Score the trials of a sweep and choose each method's settings: results/<scale>/sweep/tuned.yaml and tuned.csv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run


def main() -> None:
    """Parse the command line, choose, and say what was chosen."""
    args = parser(__doc__, results=True).parse_args()
    config = config_from(args)
    if config["sweep"] is None:
        raise ValueError(f"scale {config['name']!r} has no block `sweep`; one that has: cpu-sweep")

    from sdpg.analysis.results import Results
    from sdpg.artefacts.tuning import write_tuning

    results = Results.from_config(config, args.results)
    paths = write_tuning(results, config["sweep"], results.root / "sweep")
    print(paths[0].read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    run(main)

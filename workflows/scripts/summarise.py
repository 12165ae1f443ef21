"""Make one summary of the scores and runs: results/<name>/stability.csv, cost.csv or decomposition.csv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.results import Results
from sdpg.analysis.summaries import SUMMARIES, make
from sdpg.cli import config_from, parser, run


def main(argv: list[str] | None = None) -> None:
    """Command line: SUMMARY --scale NAME --set key=value."""
    options = parser(__doc__)
    options.add_argument("summary", choices=SUMMARIES)
    args = options.parse_args(argv)
    make(args.summary, Results.from_config(config_from(args)))


if __name__ == "__main__":
    run(main)

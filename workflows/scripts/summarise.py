"""Make one summary of the scores and runs: results/<name>/stability.csv, cost.csv or decomposition.csv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.summaries import SUMMARIES, make
from sdpg.cli import parser, results_from, run


def main(argv: list[str] | None = None) -> None:
    """Command line: SUMMARY --scale NAME --set key=value --results DIR."""
    options = parser(__doc__, results=True)
    options.add_argument("summary", choices=SUMMARIES)
    args = options.parse_args(argv)
    make(args.summary, results_from(args))


if __name__ == "__main__":
    run(main)

"""Gather every run's evaluation into results/<name>/scores.csv, intervals.csv and comparisons.csv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.scores import write_scores
from sdpg.cli import parser, results_from, run


def main(argv: list[str] | None = None) -> None:
    """Command line: --scale NAME --set key=value --results DIR."""
    args = parser(__doc__, results=True).parse_args(argv)
    write_scores(results_from(args))


if __name__ == "__main__":
    run(main)

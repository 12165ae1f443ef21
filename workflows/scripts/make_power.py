"""Say how many seeds would tell two methods apart: results/<name>/power.csv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.power import write_power
from sdpg.cli import parser, results_from, run


def main(argv: list[str] | None = None) -> None:
    """Command line: --scale NAME --set key=value --results DIR."""
    args = parser(__doc__, results=True).parse_args(argv)
    write_power(results_from(args))


if __name__ == "__main__":
    run(main)

"""Draw one figure: results/<name>/figures/<figure>.pdf, .png, and .csv with the numbers that it shows."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.figures import FIGURES, make
from sdpg.cli import parser, results_from, run


def main(argv: list[str] | None = None) -> None:
    """Command line: FIGURE --scale NAME --set key=value --results DIR."""
    options = parser(__doc__, results=True)
    options.add_argument("figure", choices=FIGURES)
    args = options.parse_args(argv)
    make(args.figure, results_from(args))


if __name__ == "__main__":
    run(main)

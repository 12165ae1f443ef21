"""Draw one figure: results/<name>/figures/<figure>.pdf, .png, and .csv with the numbers that it shows."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.results import Results
from sdpg.cli import config_from, parser, run
from sdpg.figures import FIGURES, make


def main(argv: list[str] | None = None) -> None:
    """Command line: FIGURE --scale NAME --set key=value."""
    options = parser(__doc__)
    options.add_argument("figure", choices=FIGURES)
    args = options.parse_args(argv)
    make(args.figure, Results.from_config(config_from(args)))


if __name__ == "__main__":
    run(main)

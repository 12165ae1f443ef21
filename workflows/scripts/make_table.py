"""Make one table: results/<name>/tables/<table>.md, .tex, and .csv with the unrounded numbers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.tables import TABLES, make
from sdpg.cli import parser, results_from, run


def main(argv: list[str] | None = None) -> None:
    """Command line: TABLE --scale NAME --set key=value --results DIR."""
    options = parser(__doc__, results=True)
    options.add_argument("table", choices=TABLES)
    args = options.parse_args(argv)
    make(args.table, results_from(args))


if __name__ == "__main__":
    run(main)

"""Make one table: results/<name>/tables/<table>.md, .tex, and .csv with the unrounded numbers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.analysis.results import Results
from sdpg.analysis.tables import TABLES, make
from sdpg.cli import config_from, parser, run


def main(argv: list[str] | None = None) -> None:
    """Command line: TABLE --scale NAME --set key=value."""
    options = parser(__doc__)
    options.add_argument("table", choices=TABLES)
    args = options.parse_args(argv)
    make(args.table, Results.from_config(config_from(args)))


if __name__ == "__main__":
    run(main)

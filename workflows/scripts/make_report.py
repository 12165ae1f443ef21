"""Write results/<name>/report.html, one self-contained page: verdicts, figures, tables, configurations, cost and files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.report import make_report
from sdpg.cli import parser, results_from, run, snakemake_command
from sdpg.config import parse_overrides


def main(argv: list[str] | None = None) -> None:
    """Command line: --scale NAME --set key=value --results DIR."""
    args = parser(__doc__, results=True).parse_args(argv)
    make_report(results_from(args), command=snakemake_command(args.scale, parse_overrides(args.overrides)))


if __name__ == "__main__":
    run(main)

"""Put the paper's claims (config/claims.yaml) to the results: results/<name>/claims.json and claims.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.artefacts.claims import write_claims
from sdpg.cli import parser, results_from, run


def main(argv: list[str] | None = None) -> None:
    """Command line: --scale NAME --set key=value --results DIR; prints the verdicts."""
    args = parser(__doc__, results=True).parse_args(argv)
    _, table = write_claims(results_from(args))
    print(table.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    run(main)

"""Compare a run with the committed reference of its scale, within sampling error; exit code 1 if any score or claim differs.

Methods and seeds are those that the results were made with, and --set on top.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import finished_from, parser, run


def main(argv: list[str] | None = None) -> int:
    """Command line: --scale NAME --set key=value --results DIR --reference DIR."""
    options = parser(__doc__, results=True)
    options.add_argument("--reference", type=Path, metavar="DIR", help="default: results/reference/NAME")
    args = options.parse_args(argv)
    results, _ = finished_from(args)

    from sdpg.analysis.reference import FOLDER, compare

    agreement = compare(results, args.reference or FOLDER / results.name)
    print(agreement.headline)
    print("p_holm: corrected for all of these comparisons; a difference counts where it is 0.05 or less.\n")
    print(agreement.rows.drop(columns="p").to_string(index=False, float_format="{:.3f}".format))
    print("".join(f"\nnote: {note}" for note in agreement.notes))
    return 0 if agreement.holds else 1


if __name__ == "__main__":
    run(main)

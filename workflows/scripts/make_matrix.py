"""Set scales side by side: results/cpu-matrix/matrix.md, .csv and the figure matrix.png, .pdf."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import parser, run
from sdpg.config import parse_overrides, resolve


def main() -> None:
    """Parse the command line, and write the table and the figure."""
    p = parser(__doc__)
    p.add_argument("--cells", nargs="+", required=True, metavar="SCALE", help="finished scales, in the order to show")
    args = p.parse_args()
    overrides = parse_overrides(args.overrides)

    from sdpg.analysis.results import Results
    from sdpg.artefacts.figures import style
    from sdpg.artefacts.figures.matrix import CAPTION, draw
    from sdpg.artefacts.matrix import matrix, write_matrix

    cells = [Results.from_config(resolve(cell, overrides)) for cell in args.cells]
    folder = Path("results") / "cpu-matrix"
    _, table = write_matrix(matrix(cells), folder)
    figure, _ = draw(cells)
    style.save_pictures(figure, folder, "matrix", CAPTION)
    print(table.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    run(main)

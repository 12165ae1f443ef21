"""Several scales side by side: the last checkpoint of every method in each, and how many of its seeds collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sdpg.analysis.diverged import sentences
from sdpg.analysis.results import Results
from sdpg.artefacts import write_csv
from sdpg.artefacts.declare import AcrossSpec
from sdpg.artefacts.figures import cells as picture
from sdpg.artefacts.figures import style
from sdpg.artefacts.figures.names import label
from sdpg.artefacts.stability import collapses
from sdpg.io import write_atomic

ARTEFACT = AcrossSpec(
    about="last checkpoints of every method in every cell",
    reads=lambda files: [*files.made("scores")[:2], *files.metrics, *files.records],
    writes=("matrix.md", "matrix.csv", "matrix_points.csv", "matrix.pdf", "matrix.png"),
    caption=(
        "Accuracy of the last checkpoint of every method in every cell of the matrix, on every set (large marker: mean; "
        "bar: 95% interval, bootstrap over seeds and problems; open circles: single seeds; dotted line: the base model). "
        "Teacher's bias: how often a hinted demonstration of the warm start skips a step; rate: what every method's learning "
        "rate is multiplied by. Where the cells are every pair of the two, they are the margins."
    ),
    shown="png",
    category="Figures",
)
COLUMNS = ["cell", "task", "method", "step", "mean", "low", "high", "seeds", "collapsed"]


def matrix(cells: Sequence[Results]) -> pd.DataFrame:
    """Return a row for each cell, task and method: last accuracy with its interval; collapsed: seeds that ever fell
    below half of their running maximum, ended below their start, diverged or were stopped.

    Raises ValueError for missing scores, and for a method without an interval.
    """
    rows = []
    for results in cells:
        scores = results.scores[results.scores["metric"] == results.accuracy]
        for task in results.tasks:
            for method in results.methods:
                own = scores[(scores["task"] == task) & (scores["method"] == method)]
                if own.empty:
                    raise ValueError(f"{results.root / 'scores.csv'} has no {results.accuracy} of {method} on {task}")
                step = int(own["step"].max())
                table = own.pivot(index="seed", columns="step", values="value")
                mean, low, high = _interval(results, task, method, step)
                fell = int(collapses(results, method, task).ever.sum())
                rows.append((results.root.name, task, method, step, mean, low, high, len(table), fell))
    return pd.DataFrame(rows, columns=COLUMNS)


def make(cells: Sequence[Results], folder: Path) -> None:
    """Write matrix.csv, matrix.md with one table per task (methods by cells), and the picture with matrix_points.csv, what is
    drawn in it.
    """
    frame = matrix(cells)
    write_csv(frame, folder / "matrix.csv")
    with write_atomic(folder / "matrix.md") as file:
        file.write("\n".join(_markdown(task, rows) for task, rows in frame.groupby("task", sort=False)))
        for results in cells:
            if said := sentences(results.diverged):
                file.write(f"\n{results.root.name}:{said}\n")
    figure, points = draw(cells)
    write_csv(points, folder / "matrix_points.csv")
    style.save_pictures(figure, folder, "matrix", ARTEFACT.caption)


def _interval(results: Results, task: str, method: str, step: int) -> tuple[float, float, float]:
    found = results.intervals.query(
        "task == @task and method == @method and metric == @results.accuracy and selection == 'step' and step == @step"
    )
    if len(found) != 1:
        raise ValueError(
            f"{results.root / 'intervals.csv'}: expected one row for {results.accuracy} of {method} on {task} at step {step}, "
            f"got {len(found)}; make it again together with scores.csv"
        )
    return tuple(found[["mean", "low", "high"]].iloc[0])


def _markdown(task: str, rows: pd.DataFrame) -> str:
    cells = list(dict.fromkeys(rows["cell"]))
    lines = [
        f"**{task}**: accuracy of the last checkpoint, mean over seeds with its interval; in brackets, the seeds "
        "that collapsed (ever fell below half of their running maximum, ended below their start, diverged or were stopped).\n",
        "| method | " + " | ".join(cells) + " |",
        "|---" * (len(cells) + 1) + "|",
    ]
    for method, of in rows.groupby("method", sort=False):
        by_cell = of.set_index("cell")
        texts = [_cell(by_cell.loc[cell]) if cell in by_cell.index else "-" for cell in cells]
        lines.append(f"| {label(method)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: pd.Series) -> str:
    fallen = f" ({row['collapsed']} of {row['seeds']})" if row["collapsed"] else ""
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{fallen}"


def draw(cells: Sequence[Results]) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs scores.csv, intervals.csv and run.json of each cell. The frame: a row per drawn point (cells.POINTS)."""
    return picture.draw(cells, matrix(cells))

"""The matrix in one picture: last accuracy of every method, a panel for each cell."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.intervals import interval_name
from sdpg.analysis.results import Results
from sdpg.artefacts.figures import style
from sdpg.artefacts.matrix import matrix

CAPTION = (
    "Accuracy of the last checkpoint of every method in every cell of the matrix, on the first set (large marker: mean; "
    "bar: 95% interval, bootstrap over seeds and problems; open circles: single seeds; dotted line: where the runs started)."
)
COLUMNS = ["part", "cell", "method", "seed", "value", "low", "high"]


def draw(cells: Sequence[Results]) -> tuple[Figure, pd.DataFrame]:
    """Needs scores.csv and intervals.csv of each cell; shows the first evaluation set. The frame: a row per drawn point."""
    task = cells[0].tasks[0]
    frame = matrix(cells).query("task == @task")
    styles = style.method_styles(dict.fromkeys(frame["method"]))
    height = 1.0 + 0.26 * len(styles)
    figure, axes = style.panel_grid(len(cells), columns=2, panel=(4.3, height))
    rows = []
    for ax, results in zip(axes, cells, strict=True):
        rows += _panel(ax, results, frame[frame["cell"] == results.root.name], task, styles)
    seeds = max(len(results.seeds) for results in cells)
    marks = [
        Line2D(
            [], [], color=style.GREY, marker="o", linewidth=1.8, markersize=6, label=f"mean and {interval_name(seeds)}"
        ),
        style.seed_handle(),
        Line2D([], [], color=style.GREY, linestyle=":", label="before training"),
    ]
    style.legend_below(figure, marks)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _panel(ax: Axes, results: Results, frame: pd.DataFrame, task: str, styles: dict[str, style.Style]) -> list[tuple]:
    cell, rows = results.root.name, []
    scores = results.scores.query("metric == @results.accuracy and task == @task")
    start = scores[scores["step"] == scores["step"].min()]["value"].mean()
    ax.axvline(start, color=style.GREY, linestyle=":", linewidth=1, zorder=0)
    rows.append(("start", cell, None, None, start, None, None))
    for y, (method, look) in enumerate(styles.items()):
        for _, row in frame[frame["method"] == method].iterrows():
            points = scores.query("method == @method and step == @row.step")
            style.interval_row(ax, y, row["mean"], row["low"], row["high"], points["value"], look)
            rows.append(("last", cell, method, None, row["mean"], row["low"], row["high"]))
            rows += [("seed", cell, method, int(p["seed"]), p["value"], None, None) for _, p in points.iterrows()]
    style.method_rows(ax, styles)
    ax.set_xlim(-0.03, 1)
    style.set_title(ax, cell)
    ax.set_xlabel(f"{task}: {results.accuracy} (fraction)")
    return rows

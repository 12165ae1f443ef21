"""The result in one picture: learning curves and, beside each, the accuracy of the last checkpoint with seeds and interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.intervals import RANGE_NAME, interval_name, seed_range
from sdpg.analysis.results import Results, pivot_seeds
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("scores"), *files.metrics],
    place=1,
    caption=(
        "Accuracy by training step (lines: mean over seeds; bands: range over seeds; of more than six methods, "
        "those of the paper's tables) and accuracy of the last checkpoint of every method (large marker: mean; bar: "
        "95% interval, bootstrap over seeds and problems; open circles: single seeds). The methods share the "
        "evaluation problems, so intervals that overlap do not rule out a difference."
    ),
)
COLUMNS = ["part", "task", "method", "seed", "step", "value", "low", "high"]


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs scores.csv and intervals.csv. The frame's parts: curve (line and band), last (mean and interval), seed
    (points).
    """
    styles = style.method_styles(results.methods)
    rows_of_panels = len(results.tasks)
    height = max(2.6, 1.1 + 0.26 * len(styles))
    figure, axes = style.panel_grid(2 * rows_of_panels, columns=2, panel=(4.3, height))
    rows = []
    for i, task in enumerate(results.tasks):
        curve, last = axes[2 * i], axes[2 * i + 1]
        curves = style.readable(styles)
        for method, look in curves.items():
            rows += _curve(curve, results, task, method, look, len(curves))
        rows += _last(last, results, task, styles)
        style.finish(curve, f"{task}: during training", f"{results.accuracy} (fraction)", ymin=0)
    marks = [
        *style.band_handles(RANGE_NAME, len(results.seeds)),
        Line2D(
            [],
            [],
            color=style.GREY,
            marker="o",
            linewidth=1.8,
            markersize=6,
            label=f"mean and {interval_name(len(results.seeds))}",
        ),
        style.seed_handle(),
    ]
    style.legend_below(figure, style.method_handles(styles), marks)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _seed_table(results: Results, task: str, method: str) -> pd.DataFrame:
    chosen = results.scores.query("method == @method and task == @task and metric == @results.accuracy")
    what = f"{results.root / 'scores.csv'}, {results.accuracy} of {method} on {task}"
    if chosen.empty:
        raise ValueError(f"{what}: no rows; make scores.csv again from this config")
    return pivot_seeds(chosen, "value", what)


def _curve(ax: Axes, results: Results, task: str, method: str, look: style.Style, methods: int) -> list[tuple]:
    table = _seed_table(results, task, method)
    mean, low, high = seed_range(table.to_numpy().T)
    style.band(ax, table.index, low, high, look, methods)
    style.line(ax, table.index, mean, look)
    return [("curve", task, method, None, *point) for point in zip(table.index, mean, low, high, strict=True)]


def _last(ax: Axes, results: Results, task: str, styles: dict[str, style.Style]) -> list[tuple]:
    rows = []
    intervals = results.intervals.query("task == @task and metric == @results.accuracy and selection == 'step'")
    step = 0
    for y, (method, look) in enumerate(styles.items()):
        table = _seed_table(results, task, method)
        step = int(table.index[-1])
        interval = intervals.query("method == @method and step == @step")
        if len(interval) != 1:
            raise ValueError(
                f"{results.root / 'intervals.csv'}: expected one row for {results.accuracy} of {method} on {task} at step "
                f"{step}, got {len(interval)}; make it again together with scores.csv"
            )
        mean, low, high = interval[["mean", "low", "high"]].iloc[0]
        points = table.iloc[-1]
        style.interval_row(ax, y, mean, low, high, points, look)
        rows.append(("last", task, method, None, step, mean, low, high))
        rows += [("seed", task, method, seed, step, value, None, None) for seed, value in points.items()]
    style.method_rows(ax, styles)
    style.set_title(ax, f"last checkpoint (step {step})")
    ax.set_xlabel(f"{results.accuracy} (fraction)")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    return rows

"""The result in one picture: learning curves and, beside each, the accuracy of the last checkpoint with seeds and interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.intervals import interval_name
from sdpg.analysis.results import Results, pivot_seeds
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import lines, style
from sdpg.artefacts.figures.names import BASE

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("scores"), *files.metrics],
    place=1,
    caption=(
        "Accuracy by training step (bold lines: mean over seeds; thin lines: single seeds; of more than six methods, "
        "those of the paper's tables) and accuracy of the last checkpoint of every method (marker: mean; bar: "
        "95% interval, bootstrap over seeds and problems; open circles: single seeds). Dotted: the base model, before "
        "training. The methods share the evaluation problems, so intervals that overlap do not rule out a difference."
    ),
)
COLUMNS = ["part", "task", "method", "seed", "step", "value", "low", "high"]
ROW, HEAD = 0.2, 0.62  # inches: one method's row of the dot plot, what a panel has above and below them


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs scores.csv and intervals.csv. The frame's parts: curve (mean), run (a seed's thin line), last (mean and
    interval), seed (points), base (the base model).
    """
    styles = style.method_styles(results.methods)
    curves = style.readable(styles)
    height = max(1.9, HEAD + ROW * style.row_lines(styles) * len(styles))
    figure, axes = style.panel_grid(2 * len(results.tasks), panel=(style.WIDTH / 2, height))
    rows, ends = [], {}
    for task, curve, last in zip(results.tasks, axes[::2], axes[1::2], strict=True):
        means = {}
        for method, look in curves.items():
            table = _seed_table(results, task, method)
            rows += [
                ("curve" if seed is None else "run", task, method, seed, step, value, None, None)
                for seed, step, value in lines.runs(curve, table, look)
            ]
            means[method] = (table.index[-1], table.iloc[-1].mean())
        rows += _last(last, results, task, styles)
        base = lines.base_accuracy(results, task)
        rows += [("base", task, BASE, None, 0, base, None, None)] if base == base else []
        style.finish(curve, f"{task}: during training", f"{results.accuracy} (fraction)")
        for ax, axis in ((curve, "y"), (last, "x")):
            lines.base_level(ax, base, axis)
            style.from_zero(ax, axis)
        ends[curve] = [lines.End(*means[method], look.label, look.color) for method, look in curves.items()]
    dot = Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", markersize=4.2, linewidth=1.4)
    dot.set_label(f"mean and {interval_name(len(results.seeds))}")
    seeds = [style.seed_handle()] if len(results.seeds) > 1 else []
    style.legend_below(figure, lines.handles(len(results.seeds)), [dot, *seeds])
    lines.name_ends(figure, ends)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _seed_table(results: Results, task: str, method: str) -> pd.DataFrame:
    chosen = results.scores.query("method == @method and task == @task and metric == @results.accuracy")
    what = f"{results.root / 'scores.csv'}, {results.accuracy} of {method} on {task}"
    if chosen.empty:
        raise ValueError(f"{what}: no rows; make scores.csv again from this config")
    return pivot_seeds(chosen, "value", what)


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

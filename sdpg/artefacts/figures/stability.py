"""Stability of every method at a glance: a cell for each metric, with its mean, every seed, and a shade where it is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style
from sdpg.artefacts.stability import METRICS, read, text

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("stability"), *files.metrics],
    place=3,
    caption=(
        "Stability of training. Each cell: mean over seeds (number) and the single seeds (circles, from the "
        "column's smallest value on the left to its largest on the right). The darker the shade, the further the "
        "mean is from the column's best method in the bad direction; columns without a bad direction are not shaded "
        "(low entropy or few informative groups are also what a solved task looks like). A dash: the method has no "
        "such number. Definitions: docs/metrics.md."
    ),
)
COLUMNS = ["task", "metric", "method", "seed", "value", "shade"]
SHOWN = (  # the metrics of training, of two that say nearly the same one; the table has them all
    *("entropy_floor", "entropy_slope", "length_floor", "truncated_max", "gradient_spikes"),
    *("kl_ref_last", "logprob_gap_max", "informative_last", "gate_fraction"),
)
ON_SETS = ("last_minus_best", "drawdown", "collapsed", "seed_spread")  # likewise of accuracy
BAD = "#d55e00"
DEEPEST = 0.6  # opacity of a full shade: black text stays readable
ROW, HEAD = 0.33, 1.05  # inches: a method's row, what a block has above and below its rows
CELLS, LETTER = 8.9, 0.075  # inches: all cells of a line, one letter of a method's name


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs stability.csv. The frame: every circle (with its seed), and every number (without), with its shade of
    0..1.
    """
    frame = read(results)
    styles = style.method_styles(results.methods)
    blocks = [(task, ON_SETS) for task in results.tasks]
    lines = [blocks[i : i + 2] for i in range(0, len(blocks), 2)] + [[(None, SHOWN)]]
    height = HEAD + ROW * len(styles)
    width = CELLS + LETTER * max(len(look.label) for look in styles.values())
    figure = Figure(figsize=(width, height * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.07)
    grid = figure.add_gridspec(len(lines), 2)
    rows = []
    for i, line in enumerate(lines):
        beside = None
        for j, (task, metrics) in enumerate(line):
            place = grid[i, j] if len(line) > 1 else grid[i, :]
            ax = figure.add_subplot(place, sharey=beside)
            beside = ax
            rows += _block(ax, frame, task, metrics, styles)
            ax.tick_params(axis="y", labelleft=j == 0)
            style.set_title(ax, f"accuracy: {task}" if task else "training")
    style.legend_below(figure, _marks())
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def shades(metric: str, means: Sequence[float]) -> np.ndarray:
    """Return how bad each method's mean is, 0..1: its distance from the best one over the largest distance, or over the
    metric's span if that is larger, so that differences without importance stay light. 0 without a bad direction or a
    value.
    """
    means = np.asarray(means, dtype=float)
    bad = METRICS[metric].bad
    if bad is None or np.isnan(means).all():
        return np.zeros(len(means))
    distance = means - np.nanmin(means) if bad == "high" else np.nanmax(means) - means
    return np.nan_to_num(distance / max(np.nanmax(distance), METRICS[metric].span))


def _block(ax: Axes, frame: pd.DataFrame, task: str | None, metrics: Sequence[str], styles: Mapping) -> list[tuple]:
    own = frame[frame["task"] == task] if task else frame[frame["task"].isna()]
    rows = []
    for x, metric in enumerate(metrics):
        values = own[own["metric"] == metric]
        means = [values[values["method"] == method]["value"].mean() for method in styles]
        low, high = values["value"].min(), values["value"].max()
        for y, (method, mean, shade) in enumerate(zip(styles, means, shades(metric, means), strict=True)):
            seeds = values[(values["method"] == method) & values["seed"].notna() & values["value"].notna()]
            _cell(ax, x, y, mean, shade, (seeds["value"] - low) / ((high - low) or 1), styles[method].color)
            rows.append((task, metric, method, None, mean, shade))
            rows += [(task, metric, method, seed, value, None) for seed, value in seeds[["seed", "value"]].to_numpy()]
    style.method_rows(ax, styles)
    ax.set(xlim=(0, len(metrics)), ylim=(len(styles) - 0.5, -0.5))
    ax.set_xticks(np.arange(len(metrics)) + 0.5, [_heading(metric) for metric in metrics], fontsize=8)
    ax.set_xlabel("over the checkpoints" if task else "over the training steps (no bad direction: it depends on the accuracy)")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return rows


def _cell(ax: Axes, x: int, y: int, mean: float, shade: float, places: pd.Series, color: str) -> None:
    """Draw one cell. places: where the seeds lie between the smallest and the largest value of the column, 0..1."""
    box = Rectangle((x, y - 0.5), 1, 1, facecolor=BAD, alpha=DEEPEST * shade, linewidth=0, label="_shade")
    ax.add_patch(box)
    ax.add_patch(Rectangle((x, y - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.5))
    ax.text(x + 0.5, y - 0.14, text(mean), ha="center", va="center", fontsize=8)
    circles = {"linestyle": "none", "marker": "o", "fillstyle": "none", "markersize": 3.2, "markeredgewidth": 0.8}
    if len(places):
        ax.plot(x + 0.1 + 0.8 * places, [y + 0.27] * len(places), color=color, label="_seeds", **circles)


def _heading(metric: str) -> str:
    about = METRICS[metric]
    return f"{about.label}\n({about.unit})\n" + (f"bad: {about.bad}" if about.bad else "")


def _marks() -> list:
    shade = [Patch(facecolor=BAD, alpha=DEEPEST * part) for part in (0.2, 0.6, 1.0)]
    labels = ("near the best method", "further away", "furthest in the bad direction")
    for patch, label in zip(shade, labels, strict=True):
        patch.set_label(label)
    return [style.seed_handle(), *shade]

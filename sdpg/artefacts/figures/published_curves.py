"""The paper's own curves (Figure 3, Qwen3-4B) in the layout of our training curves, with Table 1's Last and Best."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import PAPER, PUBLISHED_CURVES, PUBLISHED_TABLES, FigureSpec, nothing
from sdpg.artefacts.figures import lines, style

ARTEFACT = FigureSpec(
    reads=lambda files: [PUBLISHED_CURVES, PUBLISHED_TABLES],
    place=13,
    uses=nothing,
    caption=(
        f"The published training curves of Qwen3-4B (Figure 3 of {PAPER}, read off its vector drawing; "
        "single runs, no intervals given). Right of the axis break, apart from the steps: Table 1's Last (step 400), one "
        "beside the other; stars are its Best, at the step where the curve peaks."
    ),
)
COLUMNS = ["panel", "method", "step", "value", "mark"]
BENCHMARKS = {"aime24": "AIME24", "aime25": "AIME25", "amc23": "AMC23"}
TRAINING = {
    "reward": ("training reward", "reward per response"),
    "entropy": ("policy entropy", "entropy (nats per token)"),
    "response_length": ("response length", "mean length (tokens)"),
}
FIGURE, TABLE = "fig3", 1
TITLE = f"Published: Qwen3-4B, single runs (Figure 3 and Table 1 of {PAPER})"
BEYOND = (1.06, 0, 0.22, 1)  # of a panel: what lies right of its axis break


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs results/published/{curves,tables}.csv. The frame's mark: curve, last or best."""
    curves = results.published_curves.query("figure == @FIGURE")
    tables = results.published_tables.query("table == @TABLE")
    present = set(curves["method"])
    styles = style.method_styles(sorted(present, key=lambda m: list(style.METHODS).index(m) if m in style.METHODS else 99))
    figure = style.new_figure(style.WIDTH, 3 * style.PANEL[1])
    grid = figure.add_gridspec(len(TRAINING), 2)
    letters = style.letters(len(BENCHMARKS) + len(TRAINING))
    rows, ends = [], {}
    for i, (panel, name) in enumerate(BENCHMARKS.items()):
        ax = figure.add_subplot(grid[i, 0])
        beside = ax.inset_axes(BEYOND, sharey=ax)
        ends[beside] = []
        for j, (method, look) in enumerate(styles.items()):
            rows += _curve(ax, curves, panel, method, look)
            marks, last = _table_marks(ax, beside, curves, tables, panel, method, look, j)
            rows += marks
            ends[beside].append(lines.End(j, last, look.label, look.color))
        style.finish(ax, f"{letters[i]} accuracy: {name}", "mean@32 (fraction)")
        style.from_zero(ax)
        _broken(ax, beside, len(styles))
    for i, (panel, (name, unit)) in enumerate(TRAINING.items()):
        ax = figure.add_subplot(grid[i, 1])
        for method, look in styles.items():
            rows += _curve(ax, curves, panel, method, look)
        last = {method: (step, value) for of, method, step, value, _ in rows if of == panel}
        ends[ax] = [lines.End(*last[method], look.label, look.color) for method, look in styles.items()]
        style.finish(ax, f"{letters[3 + i]} {name}", unit)
    mark = {"color": style.GREY, "linestyle": "none"}
    marks = [
        Line2D([], [], marker="o", markersize=5, label="Table 1, Last (step 400)", **mark),
        Line2D([], [], marker="*", markersize=8, label="Table 1, Best (where the curve peaks)", **mark),
    ]
    figure.suptitle(TITLE, fontsize=9)
    style.legend_below(figure, marks)
    lines.name_ends(figure, ends)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _broken(ax: Axes, beside: Axes, count: int) -> None:
    """Draw two slanted strokes where the axis of the steps ends, and name what is beyond."""
    beside.set_xlim(-0.8, count - 0.2)
    beside.set_xticks([(count - 1) / 2], ["last"])
    beside.tick_params(axis="y", left=False, labelleft=False)
    beside.tick_params(axis="x", length=0)
    beside.spines["left"].set_visible(False)
    beside.grid(axis="x", visible=False)
    stroke = {"color": "black", "marker": [(-0.6, -1), (0.6, 1)], "markersize": 6, "linestyle": "none", "clip_on": False}
    ax.plot([1], [0], transform=ax.transAxes, label="_break", **stroke)
    beside.plot([0], [0], transform=beside.transAxes, label="_break", **stroke)


def _curve(ax: Axes, curves: pd.DataFrame, panel: str, method: str, look: style.Style) -> list[tuple]:
    curve = curves.query("metric == @panel and method == @method").sort_values("step")
    if curve.empty:
        raise ValueError(f"published curves.csv has no {panel} of {method} in {FIGURE}; restore the file from version control")
    style.line(ax, curve["step"], curve["value"], look, markers=8)
    return [(panel, method, step, value, "curve") for step, value in zip(curve["step"], curve["value"], strict=True)]


def _table_marks(
    ax: Axes, beside: Axes, curves, tables, panel: str, method: str, look: style.Style, place: int
) -> tuple[list[tuple], float]:
    """Draw Last beyond the break, and Best on the step of the curve's peak -> rows, Last."""
    entry = tables.query("benchmark == @panel and method == @method")
    if len(entry) != 1:
        raise ValueError(f"published tables.csv: expected one row for {panel} of {method} in table {TABLE}, got {len(entry)}")
    curve = curves.query("metric == @panel and method == @method")
    last, best = float(entry.iloc[0]["last"]), float(entry.iloc[0]["best"])
    peak = int(curve.loc[curve["value"].idxmax(), "step"])
    edge = {"color": look.color, "markeredgecolor": "black", "markeredgewidth": 0.6, "linestyle": "none", "clip_on": False}
    beside.plot([place], [last], marker=look.marker, markersize=5, zorder=3, label="_last", **edge)
    ax.plot([peak], [best], marker="*", markersize=8, zorder=3, label="_best", **edge)
    return [(panel, method, int(curve["step"].max()), last, "last"), (panel, method, peak, best, "best")], last

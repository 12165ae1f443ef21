"""The paper's own curves (Figure 3, Qwen3-4B) in the layout of our training curves, with Table 1's Last and Best."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import PAPER, PUBLISHED_CURVES, PUBLISHED_TABLES, FigureSpec, nothing
from sdpg.artefacts.figures import style

ARTEFACT = FigureSpec(
    reads=lambda files: [PUBLISHED_CURVES, PUBLISHED_TABLES],
    place=13,
    uses=nothing,
    caption=(
        f"The published training curves of Qwen3-4B (Figure 3 of {PAPER}, read off its vector drawing; "
        "single runs, no intervals given). Outlined markers right of the curves' end are Table 1's Last (step 400), "
        "stars its Best, at the step where the curve peaks."
    ),
)
COLUMNS = ["panel", "method", "step", "value", "mark"]
BENCHMARKS = {"aime24": "AIME24", "aime25": "AIME25", "amc23": "AMC23"}
TRAINING = {
    "reward": ("training reward", "mean reward per response"),
    "entropy": ("policy entropy", "entropy (nats per token)"),
    "response_length": ("response length", "mean length (tokens)"),
}
FIGURE, TABLE = "fig3", 1
TITLE = f"Published: Qwen3-4B, single runs (Figure 3 and Table 1 of {PAPER})"
DODGE = 16  # steps between the Last marks of two methods, which would otherwise hide each other


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs results/published/{curves,tables}.csv. The frame's mark: curve, last or best."""
    curves = results.published_curves.query("figure == @FIGURE")
    tables = results.published_tables.query("table == @TABLE")
    present = set(curves["method"])
    styles = style.method_styles(sorted(present, key=lambda m: list(style.METHODS).index(m) if m in style.METHODS else 99))
    figure, axes = style.panel_grid(len(BENCHMARKS) + len(TRAINING))
    titles = style.letters(len(axes))
    rows = []
    for ax, (panel, name), letter in zip(axes, BENCHMARKS.items(), titles, strict=False):
        for i, (method, look) in enumerate(styles.items()):
            rows += _curve(ax, curves, panel, method, look, markers=8)
            rows += _table_marks(ax, curves, tables, panel, method, look, (i + 1) * DODGE)
        style.finish(ax, f"{letter} accuracy: {name}", "mean@32 (fraction)", ymin=0)
    for ax, (panel, (name, unit)), letter in zip(axes[3:], TRAINING.items(), titles[3:], strict=True):
        for method, look in styles.items():
            rows += _curve(ax, curves, panel, method, look, markers=8)
        style.finish(ax, f"{letter} {name}", unit)
    marks = [
        Line2D(
            [],
            [],
            color=style.GREY,
            marker="o",
            linestyle="none",
            markersize=6.5,
            label="Table 1, Last (step 400, drawn side by side)",
        ),
        Line2D(
            [], [], color=style.GREY, marker="*", linestyle="none", markersize=10, label="Table 1, Best (where the curve peaks)"
        ),
    ]
    figure.suptitle(TITLE, fontsize=10)
    style.legend_below(figure, style.method_handles(styles), marks)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _curve(ax: Axes, curves: pd.DataFrame, panel: str, method: str, look: style.Style, markers: int) -> list[tuple]:
    curve = curves.query("metric == @panel and method == @method").sort_values("step")
    if curve.empty:
        raise ValueError(f"published curves.csv has no {panel} of {method} in {FIGURE}; restore the file from version control")
    style.line(ax, curve["step"], curve["value"], look, markers=markers)
    return [(panel, method, step, value, "curve") for step, value in zip(curve["step"], curve["value"], strict=True)]


def _table_marks(ax: Axes, curves, tables, panel: str, method: str, look: style.Style, shift: int) -> list[tuple]:
    """Draw Last `shift` steps to the right of the curve's end, and Best on the step of the curve's peak."""
    entry = tables.query("benchmark == @panel and method == @method")
    if len(entry) != 1:
        raise ValueError(f"published tables.csv: expected one row for {panel} of {method} in table {TABLE}, got {len(entry)}")
    curve = curves.query("metric == @panel and method == @method")
    at = {"last": int(curve["step"].max()), "best": int(curve.loc[curve["value"].idxmax(), "step"])}
    rows = []
    for mark, shape, size in (("last", look.marker, 6.5), ("best", "*", 9)):
        value = float(entry.iloc[0][mark])
        ax.plot(
            [at[mark] + (shift if mark == "last" else 0)],
            [value],
            linestyle="none",
            marker=shape,
            markersize=size,
            color=look.color,
            markeredgecolor="black",
            markeredgewidth=0.7,
            clip_on=False,
            zorder=3,
            label=f"_{mark}",
        )
        rows.append((panel, method, at[mark], value, mark))
    return rows

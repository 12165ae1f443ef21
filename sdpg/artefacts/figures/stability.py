"""Stability of every method in four numbers: runs that collapsed, falls of accuracy, truncation, distance from the start."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from sdpg.analysis.intervals import Share
from sdpg.analysis.results import Results
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style
from sdpg.artefacts.stability import read

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("stability"), *files.metrics],
    place=3,
    caption=(
        "Stability of training, in the four numbers that tell most; the table `stability` has all. Open circles: single seeds; "
        "large markers: their mean. Collapsed: runs whose rollouts ever fell below half of their best, that diverged or were "
        "stopped, as a share of all, with the exact 95% interval (Clopper and Pearson). Largest fall: of the accuracy from "
        "one checkpoint to a later one, on the evaluation set where it is largest. Truncated: the step with the most "
        "responses cut at the token limit. KL: from the reference, over the last tenth of the steps (linear up to 1, "
        "logarithmic above); none for a method without a reference. To the left is better. Definitions: docs/metrics.md."
    ),
)
COLUMNS = ["metric", "method", "seed", "value", "low", "high"]
SHOWN = {  # metric of stability.csv: title, axis
    "rollouts_collapsed": ("collapsed", "share of runs"),
    "drawdown": ("largest fall", "accuracy"),
    "truncated_max": ("truncated", "share of responses"),
    "kl_ref_last": ("final KL", "nats per token"),
}
ROW, HEAD = 0.21, 0.75  # inches: a method's row, what there is above and below them


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs stability.csv. The frame: a row per circle (with its seed), and per mean (without; of the share of runs
    with its interval).
    """
    frame = read(results)
    styles = style.method_styles(results.methods)
    figure = style.new_figure(style.WIDTH, HEAD + ROW * style.row_lines(styles) * len(styles))
    first = None
    rows = []
    for i, (metric, letter) in enumerate(zip(SHOWN, style.letters(len(SHOWN)), strict=True)):
        ax = figure.add_subplot(1, len(SHOWN), i + 1, sharey=first)
        first = first or ax
        values = frame[(frame["metric"] == metric) & frame["seed"].notna()]
        for y, (method, look) in enumerate(styles.items()):
            of_seed = values[values["method"] == method].groupby("seed")["value"].max().dropna()  # over the sets
            rows += _row(ax, metric, method, y, look, of_seed)
        _finish(ax, metric, letter)
        style.method_rows(ax, styles)
        ax.tick_params(axis="y", labelleft=i == 0, length=0)
    mean = Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", markersize=4.2, linestyle="none", label="mean")
    share = Line2D([], [], color=style.GREY, linewidth=1.4, marker="|", markersize=7, label="95% interval of the share, exact")
    style.legend_below(figure, [mean, style.seed_handle(), share])
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _row(ax: Axes, metric: str, method: str, y: int, look: style.Style, of_seed: pd.Series) -> list[tuple]:
    """Draw one method in one panel; a dash where it has no such number."""
    if of_seed.empty:
        ax.text(0.02, y, "–", transform=ax.get_yaxis_transform(), va="center", fontsize=style.SMALL)
        return [(metric, method, None, np.nan, np.nan, np.nan)]
    if metric == "rollouts_collapsed":  # 0 or 1 of each run: the share says it all
        share = Share(int(of_seed.sum()), len(of_seed))
        ends, seeds = share.interval(), of_seed.iloc[:0]
    else:
        ends, seeds = (np.nan, np.nan), of_seed if len(of_seed) > 1 else of_seed.iloc[:0]
    style.interval_row(ax, y, of_seed.mean(), *ends, seeds, look)
    rows = [(metric, method, None, of_seed.mean(), *ends)]
    return rows + [(metric, method, int(seed), value, np.nan, np.nan) for seed, value in seeds.items()]


def _finish(ax: Axes, metric: str, letter: str) -> None:
    title, unit = SHOWN[metric]
    style.set_title(ax, f"{letter} {title}")
    ax.set_xlabel(unit)
    if metric == "kl_ref_last" and ax.get_xlim()[1] > 2:
        top = ax.get_xlim()[1]
        ax.set_xscale("symlog", linthresh=1, linscale=1)
        powers = [10.0**k for k in range(1, 9) if 10.0**k <= 1.3 * top]
        above = powers[:: max(1, len(powers) // 2)] or [2, *([5] if top > 4 else [])]
        ax.xaxis.set_major_locator(FixedLocator([0, 1, *above]))
        ax.set_xlabel(f"{unit}\n(logarithmic above 1)")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else f"1e{np.log10(value):.0f}")
        ax.set_xlim(0, 1.3 * top)
    else:
        ax.set_xlim(0, 1.02 if metric == "rollouts_collapsed" else max(0.1, ax.get_xlim()[1]))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))

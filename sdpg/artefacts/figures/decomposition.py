"""Where the gain comes from: a waterfall from GRPO to SDPG per evaluation set, and below it what the published curves say."""

from __future__ import annotations

import math
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import FigureSpec, has_chain
from sdpg.artefacts.decomposition import COLUMNS, read
from sdpg.artefacts.figures import style

ARTEFACT = FigureSpec(
    reads=lambda files: files.made("decomposition"),
    place=5,
    planned=has_chain,
    caption=(
        "From GRPO to SDPG-URKL, one change at a time, in the order of config/decomposition.yaml (another order "
        "could give other effects). Upper row, these runs: each bar is the difference in accuracy (mean of the second "
        "half's checkpoints) between two neighbouring methods, among the units (base model and seed) whose two runs are "
        "healthy, with the 95% t-interval paired by unit and problem; pale where that includes 0 or there is none. "
        "Changes whose method was not run are merged with the next one. Lower "
        "row, the paper's own curves (Qwen3-4B, averaged over steps 330 to 400): single runs, so no intervals."
    ),
)
SOURCES = {"runs": "", "published": "published: "}  # source in the frame: what a panel's title opens with
UP, DOWN, LEVEL = "#009e73", "#d55e00", "#444444"
PALE = 0.35
ROW, HEAD, WIDTH = 0.42, 1.0, 11.0  # inches: one bar, what a panel has above and below its bars, the figure
LABEL_WIDTH = 29  # characters of a change on one line


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs decomposition.csv. The frame is what is drawn: its rows."""
    frame = read(results)
    lines = [[group for _, group in frame[frame["source"] == source].groupby("task", sort=False)] for source in SOURCES]
    heights = [HEAD + ROW * len(line[0]) for line in lines]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.07)
    columns = math.lcm(*(len(line) for line in lines))
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    letters = iter(style.letters(sum(len(line) for line in lines)))
    for i, (line, source) in enumerate(zip(lines, SOURCES.values(), strict=True)):
        wide = columns // len(line)
        beside = None
        for j, group in enumerate(line):
            place = grid[i, j * wide : (j + 1) * wide]
            ax = figure.add_subplot(place, sharey=beside)
            beside = ax
            _panel(ax, group, ticks=12 // len(line))
            ax.tick_params(axis="y", labelleft=j == 0, length=0)
            style.set_title(ax, f"{next(letters)} {source}{group['task'].iloc[0]}")
            ax.set_xlabel(f"{results.accuracy} (fraction)" if source == "" else "mean@32 (fraction)")
    style.legend_below(figure, _marks())
    return figure, frame[COLUMNS]


def _panel(ax: Axes, rows: pd.DataFrame, ticks: int) -> None:
    """Draw one waterfall: the first row is where it starts; dotted lines carry each level to the next bar. ticks: at most,
    on x.
    """
    ends = (rows["before"] + rows["difference"]).tolist()
    for y, row in enumerate(rows.itertuples()):
        if row.kind == "start":
            ax.plot([ends[y]], [y], marker="D", color=LEVEL, markersize=6, linestyle="none", label="_start")
        elif row.kind == "none":
            ax.plot([row.before], [y], marker="|", color=LEVEL, markersize=12, linestyle="none", label="_none")
        else:
            _bar(ax, y, row)
        if y + 1 < len(rows) and rows["kind"].iloc[y + 1] != "together":
            ax.plot([ends[y]] * 2, [y, y + 1], color=style.GREY, linestyle=":", linewidth=0.9, zorder=1, label="_level")
        ax.text(1.02, y, _words(row), transform=ax.get_yaxis_transform(), ha="left", va="center", fontsize=8)
    separate = (rows["kind"] != "together").sum() - 0.5
    ax.axhline(separate, color=style.GREY, linewidth=0.6, label="_separator")
    ax.set_yticks(range(len(rows)), [textwrap.fill(change, LABEL_WIDTH) for change in rows["change"]])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.use_sticky_edges = False  # bars would pin the limits to their ends
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=max(2, ticks), steps=[1, 2, 5, 10]))


def _bar(ax: Axes, y: int, row) -> None:
    color = UP if row.difference >= 0 else DOWN
    clear = row.source == "published" or row.low > 0 or row.high < 0
    ax.barh(y, row.difference, left=row.before, height=0.6, color=color, alpha=1 if clear else PALE, label="_bar")
    if not pd.isna(row.low):
        ends = [row.before + row.low, row.before + row.high]
        ax.plot(ends, [y, y], color="black", linewidth=1.2, marker="|", markersize=5, label="_interval")


def _words(row) -> str:
    if row.kind == "start":
        return f"{row.difference:.3f}"
    if row.kind == "none":
        return "0 by construction"
    ends = "" if pd.isna(row.low) else f"\n[{row.low:+.3f}, {row.high:+.3f}]"
    return f"{row.difference:+.3f}{ends}".replace("-", "−")


def _marks() -> list:
    return [
        Line2D([], [], color=LEVEL, marker="D", linestyle="none", label="where it starts"),
        Patch(color=UP, label="gain"),
        Patch(color=DOWN, label="loss"),
        Patch(color=style.GREY, alpha=PALE, label="not told from 0"),
        Line2D([], [], color="black", marker="|", linewidth=1.2, label="95% t-interval, paired"),
    ]

"""Where the gain comes from: a waterfall from GRPO to SDPG per evaluation set, and below it what the published curves say."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
        "could give other effects). Above, these runs: each bar is the difference in accuracy (mean of the second "
        "half's checkpoints) between two neighbouring methods, among the units (base model and seed) whose two runs are "
        "healthy, with the 95% t-interval paired by unit and problem; pale where that includes 0 or there is none. "
        "Changes whose method was not run are merged with the next one; all axes begin at 0. Below, "
        "the paper's own curves (Qwen3-4B, averaged over steps 330 to 400): single runs, so no intervals."
    ),
)
SOURCES = {"runs": "", "published": "published: "}  # source in the frame: what a panel's title opens with
UP, DOWN, LEVEL = "#56b4e9", "#d55e00", "#444444"  # with black intervals on them
PALE = 0.35
ROW, HEAD = 0.31, 0.62  # inches: one bar, what a panel has above and below its bars
LABEL_WIDTH = 26  # characters of a change on one line
BESIDE = {"runs": 2, "published": 3}  # panels in a line: those of the runs have intervals in words


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs decomposition.csv. The frame is what is drawn: its rows."""
    frame = read(results)
    lines = [line for source in SOURCES for line in _lines(frame[frame["source"] == source], BESIDE[source])]
    heights = [HEAD + ROW * max(len(group) for group in line) for line in lines]
    figure = style.new_figure(style.WIDTH, sum(heights))
    grid = figure.add_gridspec(len(lines), 1, height_ratios=heights)
    letters = iter(style.letters(sum(len(line) for line in lines)))
    right = {source: _end(frame[frame["source"] == source]) for source in SOURCES}
    for i, line in enumerate(lines):
        source = line[0]["source"].iloc[0]
        places, beside = grid[i].subgridspec(1, len(line)), None
        for j, group in enumerate(line):
            ax = figure.add_subplot(places[j], sharey=beside)
            beside = beside or ax
            _panel(ax, group, right[source])
            ax.tick_params(axis="y", labelleft=j == 0, length=0)
            style.set_title(ax, f"{next(letters)} {SOURCES[source]}{group['task'].iloc[0]}")
            ax.set_xlabel(f"{results.accuracy} (fraction)" if source == "runs" else "mean@32 (fraction)")
    style.legend_below(figure, _marks())
    return figure, frame[COLUMNS]


def _lines(frame: pd.DataFrame, beside: int) -> list[list[pd.DataFrame]]:
    """Return the panels of one source, so many to a line."""
    groups = [group for _, group in frame.groupby("task", sort=False)]
    return [groups[i : i + beside] for i in range(0, len(groups), beside)]


def _end(rows: pd.DataFrame) -> float:
    """Return where the axis of accuracy ends that begins at 0: behind every bar and interval, and at 1 at least if near."""
    ends = [rows["before"], rows["before"] + rows["difference"], rows["before"] + rows["high"]]
    largest = pd.concat(ends).max()
    return 1.0 if 0.6 < largest <= 1 else 1.04 * largest


def _panel(ax: Axes, rows: pd.DataFrame, right: float) -> None:
    """Draw one waterfall from 0 to `right`: the first row is where it starts; dotted lines carry each level to the next bar."""
    ends = (rows["before"] + rows["difference"]).tolist()
    for y, row in enumerate(rows.itertuples()):
        if row.kind == "start":
            ax.plot([ends[y]], [y], marker="D", color=LEVEL, markersize=4.5, linestyle="none", label="_start")
        elif row.kind == "none":
            ax.plot([row.before], [y], marker="|", color=LEVEL, markersize=9, linestyle="none", label="_none")
        else:
            _bar(ax, y, row)
        if y + 1 < len(rows) and rows["kind"].iloc[y + 1] != "together":
            ax.plot([ends[y]] * 2, [y, y + 1], color=style.GREY, linestyle=":", linewidth=0.9, zorder=1, label="_level")
        ax.text(1.04, y, _words(row), transform=ax.get_yaxis_transform(), ha="left", va="center", fontsize=style.SMALL)
    separate = (rows["kind"] != "together").sum() - 0.5
    ax.axhline(separate, color=style.GREY, linewidth=0.6, label="_separator")
    ax.set_yticks(range(len(rows)), [textwrap.fill(change, LABEL_WIDTH) for change in rows["change"]], fontsize=style.SMALL)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    lows = (rows["before"] + rows["low"]).min()
    ax.set_xlim(min(0.0, lows), right)
    ticks = np.arange(0, min(right, 1.0) + 1e-9, 0.5 if right > 0.6 else 0.2 if right > 0.3 else 0.1)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


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
        return "0 by\nconstruction"
    ends = "" if pd.isna(row.low) else f"\n[{row.low:+.3f}, {row.high:+.3f}]"
    return f"{row.difference:+.3f}{ends}".replace("-", "−").replace("+0.", "+.").replace("−0.", "−.")


def _marks() -> list:
    return [
        Line2D([], [], color=LEVEL, marker="D", linestyle="none", label="where it starts"),
        Patch(color=UP, label="gain"),
        Patch(color=DOWN, label="loss"),
        Patch(color=style.GREY, alpha=PALE, label="not told from 0"),
        Line2D([], [], color="black", marker="|", linewidth=1.2, label="95% t-interval, paired"),
    ]

"""Curves of runs: a thin line for each seed, their mean, its name right of the panel, and the level of the base model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.results import Results
from sdpg.artefacts.figures import style
from sdpg.artefacts.figures.names import BASE

NAME_WIDTH = 20  # characters of a name on one line
LINE_HEIGHT = 1.2 * style.SMALL  # points of a line of it
_HAIR = {"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
THIN = {"linewidth": 0.5, "alpha": 0.4, "zorder": 1.5}
_BASE = {"color": "#444444", "linestyle": (0, (1, 1.5)), "linewidth": 1.0, "zorder": 1, "label": "_base"}


class End(NamedTuple):
    """Where a line ends, in data coordinates, and what it is called."""

    x: float
    y: float
    text: str
    color: str


def runs(
    axes: Axes,
    table: pd.DataFrame,
    look: style.Style,
    *,
    x: pd.DataFrame | None = None,
    markers: bool | int = True,
    stride: int = 1,
) -> list[tuple[int | None, float, float]]:
    """Draw the runs of one method and return what is drawn, as (seed, index of the table, value): a thin line for each seed,
    and their mean, whose seed is None. Of one seed there is a mean alone.

    table: a value for each index, such as a step (rows), and seed (columns). x: where each value stands, where that is not its
    index. stride: of the thin lines, which may leave out what a smoothed curve does not show.
    """
    where = pd.DataFrame(dict.fromkeys(table, table.index), index=table.index) if x is None else x
    rows = []
    if table.shape[1] > 1:
        kept = sorted({*range(0, len(table), stride), len(table) - 1})
        for seed in table:
            axes.plot(where[seed].iloc[kept], table[seed].iloc[kept], color=look.color, label="_seed", **THIN)
            rows += [(int(seed), *pair) for pair in table[seed].iloc[kept].items()]
    mean = table.mean(axis=1)
    style.line(axes, where.mean(axis=1), mean, look, markers=markers)
    return rows + [(None, *pair) for pair in mean.items()]


def base_accuracy(results: Results, task: str) -> float:
    """Return the accuracy before training: the mean over all runs at step 0; NaN where that was not evaluated."""
    scores = results.scores
    return float(
        scores[(scores["metric"] == results.accuracy) & (scores["task"] == task) & (scores["step"] == 0)]["value"].mean()
    )


def base_level(axes: Axes, level: float, axis: str = "y") -> None:
    """Draw where the base model stands, on the axis of the accuracy; nothing for NaN."""
    if not np.isnan(level):
        (axes.axhline if axis == "y" else axes.axvline)(level, **_BASE)


def handles(seeds: int, base: bool = True) -> list[Artist]:
    """Return the legend entries of the mean, a seed and the base model."""
    mean = Line2D([], [], color=style.GREY, linewidth=1.4, marker="o", markersize=3.5, label=f"mean over {seeds} seeds")
    one = Line2D([], [], color=style.GREY, linewidth=THIN["linewidth"] + 0.2, label="one seed")
    marks = [mean, one] if seeds > 1 else [Line2D([], [], color=style.GREY, linewidth=1.4, marker="o", label="one seed")]
    return [*marks, Line2D([], [], **_BASE | {"label": f"{BASE}, before training"})] if base else marks


def name_ends(figure: Figure, ends: Mapping[Axes, Sequence[End]], width: int = NAME_WIDTH) -> None:
    """Write the name of each line right of its panel, at the height of its end or as near as the others let it, joined to it
    by a hair line. To be called when the limits and the legends are final.
    """
    figure.draw_without_rendering()  # for the height of the panels
    for axes, several in ends.items():
        height = axes.bbox.height / figure.dpi * 72
        texts = ["\n".join(_filled(line, width) for line in end.text.split("\n")) for end in several]
        wanted = [(axes.transData.transform((end.x, end.y))[1] - axes.bbox.y0) / figure.dpi * 72 for end in several]
        places = spread(wanted, [LINE_HEIGHT * (1 + text.count("\n")) for text in texts], height)
        for end, text, place in zip(several, texts, places, strict=True):
            axes.annotate(
                text,
                xy=(end.x, end.y),
                xytext=(1.05, place / height),
                textcoords="axes fraction",
                va="center",
                fontsize=style.SMALL,
                linespacing=1.0,
                color=darker(end.color),
                annotation_clip=False,
                arrowprops=_HAIR | {"color": end.color},
            )


def _filled(line: str, width: int) -> str:
    return line if "$" in line else textwrap.fill(line, width)


def spread(wanted: Sequence[float], sizes: Sequence[float], room: float) -> np.ndarray:
    """Return the middles of labels of these sizes on a line 0..room: as near to where they are wanted (least squares) as they
    can be without an overlap, in the same order; around the middle of the room where it is too small for all.
    """
    order = np.argsort(wanted, kind="stable")
    wish, size = np.asarray(wanted, float)[order], np.asarray(sizes, float)[order]
    offsets = np.concatenate([[0.0], np.cumsum((size[:-1] + size[1:]) / 2)])[: len(size)]
    blocks: list[tuple[float, int]] = []  # pool adjacent violators: what touches moves together
    for value in wish - offsets:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    first = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    if len(size):
        low, high = size[0] / 2, room - size[-1] / 2 - offsets[-1]
        first = np.clip(first, low, high) if low <= high else np.full(len(first), (low + high) / 2)
    places = np.empty(len(size))
    places[order] = first + offsets
    return places


def darker(color: str) -> tuple[float, float, float]:
    """Return the colour as text on white can have it."""
    return tuple(0.62 * part for part in to_rgb(color))

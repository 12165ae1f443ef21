"""One look for all figures: a colour, line and marker per method, the panel grid, the legend, and saving.

Sizes are those of a paper in two columns: figures are at most WIDTH inches wide, text is SMALL to 9 points. Methods differ in
three ways at once (colour, dash pattern, marker), so that they can be told apart by colour-blind readers and in grey; the
colours of the methods that are usually shown together are spread in lightness (L* 29 to 71).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdpg.artefacts.figures.names import label
from sdpg.io import write_atomic

WIDTH = 6.8  # inches: both columns of a paper
SMALL = 7  # points: the smallest text
RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.7,
    "axes.titlepad": 4,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,  # TrueType, so that text stays text
    "savefig.dpi": 220,
}
matplotlib.rcParams.update(RC)

PANEL = (WIDTH / 2, 1.85)  # inches, width and height of one panel of a grid
TITLE_WIDTH = 40  # characters that fit above one panel
ROW_WIDTH = 26  # characters of a method's name beside its row of a dot plot
GREY = "#666666"
MANY = 6  # above this number of methods, a panel of curves shows some of them
HEADLINE = ("sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd")  # the methods of the paper's Tables 1 and 2


@dataclass(frozen=True)
class Style:
    """How one method looks."""

    label: str
    color: str
    dash: str | tuple
    marker: str


_SOLID, _DASH, _DASHDOT, _DOT = "-", (0, (5, 1.6)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.2, 1.3))
_LONG, _DASHDOTDOT = (0, (9, 2)), (0, (5, 1.3, 1, 1.3, 1, 1.3))
_LOOKS = {
    "sdpg-ufkl": ("#004488", _SOLID, "o"),
    "sdpg-urkl": ("#56b4e9", _DASH, "s"),
    "grpo": ("#d55e00", _DASHDOT, "^"),
    "opcd": ("#111111", _DOT, "D"),
    "rlsd": ("#e69f00", _DASHDOTDOT, "v"),
    "opsd": ("#cc79a7", _LONG, "P"),
    "sdpo": ("#009e73", _DASH, "X"),
    "sdft": ("#882255", _DASHDOT, "<"),
    "rpg": ("#332288", _LONG, ">"),
    "sdpg-no-anchor": ("#117733", _DOT, "p"),
    "sdpg-no-gate": ("#aa4499", _DASHDOTDOT, "d"),
    "sdpg-no-schedule": ("#999933", _SOLID, "h"),
}
METHODS = {method: Style(label(method), *look) for method, look in _LOOKS.items()}
_SPARE = [  # for every other method name, in the order in which they are asked for
    ("#2b8073", _SOLID, "*"),
    ("#bb5566", _DASH, "8"),
    ("#808080", _DASHDOT, "H"),
    ("#5c3a1e", _LONG, "^"),
    ("#6699cc", _DOT, "v"),
    ("#994455", _DASHDOTDOT, "s"),
    ("#997700", _SOLID, "X"),
    ("#225555", _DASH, "o"),
]
_PUBLISHED = {"linestyle": (0, (3, 1.5)), "linewidth": 0.8, "markersize": 3.4, "markerfacecolor": "white"}


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style for every method name; names without an entry in METHODS get the spare ones in turn."""
    styles, spare = {}, 0
    for method in methods:
        if method in METHODS:
            styles[method] = METHODS[method]
        else:
            styles[method] = Style(label(method), *_SPARE[spare % len(_SPARE)])
            spare += 1
    return styles


def readable(styles: dict[str, Style]) -> dict[str, Style]:
    """Return what one panel of curves can show: all methods if they are few, else those of the paper's tables, if it has
    two.
    """
    headline = {method: look for method, look in styles.items() if method in HEADLINE}
    return headline if len(styles) > MANY and len(headline) > 1 else styles


def panel_grid(count: int, columns: int = 2, panel: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` axes in rows of `columns`; a row that would be wider than a page is as wide as it is."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(min(panel[0] * columns, WIDTH), panel[1] * rows)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, whose parts make room for each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return figure


def line(axes: Axes, x, y, style: Style, *, markers: bool | int = True, **options) -> Line2D:
    """Draw one method's line. markers: True on every point; a number of markers spread over the line; or False."""
    every = None
    if markers is not True and markers:
        every = max(1, len(np.atleast_1d(x)) // int(markers))
    return axes.plot(
        x,
        y,
        color=style.color,
        linestyle=style.dash,
        linewidth=1.4,
        marker=style.marker if markers else None,
        markersize=3.6,
        markeredgecolor="white",
        markeredgewidth=0.4,
        markevery=every,
        label=style.label,
        **options,
    )[0]


def published(axes: Axes, x, y, style: Style, *, markers: int) -> Line2D:
    """Draw a published curve in the colour of its method: thin and dashed, with `markers` open markers."""
    every = max(1, len(np.atleast_1d(x)) // markers)
    look = {"color": style.color, "marker": style.marker, "markeredgewidth": 0.8, "markevery": every}
    return axes.plot(x, y, label=f"_published {style.label}", **look, **_PUBLISHED)[0]


def published_handle(label: str) -> Line2D:
    """Return the legend entry of all published curves."""
    return Line2D([], [], color=GREY, marker="o", markeredgewidth=0.8, label=label, **_PUBLISHED)


def interval_row(axes: Axes, y: int, mean: float, low: float, high: float, points: Sequence[float], style: Style) -> None:
    """Draw one method's row of a dot plot: its interval, whose ends stand out past the marker of its mean, and below them the
    single seeds as open circles.
    """
    interval(axes, y, mean, low, high, style.color, style.marker, label=style.label)
    seeds = {"linestyle": "none", "marker": "o", "fillstyle": "none", "color": style.color, "markersize": 2.6}
    if len(points):  # an empty line that is not clipped counts as one in the figure's corner
        axes.plot(points, [y + 0.33] * len(points), label="_seeds", markeredgewidth=0.6, clip_on=False, **seeds)


def interval(axes: Axes, y: float, mean: float, low: float, high: float, color: str, marker: str, **options) -> None:
    """Draw a mean as an open marker on its interval with bars at the ends; NaN ends: the marker alone."""
    if not np.isnan([low, high]).any():
        bars = {"marker": "|", "markersize": 7, "markeredgewidth": 1.2, "clip_on": False}
        axes.plot([low, high], [y, y], color=color, linewidth=1.4, label="_interval", **bars)
    mark = {"marker": marker, "markersize": 4.2, "markerfacecolor": "white", "markeredgecolor": color, "markeredgewidth": 1.1}
    axes.plot([mean], [y], linestyle="none", clip_on=False, zorder=3, **mark | options)


def row_lines(styles: dict[str, Style]) -> float:
    """Return how much higher the rows of a dot plot have to be for the longest name, which is broken into lines."""
    return max(1.0, 0.7 * max(len(textwrap.wrap(look.label, ROW_WIDTH)) for look in styles.values()))


def method_rows(axes: Axes, styles: dict[str, Style]) -> None:
    """Set the y axis of a dot plot: a row for each method, the first on top."""
    labels = [textwrap.fill(look.label, ROW_WIDTH) for look in styles.values()]
    axes.set_yticks(range(len(styles)), labels, linespacing=1.0)
    axes.set_ylim(len(styles) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def set_title(axes: Axes, title: str, width: int = TITLE_WIDTH) -> None:
    """Set a left-aligned title, broken after `width` characters, before it reaches the next panel (long names of sets,
    methods).
    """
    lines = [part if "$" in part else textwrap.fill(part, width) for part in title.split("\n")]
    axes.set_title("\n".join(lines), loc="left")


def finish(axes: Axes, title: str, ylabel: str, xlabel: str = "training step", ymin: float | None = None) -> None:
    """Set title, labels with units and whole-numbered steps on x."""
    set_title(axes, title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 4, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    if ymin is not None and axes.get_ylim()[0] < ymin:
        axes.set_ylim(bottom=ymin)


def from_zero(axes: Axes, axis: str = "y") -> None:
    """Let an axis of accuracies begin at 0, and end above what is drawn, at 1 if that is near."""
    top = (axes.get_ylim if axis == "y" else axes.get_xlim)()[1]
    (axes.set_ylim if axis == "y" else axes.set_xlim)(0, 1.02 if 0.85 < top < 1.1 else top)


def method_handles(styles: dict[str, Style]) -> list[Line2D]:
    """Return the legend entries: one line with its marker per method."""
    return [
        Line2D([], [], color=s.color, linestyle=s.dash, marker=s.marker, linewidth=1.4, markersize=3.6, label=s.label)
        for s in styles.values()
    ]


def seed_handle() -> Line2D:
    """Return the legend entry of the open circles."""
    return Line2D([], [], color=GREY, marker="o", fillstyle="none", linestyle="none", markersize=3, label="one seed")


def legend_below(figure: Figure, *groups: Sequence[Artist]) -> None:
    """Draw one legend per group of entries below all panels (methods first, then what the marks mean), each as wide as
    fits.

    The figure grows by the legend's height, so that the panels keep their size.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    available = figure.bbox.width * 0.94
    legends = []
    for group in filter(None, groups):
        for columns in range(len(group), 0, -1):
            entry = figure.legend(handles=list(group), ncols=columns, loc="upper left", frameon=False, handlelength=3.2)
            extent = entry.get_window_extent(renderer)
            if extent.width <= available or columns == 1:
                break
            entry.remove()
        legends.append((entry, extent.height / figure.dpi))
    heights = [height for _, height in legends]
    width, height = figure.get_size_inches()
    margin = 0.06  # inches, above and below the legends
    total = height + sum(heights) + 2 * margin
    figure.set_size_inches(width, total)
    figure.get_layout_engine().set(rect=(0, 1 - height / total, 1, height / total))
    top = sum(heights) + margin
    for entry, own in legends:
        entry.set_loc("upper center")
        entry.set_bbox_to_anchor((0.5, top / total), transform=figure.transFigure)
        top -= own


def letters(count: int) -> list[str]:
    """Return (a), (b), ... for panel titles."""
    return [f"({chr(ord('a') + i)})" for i in range(count)]


def save(figure: Figure, data: pd.DataFrame, folder: Path, name: str, caption: str) -> list[Path]:
    """Write <name>.pdf, <name>.png and <name>.csv atomically. No timestamps: the same numbers give the same
    CSV, byte for byte, and the same pictures up to the rounding of a pixel.

    The caption goes into the PNG's `Description` and the PDF's `Subject`, where the report finds its alternative text.
    """
    paths = [*save_pictures(figure, folder, name, caption), folder / f"{name}.csv"]
    with write_atomic(paths[2]) as file:
        data.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
    return paths


def save_pictures(figure: Figure, folder: Path, name: str, caption: str) -> list[Path]:
    """Write <name>.pdf and <name>.png alone, as `save` does. The PNG has 256 colours: a third of the size."""
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    with write_atomic(paths[0], "wb") as file:
        figure.savefig(file, format="pdf", metadata={"CreationDate": None, "Title": name, "Subject": caption})
    picture = BytesIO()
    figure.savefig(picture, format="png")
    texts = PngInfo()
    texts.add_itxt("Title", name)
    texts.add_itxt("Description", caption)
    with Image.open(picture) as image, write_atomic(paths[1], "wb") as file:
        # No dithering: it puts noise into even areas.
        colours = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(file, format="png", optimize=True, pnginfo=texts, dpi=image.info["dpi"])
    return paths

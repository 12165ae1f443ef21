"""Which conclusions change with the learning rate and beta: the differences in accuracy that carry them, at each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.results import Results
from sdpg.analysis.wording import short_name, value_text
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style
from sdpg.artefacts.sensitivity import read, sentences

ARTEFACT = FigureSpec(
    reads=lambda files: files.made("sensitivity"),
    place=0.5,
    planned=lambda config: bool(config.sensitivity),
    caption=(
        "Differences in accuracy between two methods (claims of config/claims.yaml, in brackets) at each value of a setting "
        "that is varied around the scale's own, all else as it is; values are spaced evenly. Among units (base models) whose "
        "two runs are healthy, with the 95% t-interval paired by unit and problem. Marker: the verdict, as claims.md would "
        "have it if the value were the scale's own. Below: how many runs of the first and the second method collapsed. Early "
        "differences are of the rollouts, late ones of the evaluation set, as in the claims; nothing is chosen by them."
    ),
)
SHOWN = "fraction"  # unit of the claims that are drawn: differences in accuracy


class Look(NamedTuple):
    """Marker, colour and fill of a verdict; they differ in shape, too."""

    marker: str
    color: str
    fill: str
    label: str


LOOKS = {
    "supported": Look("o", "#009e73", "full", "supported"),
    "refuted": Look("X", "#d55e00", "full", "refuted"),
    "open": Look("o", "#444444", "none", "not decided there"),
    "not testable here": Look("s", "#444444", "none", "not testable there"),
}
MARGIN = {"color": "#004488", "linestyle": (0, (1.2, 1.3)), "linewidth": 1.1}
HALF = {"color": "#aa4499", "linestyle": (0, (5, 2)), "linewidth": 1.1}
OWN = {"color": "#e8e8e8", "linewidth": 0, "zorder": 0}
GAP = 0.8  # between the values of two settings
SMALL = 7.5  # points, of what is written into a panel


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs sensitivity.csv and sensitivity_changes.csv. The frame: the rows of sensitivity.csv that are drawn."""
    points, changes = read(results)
    points = points[points["unit"] == SHOWN].reset_index(drop=True)
    claims = list(dict.fromkeys(points["claim"]))
    figure, axes = style.panel_grid(max(1, len(claims)), panel=(style.WIDTH / 2, 2.55))
    if not claims:
        axes[0].text(0.5, 0.5, "no claim compares the accuracy\nof two of these methods", ha="center", va="center")
        axes[0].set_axis_off()
        return figure, points
    for ax, claim, letter in zip(axes, claims, style.letters(len(claims)), strict=True):
        _panel(ax, points[points["claim"] == claim], changes[changes["claim"] == claim], letter)
    style.legend_below(figure, *_marks(points))
    return figure, points


def says(results: Results) -> str:
    """Return which of the conclusions that are drawn change with each setting, for the caption."""
    points, changes = read(results)
    shown = points[points["unit"] == SHOWN]
    units = f" {shown['runs'].max()} units: an open verdict is one that so few do not decide. " if len(shown) else ""
    return units + sentences(changes[changes["unit"] == SHOWN], places=True)


def _panel(ax: Axes, points: pd.DataFrame, changes: pd.DataFrame, letter: str) -> None:
    """Draw a claim's differences: a group of values for each setting, from left to right."""
    first = points.iloc[0]
    start, ticks, names = 0.0, {}, []
    ax.axhline(0, color="black", linewidth=0.8, label="_zero")
    ax.axhline(first["margin"], label="_margin", **MARGIN)
    if np.isfinite(first["half"]):
        ax.axhline(first["half"], label="_half", **HALF)
    for setting, group in points.groupby("setting", sort=False):
        x = start + np.arange(len(group))
        _group(ax, x, group)
        said = changes[changes["setting"] == setting]["conclusion"].iloc[0]
        ax.text(x.mean(), 0.985, _broken(said), transform=ax.get_xaxis_transform(), ha="center", va="top", fontsize=SMALL)
        if start:
            ax.axvline(x[0] - (1 + GAP) / 2, color=style.GREY, linewidth=0.6, label="_separator")
        ticks |= dict(zip(x, map(value_text, group["value"]), strict=True))
        names.append(short_name(setting))
        start = x[-1] + 1 + GAP
    methods = [look.label.partition(" (")[0] for look in style.method_styles(_methods(first)).values()]
    title = f"{letter} {' − '.join(methods)} [{first['claim']}]\n{first['what'].partition(', ')[2]}"
    style.finish(ax, title, "difference (fraction)")
    ax.set_xlabel("; ".join(names) + (" (left to right)" if len(names) > 1 else ""))
    ax.set_xticks(list(ticks), list(ticks.values()), fontsize=SMALL)
    ax.set_xlim(-0.6, max(ticks) + 0.6)
    ax.grid(axis="x", visible=False)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.12 * (high - low), high + 0.24 * (high - low))  # room for counts and conclusions
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))


def _methods(row: pd.Series) -> list[str]:
    return [name for name in (row["first"], row["second"]) if isinstance(name, str)]


def _group(ax: Axes, x: np.ndarray, rows: pd.DataFrame) -> None:
    ax.plot(x, rows["effect"], color="#aaaaaa", linewidth=0.9, zorder=1, label="_between")
    for at, row in zip(x, rows.itertuples(), strict=True):
        look = LOOKS[row.verdict]
        if row.own:
            ax.axvspan(at - 0.42, at + 0.42, **OWN)
        if np.isfinite(row.low):
            ax.plot([at, at], [row.low, row.high], color=look.color, linewidth=1.8, label="_interval")
        if np.isfinite(row.effect):
            face = "white" if look.fill == "none" else look.color  # white and not empty: the interval ends at it
            mark = {"marker": look.marker, "color": look.color, "markerfacecolor": face, "markersize": 6.5}
            ax.plot([at], [row.effect], linestyle="none", label="_point", **mark)
        else:
            ax.text(at, 0.45, "?", transform=ax.get_xaxis_transform(), ha="center", color=look.color)
        fell = [f"{int(n)}" for n in (row.first_collapsed, row.second_collapsed) if not np.isnan(n)]
        below = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": SMALL}
        ax.text(at, 0.015, ", ".join(fell), **below)


def _broken(text: str) -> str:
    """Break a conclusion before what limits it, so that it fits over three values."""
    return text.replace(" where ", "\nwhere ").replace(" at ", "\nat ")


def _marks(points: pd.DataFrame) -> Sequence[list]:
    verdicts = [
        Line2D([], [], marker=of.marker, color=of.color, fillstyle=of.fill, linestyle="none", markersize=6.5, label=of.label)
        for of in LOOKS.values()
    ]
    verdicts.append(Line2D([], [], marker="$?$", color=style.GREY, linestyle="none", label="too few healthy pairs"))
    runs = points["runs"].max()
    counts = f"collapsed, of {runs} and {runs} runs"
    lines = [
        Line2D([], [], label="margin", **MARGIN),
        Line2D([], [], label="half of the paper's effect", **HALF),
        Patch(label="the scale's own value", **OWN),
        Line2D([], [], marker="$0,1$", markersize=13, color="black", linestyle="none", label=counts),
    ]
    return verdicts, lines

"""The primary claims of the paper in one picture: each effect with its interval, the two thresholds, and the verdict."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.results import Results, require
from sdpg.artefacts.claims.standing import RELATIVE, limits
from sdpg.artefacts.claims.verdicts import NOT_RUN, NOT_TESTABLE, OPEN, PRIMARY, REFUTED, SINGLE, SUPPORTED
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style
from sdpg.artefacts.figures.names import label
from sdpg.io import read_json

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("claims"), *files.metrics],
    place=0.1,
    caption=(
        "The paper's primary claims at this scale, in the order in which they are tested within each panel. Markers with bars: "
        "the effect with its 95% interval, of the set that decides; of claims about collapse, the share of either method's "
        "runs that collapsed, with its exact interval. Solid stroke: the margin, the least that counts (for collapses, the "
        "other method's share); dashed stroke: half of the paper's own effect. Supported: beyond the margin; refuted: short of "
        "half of the paper's effect; open: the data allow both. The verdicts are corrected for their number, the intervals are "
        "not. Definitions: docs/metrics.md, Claims."
    ),
)
COLUMNS = ["id", "claim", "unit", "part", "name", "value", "low", "high", "verdict"]
COLLAPSE = "share of runs"
PANELS = {  # unit of a claim: title, axis
    COLLAPSE: ("collapsed runs", "share of runs (fraction)"),
    "fraction": ("accuracy", "difference of accuracy (fraction)"),
    RELATIVE: ("entropy and length", "relative change (%, on a scale of ratios)"),
}
LOOKS = {  # verdict: colour, marker, whether it is filled
    SUPPORTED: ("#004488", "o", True),
    REFUTED: ("#d55e00", "s", True),
    OPEN: ("#333333", "o", False),
    NOT_TESTABLE: ("#767676", "D", False),
    SINGLE: ("#333333", "v", False),
    NOT_RUN: ("#767676", "", False),
}
CHANGES = (-0.9, -0.75, -0.5, -0.2, 0.0, 0.25, 1.0, 3.0, 9.0)  # labelled on the scale of ratios
FURTHEST = np.log(20)  # on that scale: what lies beyond is an arrow, and stands in words beside it
ROW, HEAD, CLAIM_WIDTH = 0.42, 0.62, 40  # inches: a claim, what a panel has above and below; characters of a line of it


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs claims.json. The frame's parts: effect, share (of one method's runs), margin and half (of the paper's
    effect). Relative changes are fractions there. Raises ValueError for a file without a primary claim.
    """
    path = results.root / "claims.json"
    require(path)
    claims = [claim for claim in read_json(path) if claim.get("role") == PRIMARY]
    if not claims:
        raise ValueError(f"{path} has no claim with the role {PRIMARY!r}; make it again from config/claims.yaml")
    units = sorted({claim["unit"] for claim in claims}, key=lambda unit: [*PANELS, unit].index(unit))
    panels = [(unit, [claim for claim in claims if claim["unit"] == unit]) for unit in units]
    heights = [HEAD + ROW * len(several) for _, several in panels]
    figure = style.new_figure(style.WIDTH, sum(heights) + 0.2)
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    rows = []
    for i, ((unit, several), letter) in enumerate(zip(panels, style.letters(len(panels)), strict=True)):
        ax = figure.add_subplot(grid[i])
        title, xlabel = PANELS.get(unit, (unit, f"difference ({unit})"))
        for y, claim in enumerate(several):
            rows += _claim(ax, y, claim)
        _finish(ax, unit, several)
        style.set_title(ax, f"{letter} {title}")
        ax.set_xlabel(xlabel)
    figure.suptitle(f"The paper's primary claims at scale {results.name} ({_units(len(results.seeds))})", fontsize=9)
    style.legend_below(figure, *_marks(claims))
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _units(count: int) -> str:
    return f"{count} units, a base model with a seed" if count > 1 else "one run of each method"


def _claim(ax: Axes, y: int, claim: dict[str, Any]) -> list[tuple]:
    """Draw one claim -> its rows of the frame."""
    drawn = [*_points(claim), *_levels(claim)]
    color, marker, filled = LOOKS[claim["verdict"]]
    for part, name, value, low, high in drawn:
        at, left, right = (_place(end, claim["unit"]) for end in (value, low, high))
        if part in ("margin", "half"):
            look = {"linestyle": "-" if part == "margin" else (0, (2, 1.2)), "linewidth": 1.2, "color": "black"}
            ax.plot([at, at], [y - 0.36, y + 0.36], zorder=2, label=f"_{part}", **look)
            continue
        second = part == "share" and name != drawn[0][1]
        place = y + (0.17 if second else -0.17) * (part == "share")
        own = {"markerfacecolor": color if filled and not second else "white", "label": f"_{part}"}
        style.interval(ax, place, at, left, right, style.GREY if second else color, "o" if second else marker, **own)
        for end, value_there, arrow in ((left, low, "<"), (right, high, ">")):
            if claim["unit"] == RELATIVE and abs(np.log1p(value_there)) > FURTHEST:
                ax.plot([end], [place], marker=arrow, color=color, markersize=5, clip_on=False, label="_arrow")
    lines = [claim["verdict"], *_numbers(claim)]
    for i, line in enumerate(lines):
        bold = {"color": color, "weight": "bold"} if i == 0 else {"color": "black"}
        up = ((len(lines) - 1) / 2 - i) * 1.25 * style.SMALL
        place = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "annotation_clip": False, "va": "center"}
        ax.annotate(line, (1.03, y), (0, up), fontsize=style.SMALL, **place, **bold)
    start = (claim["id"], claim["claim"], claim["unit"])
    return [(*start, *row, claim["verdict"]) for row in drawn]


def _points(claim: dict[str, Any]) -> list[tuple]:
    """Return (part, name, value, low, high) of what was measured, in the claim's unit; nothing if it was not run."""
    if claim["test"] == "collapse":
        return [("share", of["method"], of["collapsed"] / of["runs"], of["low"], of["high"]) for of in claim["collapsed"]]
    if claim["effect"] is None:
        return []
    return [
        ("effect", claim["comparison"], *(np.nan if claim[key] is None else claim[key] for key in ("effect", "low", "high")))
    ]


def _levels(claim: dict[str, Any]) -> list[tuple]:
    """Return the rows of the margin and of half of the paper's effect, in the claim's unit, on the claimed side of 0."""
    margin, half = limits(claim)
    if claim["test"] == "collapse":  # the first method's share has to be beyond the other's
        margin += sum(of["collapsed"] / of["runs"] for of in claim["collapsed"][1:])
        if not claim["collapsed"]:
            return []
    rows = [("margin", "margin", margin, np.nan, np.nan)]
    return rows if half is None else [*rows, ("half", "half of the paper's effect", half, np.nan, np.nan)]


def _place(value: float, unit: str) -> float:
    """Return where a value stands on its panel's axis: relative changes by the logarithm of the ratio."""
    if unit != RELATIVE or np.isnan(value):
        return value
    return float(np.clip(np.log1p(max(value, -1 + 1e-12)), -FURTHEST, FURTHEST))


def _numbers(claim: dict[str, Any]) -> list[str]:
    """Return the numbers in words, a line each."""
    if claim["test"] == "collapse":
        return [f"{label(of['method'])}: {of['collapsed']} of {of['runs']}" for of in claim["collapsed"]]
    if claim["effect"] is None:
        return []
    texts = [_text(claim[key], claim["unit"]) for key in ("effect", "low", "high") if claim[key] is not None]
    deciding = [part["task"] for part in claim["parts"] if part["effect"] == claim["effect"] and part["task"]]
    where = f", {deciding[0]}" if len(claim["parts"]) > 1 and deciding else ""
    return [texts[0] + (f" [{texts[1]}, {texts[2]}]" if len(texts) == 3 else "") + where]


def _text(value: float, unit: str) -> str:
    shown = f"{value:+.0%}" if unit == RELATIVE else re.sub(r"(?<!\d)0\.", ".", f"{value:+.3f}")
    return shown.replace("-", "−")


def _finish(ax: Axes, unit: str, claims: Sequence[dict[str, Any]]) -> None:
    """Set the axes of a panel: the claims in words on y, and on x the scale of their unit."""
    ax.set_yticks(range(len(claims)), [_words(claim) for claim in claims], fontsize=style.SMALL)
    ax.set_ylim(len(claims) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    if unit == COLLAPSE:
        ax.set_xlim(0, 1.01)
        return
    ax.axvline(0, color=style.GREY, linewidth=0.8, label="_zero", zorder=1)
    low, high = ax.get_xlim()
    pad = 0.04 * (high - low)
    if unit == RELATIVE:
        low, high = max(low, -FURTHEST) - pad, min(high, FURTHEST) + pad
        ticks = [change for change in CHANGES if low <= np.log1p(change) <= high]
        ax.set_xticks(np.log1p(ticks), [f"{100 * change:+.0f}".replace("-", "−").replace("+0", "0") for change in ticks])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    ax.set_xlim(low, high)


def _words(claim: dict[str, Any]) -> str:
    """Return the claim without what its last brackets explain, in lines."""
    return textwrap.fill(re.sub(r" \([^()]*\)$", "", claim["claim"]), CLAIM_WIDTH)


def _marks(claims: Sequence[dict[str, Any]]) -> list[list[Line2D]]:
    """Return the legend: the verdicts that there are, and what the strokes mean."""
    there = {claim["verdict"] for claim in claims}
    verdicts = []
    for verdict, (color, marker, filled) in LOOKS.items():
        if verdict in there and marker:
            look = {"color": color, "marker": marker, "markersize": 4.2, "markerfacecolor": color if filled else "white"}
            verdicts.append(Line2D([], [], linewidth=1.4, label=verdict, **look))
    if any(claim["test"] == "collapse" and len(claim["collapsed"]) > 1 for claim in claims):
        other = {"color": style.GREY, "marker": "o", "markersize": 4.2, "markerfacecolor": "white"}
        verdicts.append(Line2D([], [], linewidth=1.4, label="the other method", **other))
    stroke = {"color": "black", "linestyle": "none", "marker": "|", "markersize": 8}
    return [
        verdicts,
        [
            Line2D([], [], label="margin: the least that counts", markeredgewidth=1.2, **stroke),
            Line2D([], [], color="black", linewidth=1.2, linestyle=(0, (2, 1.2)), label="half of the paper's effect"),
        ],
    ]

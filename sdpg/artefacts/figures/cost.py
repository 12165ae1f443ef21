"""Accuracy against what it costs: training steps, generated tokens, FLOPs and seconds, a row of panels per evaluation set."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.results import Results
from sdpg.artefacts.cost import AXES, budgets, read, recorded
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("cost"), *files.metrics],
    place=4,
    caption=(
        "Accuracy against four measures of cost: training steps, generated tokens, FLOPs (every forward and "
        "backward pass, rollouts, reference and teacher) and seconds of training without validation and "
        "checkpoints. Lines: mean over seeds of accuracy and of cost at each checkpoint; bands: range of the "
        "accuracy over seeds; dotted: the largest budget that every run of every method reached, where the table "
        "`cost` compares them. Of more than six methods, those of the paper's tables and GRPO with twice the "
        "responses. Seconds are of the machine that ran, with whatever else ran on it."
    ),
)
CONTROL = "grpo-double"  # GRPO with more compute: always shown
COLUMNS = ["task", "axis", "method", "step", "cost", "accuracy", "low", "high"]
LABELS = {"step": "training step", "tokens": "generated tokens", "flops": "FLOPs", "seconds": "seconds of training"}
POWERS = {1e3: "thousand", 1e6: "million", 1e9: "billion"}
PREFIXES = {1e3: "kilo", 1e6: "mega", 1e9: "giga", 1e12: "tera", 1e15: "peta", 1e18: "exa", 1e21: "zetta"}


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs cost.csv. The frame has one row per point of each line; none for an axis that the runs have not
    recorded.
    """
    frame = read(results)
    every = style.method_styles(results.methods)
    styles = style.readable(every) | {method: look for method, look in every.items() if method == CONTROL}
    limits = budgets(frame, results.diverged)
    figure, axes = style.panel_grid(len(AXES) * len(results.tasks), columns=len(AXES), panel=(2.75, 2.4))
    titles = style.letters(len(axes))
    rows = []
    for i, (ax, letter) in enumerate(zip(axes, titles, strict=True)):
        task, axis = results.tasks[i // len(AXES)], list(AXES)[i % len(AXES)]
        unit, divisor = units(axis, limits.get(axis) and frame[axis].max())
        of_task = frame[frame["task"] == task]
        known = [method for method in styles if method in recorded(of_task, axis)]
        for method in known:
            rows += _line(ax, of_task[of_task["method"] == method], axis, styles[method], divisor)
        if axis in limits:
            ax.axvline(limits[axis][0] / divisor, color=style.GREY, linestyle=":", linewidth=1, label="_budget", zorder=0)
        style.finish(ax, task, f"{results.accuracy} (fraction)", unit, ymin=0)
        style.set_title(ax, f"{letter} {task}", width=28)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        _missing(ax, [styles[method].label for method in styles if method not in known], len(styles))
    dotted = Line2D([], [], color=style.GREY, linestyle=":", linewidth=1, label="budget that every run reached")
    marks = [*style.band_handles("range over seeds", len(results.seeds)), dotted]
    style.legend_below(figure, style.method_handles(styles), marks)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def units(axis: str, largest: float | None) -> tuple[str, float]:
    """Return the label of an axis, and what its values are divided by: "generated tokens (thousand)", 1000."""
    if axis in ("step", "seconds") or not largest:
        return LABELS[axis], 1.0
    powers = PREFIXES if axis == "flops" else POWERS
    power = max((power for power in powers if power <= largest), default=None)
    if power is None:
        return LABELS[axis], 1.0
    return (f"{powers[power]}{LABELS[axis]}" if axis == "flops" else f"{LABELS[axis]} ({powers[power]})"), power


def _line(ax: Axes, rows: pd.DataFrame, axis: str, look: style.Style, divisor: float) -> list[tuple]:
    (task,), (method,) = rows["task"].unique(), rows["method"].unique()
    of_step = rows.groupby("step")
    accuracy = of_step["accuracy"].agg(["mean", "min", "max"])
    x = accuracy.index if axis == "step" else of_step[axis].mean()
    style.band(ax, x / divisor, accuracy["min"], accuracy["max"], look, style.MANY + 1)
    style.line(ax, x / divisor, accuracy["mean"], look)
    points = zip(accuracy.index, x, accuracy["mean"], accuracy["min"], accuracy["max"], strict=True)
    return [(task, axis, method, *point) for point in points]


def _missing(ax: Axes, labels: list[str], methods: int) -> None:
    """Say in the panel whose cost is not recorded."""
    if not labels:
        return
    everything = len(labels) == methods
    text = "not recorded in these runs" if everything else "not recorded: " + ", ".join(labels)
    place = (0.5, 0.5) if everything else (0.5, 0.03)
    text = textwrap.fill(text, style.TITLE_WIDTH)
    ax.text(*place, text, transform=ax.transAxes, ha="center", va="center" if everything else "bottom", fontsize=8)
    if everything:
        ax.set(xticks=[], yticks=[])

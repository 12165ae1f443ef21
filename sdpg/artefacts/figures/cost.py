"""Accuracy against what it costs: generated tokens and FLOPs, a row of two panels per evaluation set."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sdpg.analysis.results import Results, pivot_seeds
from sdpg.artefacts.cost import budgets, read, recorded
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import lines, style
from sdpg.artefacts.figures.names import BASE

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("cost"), *files.made("scores"), *files.metrics],
    place=4,
    caption=(
        "Accuracy against two measures of cost: generated tokens, and FLOPs (every forward and backward pass, rollouts, "
        "reference and teacher; seconds of training where no run has recorded them). Bold lines: mean over seeds of "
        "accuracy and of cost at each checkpoint; thin lines: single seeds; dotted, level: the base model; dotted, "
        "upright: the largest budget that every run of every method reached, where the table `cost` compares them, also by "
        "steps and seconds. Of more than six methods, those of the paper's tables and GRPO with more compute."
    ),
)
CONTROLS = ("grpo-double", "grpo-equal-compute")  # GRPO with more compute: always shown
COLUMNS = ["part", "task", "axis", "method", "seed", "step", "cost", "accuracy"]
LABELS = {"tokens": "generated tokens", "flops": "FLOPs", "seconds": "seconds of training"}
POWERS = {1e3: "thousand", 1e6: "million", 1e9: "billion"}
PREFIXES = {1e3: "kilo", 1e6: "mega", 1e9: "giga", 1e12: "tera", 1e15: "peta", 1e18: "exa", 1e21: "zetta"}


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs cost.csv and scores.csv. The frame's parts: curve (mean), run (a seed's thin line), base (the base model)
    and budget (that every run reached, with the run that ends there); no line for an axis that the runs of a method have not
    recorded.
    """
    frame = read(results)
    every = style.method_styles(results.methods)
    styles = style.readable(every) | {method: look for method, look in every.items() if method in CONTROLS}
    limits = budgets(frame, results.diverged)
    shown = ("tokens", "flops" if recorded(frame[frame["method"].isin(styles)], "flops") else "seconds")
    figure, axes = style.panel_grid(len(shown) * len(results.tasks), columns=len(shown), panel=(style.WIDTH / 2, 2.1))
    rows, ends = [], {}
    places = [(task, axis) for task in results.tasks for axis in shown]
    for ax, letter, (task, axis) in zip(axes, style.letters(len(axes)), places, strict=True):
        unit, divisor = units(axis, limits.get(axis) and frame[axis].max())
        of_task = frame[frame["task"] == task]
        known = [method for method in styles if method in recorded(of_task, axis)]
        missing = [styles[method].label for method in styles if method not in known]
        ends[ax] = []
        for method in known:
            drawn, end = _line(ax, of_task[of_task["method"] == method], axis, styles[method], divisor)
            rows += drawn
            ends[ax].append(end)
        rows += _marks(ax, results, task, axis, limits.get(axis), divisor)
        style.finish(ax, f"{letter} {task}", f"{results.accuracy} (fraction)", unit)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        style.from_zero(ax)
        if missing:
            ax.set_xlabel(f"{unit}\nnot recorded: {', '.join(missing)}")
    dotted = Line2D([], [], color=style.GREY, linestyle=":", linewidth=1, marker="|", label="budget that every run reached")
    style.legend_below(figure, [*lines.handles(len(results.seeds)), dotted])
    lines.name_ends(figure, ends)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def units(axis: str, largest: float | None) -> tuple[str, float]:
    """Return the label of an axis, and what its values are divided by: "generated tokens (thousand)", 1000."""
    if axis == "seconds" or not largest:
        return LABELS[axis], 1.0
    powers = PREFIXES if axis == "flops" else POWERS
    power = max((power for power in powers if power <= largest), default=None)
    if power is None:
        return LABELS[axis], 1.0
    return (f"{powers[power]}{LABELS[axis]}" if axis == "flops" else f"{LABELS[axis]} ({powers[power]})"), power


def _line(ax: Axes, rows: pd.DataFrame, axis: str, look: style.Style, divisor: float) -> tuple[list[tuple], lines.End]:
    (task,), (method,) = rows["task"].unique(), rows["method"].unique()
    what = f"cost.csv, {method} on {task}"
    accuracy, spent = (pivot_seeds(rows, column, what) for column in ("accuracy", axis))
    drawn = [
        (
            *("curve" if seed is None else "run", task, axis, method, seed, step),
            (spent.loc[step].mean() if seed is None else spent.loc[step, seed]),
            value,
        )
        for seed, step, value in lines.runs(ax, accuracy, look, x=spent / divisor)
    ]
    return drawn, lines.End(spent.iloc[-1].mean() / divisor, accuracy.iloc[-1].mean(), look.label, look.color)


def _marks(ax: Axes, results: Results, task: str, axis: str, limit: tuple | None, divisor: float) -> list[tuple]:
    """Draw the base model's level and the budget that every run reached."""
    base = lines.base_accuracy(results, task)
    lines.base_level(ax, base)
    rows = [("base", task, axis, BASE, None, 0, 0.0, base)] if base == base else []
    if limit:
        ax.axvline(limit[0] / divisor, color=style.GREY, linestyle=":", linewidth=1, label="_budget", zorder=0)
        rows.append(("budget", task, axis, limit[1], limit[2], None, limit[0], None))
    return rows

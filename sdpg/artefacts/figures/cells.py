"""The picture of the matrix: a dot plot for each cell and set, with teacher and rate as margins where the cells form a grid."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.intervals import interval_name
from sdpg.analysis.results import Results, run_parameters
from sdpg.artefacts.figures import lines, style
from sdpg.artefacts.figures.names import BASE

POINTS = ["part", "cell", "task", "method", "seed", "value", "low", "high"]
ROW, HEAD, PER_ROW = 0.19, 0.62, 3  # inches: a method, what a panel has above and below; panels in a row without margins


@dataclass(frozen=True)
class Place:
    """Where a cell lies: the teacher's bias (how often a hinted demonstration skips a step; None without warm start), what
    every learning rate is multiplied by, and all else that problems and base models are made of.
    """

    teacher: float | None
    rate: float
    rest: str

    @property
    def teacher_words(self) -> str:
        return "no warm start" if self.teacher is None else f"teacher's {self.bias_words}"

    @property
    def bias_words(self) -> str:
        return "" if self.teacher is None else f"bias {self.teacher:g}"

    @property
    def rate_words(self) -> str:
        return f"rate × {self.rate:g}"


def place(cell: Results) -> Place:
    """Return where a cell lies, as run.json of its first run says."""
    method, seed = cell.runs[0]
    config = run_parameters(cell.run_info(method, seed), cell.run_dir(method, seed) / "run.json")
    model = config.get("model")
    warm = dict(model["warm_start"]) if isinstance(model, dict) and model.get("warm_start") else {}
    teacher = warm.pop("jump_hinted", None)
    rest = [warm or model, config.get("task"), config.get("data")]
    return Place(teacher, config["train"].get("lr_multiplier", 1.0), json.dumps(rest, sort_keys=True))


def is_grid(places: Sequence[Place]) -> bool:
    """Return whether cells differ in teacher and rate alone, and every pair of them is there once."""
    teachers, rates = {at.teacher for at in places}, {at.rate for at in places}
    full = len(set(places)) == len(places) == len(teachers) * len(rates)
    return full and len({at.rest for at in places}) == 1 and len(teachers) > 1 and len(rates) > 1


def draw(cells: Sequence[Results], frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the rows of matrix.csv (`frame`); needs scores.csv and a run.json of each cell.

    The frame returned: a row per drawn point (POINTS), part last (mean and interval), seed, or base (the base model).
    """
    styles = style.method_styles(dict.fromkeys(frame["method"]))
    places = [place(cell) for cell in cells]
    grid = is_grid(places)
    panels = _margins(cells, places) if grid else _one_by_one(cells, places)
    columns = max(column for _, column, *_ in panels) + 1
    height = HEAD + ROW * style.row_lines(styles) * len(styles)
    figure = style.new_figure(style.WIDTH, height * (max(row for row, *_ in panels) + 1))
    layout = figure.add_gridspec(max(row for row, *_ in panels) + 1, columns)
    rows, first = [], None
    for row, column, cell, task, title, margin in panels:
        ax = figure.add_subplot(layout[row, column], sharey=first)
        first = first or ax
        own = frame[(frame["cell"] == cell.root.name) & (frame["task"] == task)]
        rows += _panel(ax, cell, task, own, styles)
        style.method_rows(ax, styles)
        ax.tick_params(axis="y", labelleft=column == 0, length=0)
        ax.set_title(title, loc="left", fontsize=8)
        ax.set_xlabel(f"{cell.accuracy} (fraction)")
        if margin:
            ax.text(1.06, 0.5, margin, transform=ax.transAxes, rotation=270, va="center", fontsize=8.5)
    dot = Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", markersize=4.2, linewidth=1.4)
    dot.set_label(f"mean and {interval_name(max(len(cell.seeds) for cell in cells))}")
    style.legend_below(figure, [dot, style.seed_handle(), lines.handles(2)[-1]])
    return figure, pd.DataFrame(rows, columns=POINTS)


def _margins(cells: Sequence[Results], places: Sequence[Place]) -> list[tuple]:
    """Return (row, column, cell, set, title, margin): rates below each other, teachers side by side, the sets within."""
    rates, teachers = (list(dict.fromkeys(values)) for values in ([p.rate for p in places], [p.teacher for p in places]))
    tasks = list(dict.fromkeys(task for cell in cells for task in cell.tasks))
    found = []
    for cell, at in zip(cells, places, strict=True):
        row, left = rates.index(at.rate), teachers.index(at.teacher) * len(tasks)
        for task in cell.tasks:
            column = left + tasks.index(task)
            last = column == len(teachers) * len(tasks) - 1
            title = f"{at.teacher_words}\n{task}" if row == 0 else task
            found.append((row, column, cell, task, title, at.rate_words if last else ""))
    return found


def _one_by_one(cells: Sequence[Results], places: Sequence[Place]) -> list[tuple]:
    """Return the same for cells that are no grid: one panel after the other, each called by its cell and what that is."""
    panels = [(cell, at, task) for cell, at in zip(cells, places, strict=True) for task in cell.tasks]
    columns = min(PER_ROW, math.ceil(len(panels) / math.ceil(len(panels) / PER_ROW)))
    found = []
    for i, (cell, at, task) in enumerate(panels):
        other = at.rest != places[0].rest
        what = "another environment" if other else ", ".join(filter(None, [at.bias_words, at.rate_words]))
        found.append((i // columns, i % columns, cell, task, f"{cell.root.name}: {task}\n{what}", ""))
    return found


def _panel(ax: Axes, cell: Results, task: str, own: pd.DataFrame, styles: dict[str, style.Style]) -> list[tuple]:
    name, rows = cell.root.name, []
    scores = cell.scores[(cell.scores["metric"] == cell.accuracy) & (cell.scores["task"] == task)]
    base = lines.base_accuracy(cell, task)
    lines.base_level(ax, base, "x")
    rows += [("base", name, task, BASE, None, base, None, None)] if base == base else []
    for y, (method, look) in enumerate(styles.items()):
        for _, row in own[own["method"] == method].iterrows():
            points = scores[(scores["method"] == method) & (scores["step"] == row["step"])]
            style.interval_row(ax, y, row["mean"], row["low"], row["high"], points["value"], look)
            rows.append(("last", name, task, method, None, row["mean"], row["low"], row["high"]))
            rows += [("seed", name, task, method, int(p["seed"]), p["value"], None, None) for _, p in points.iterrows()]
    ax.set_xlim(0, 1.02)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    return rows

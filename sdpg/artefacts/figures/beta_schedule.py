"""The distillation weight beta(k) as each run logged it, against the schedule of section 3.5.2 with its parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.results import Results, run_parameters
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.records, *files.metrics],
    place=12,
    caption=(
        "Weight of the distillation term by training step: markers are the values that the runs logged, the line is "
        "beta_base * min(1, k / T_warm) * min(1, (T - k) / T_decay) with the parameters of the run. Vertical lines "
        "mark the end of the warm-up, T_warm, and the start of the decay, T - T_decay."
    ),
)
COLUMNS = ["method", "seed", "step", "logged", "analytic"]
PARAMETERS = ("beta_base", "T_warm", "T_decay")
WARM = {"color": "black", "linestyle": (0, (1, 2)), "linewidth": 1.4}
DECAY = {"color": "#999999", "linestyle": (0, (5, 3)), "linewidth": 1.4}
SEED_MARKERS = ("o", "x", "+", "s", "^", "v", "D", "*")


def schedule(k: np.ndarray, *, beta_base: float, T: int, T_warm: int, T_decay: int) -> np.ndarray:
    """Compute beta(k) of section 3.5.2, written out here independently of the code that trains; a ramp of length 0 is no
    ramp.
    """
    k = np.asarray(k, dtype=float)
    warm = np.minimum(1, k / T_warm) if T_warm else np.ones_like(k)
    decay = np.clip((T - k) / T_decay, 0, 1) if T_decay else np.ones_like(k)
    return beta_base * warm * decay


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs run.json and metrics.jsonl of every run. One panel per method whose parameters have a schedule."""
    parameters = {run: _parameters(results, *run) for run in results.runs}
    methods = [m for m in results.methods if any(parameters[(m, seed)] for seed in results.seeds)]
    styles = {m: look for m, look in style.method_styles(results.methods).items() if m in methods}
    figure, axes = style.panel_grid(max(1, len(methods)))
    if not methods:
        axes[0].text(0.5, 0.5, "no method of this scale\nhas a schedule", ha="center", va="center")
        axes[0].set_axis_off()
        return figure, pd.DataFrame(columns=COLUMNS)
    rows = []
    for ax, (method, look), letter in zip(axes, styles.items(), style.letters(len(axes)), strict=True):
        for i, seed in enumerate(results.seeds):
            rows += _run(ax, results, method, seed, i, look, parameters[(method, seed)])
        where = _mark(ax, parameters[(method, results.seeds[0])])
        style.finish(ax, f"{letter} {look.label}\n{where}", "weight β (dimensionless)", "training step k")
        ax.set_ylim(bottom=0, top=ax.get_ylim()[1] * 1.08)
    marks = [Line2D([], [], color=style.GREY, linewidth=1.5, label="schedule")]
    marks += [
        Line2D([], [], color="black", marker=SEED_MARKERS[i % 8], linestyle="none", fillstyle="none", label=f"seed {seed}")
        for i, seed in enumerate(results.seeds)
    ]
    ends = [Line2D([], [], label=r"$T_\mathrm{warm}$", **WARM), Line2D([], [], label=r"$T - T_\mathrm{decay}$", **DECAY)]
    style.legend_below(figure, marks, ends)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _parameters(results: Results, method: str, seed: int) -> dict | None:
    path = results.run_dir(method, seed) / "run.json"
    config = run_parameters(results.run_info(method, seed), path)
    algorithm = config["algorithm"]
    if not all(name in algorithm for name in PARAMETERS):
        return None
    return {name: algorithm[name] for name in PARAMETERS} | {"T": algorithm.get("T", config["train"]["steps"])}


def _run(ax: Axes, results: Results, method: str, seed: int, i: int, look: style.Style, parameters: dict) -> list[tuple]:
    run = results.metrics.query("method == @method and seed == @seed")
    if "beta" not in run or run["beta"].isna().any():
        raise ValueError(f"{results.run_dir(method, seed)}/metrics.jsonl has no beta in some rows, but run.json has a schedule")
    steps, logged = run["step"].to_numpy(), run["beta"].to_numpy(dtype=float)
    analytic = schedule(steps, **parameters)
    if i == 0:
        k = np.arange(0, parameters["T"] + 1)
        ax.plot(k, schedule(k, **parameters), color=look.color, linewidth=1.5, label="schedule")
    stride = max(1, len(steps) // 16)
    first = min(len(steps) - 1, (i * stride) // max(1, len(results.seeds)))  # seeds take turns, so that all can be seen
    ax.plot(
        steps[first::stride],
        logged[first::stride],
        linestyle="none",
        marker=SEED_MARKERS[i % 8],
        fillstyle="none",
        color="black",
        markersize=4.5,
        label=f"seed {seed}",
    )
    return [(method, seed, *point) for point in zip(steps, logged, analytic, strict=True)]


def _mark(ax: Axes, parameters: dict) -> str:
    """Draw vertical lines at T_warm and T - T_decay, and return the text that says where they are."""
    decay, warm = parameters["T"] - parameters["T_decay"], parameters["T_warm"]
    ax.axvline(decay, label="_decay", **DECAY)
    ax.axvline(warm, label="_warm", **WARM)
    return rf"$T_\mathrm{{warm}}={warm}$, $T-T_\mathrm{{decay}}={decay}$"

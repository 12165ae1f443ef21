"""The distillation weight beta(k) as the runs logged it, against the schedule of section 3.5.2 with their parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.results import Results, run_parameters
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import lines, style

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.records, *files.metrics],
    place=12,
    caption=(
        "Weight of the distillation term by training step, as a share of beta_base: markers are values that the runs logged "
        "(seeds and methods take turns), lines are min(1, k / T_warm) * min(1, (T - k) / T_decay) with the parameters of the "
        "runs. Methods with the same schedule share a line. Where beta_base is 0 there is nothing to weigh, and no line."
    ),
)
COLUMNS = ["method", "seed", "step", "logged", "analytic", "beta_base"]
PARAMETERS = ("beta_base", "T_warm", "T_decay")
MARKERS = 25  # spread over each line; runs take turns
LOOKS = [  # of the schedules that differ, in turn
    ("#004488", "-", "o"),
    ("#d55e00", (0, (5, 1.6)), "s"),
    ("#111111", (0, (1.2, 1.3)), "^"),
    ("#56b4e9", (0, (6, 1.5, 1.2, 1.5)), "v"),
]
_BETA = r"$\beta_\mathrm{base}$"


def schedule(k: np.ndarray, *, beta_base: float, T: int, T_warm: int, T_decay: int) -> np.ndarray:
    """Compute beta(k) of section 3.5.2, written out here independently of the code that trains; a ramp of length 0 is no
    ramp.
    """
    k = np.asarray(k, dtype=float)
    warm = np.minimum(1, k / T_warm) if T_warm else np.ones_like(k)
    decay = np.clip((T - k) / T_decay, 0, 1) if T_decay else np.ones_like(k)
    return beta_base * warm * decay


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs run.json and metrics.jsonl of every run. The frame: a row for each step of each run that has a schedule,
    all steps, not those with a marker alone.
    """
    parameters = {run: found for run in results.runs if (found := _parameters(results, *run))}
    data = pd.DataFrame([row for run in parameters for row in _run(results, *run, parameters[run])], columns=COLUMNS)
    figure = style.new_figure(style.WIDTH, 2.2)
    ax = figure.add_subplot()
    groups: dict[tuple, list] = {}
    for run, of in parameters.items():
        if of["beta_base"]:
            groups.setdefault((of["T"], of["T_warm"], of["T_decay"]), []).append(run)
    ends = []
    for i, ((T, warm, decay), runs) in enumerate(groups.items()):
        color, dash, marker = LOOKS[i % len(LOOKS)]
        k = np.arange(0, T + 1)
        ratio = schedule(k, beta_base=1, T=T, T_warm=warm, T_decay=decay)
        ax.plot(k, ratio, color=color, linestyle=dash, linewidth=1.4, label="_schedule")
        for j, (method, seed) in enumerate(runs):
            own = data[(data["method"] == method) & (data["seed"] == seed)]
            places = np.unique(np.linspace(0, len(own) - 1, MARKERS).astype(int))
            own = own.iloc[places[j % len(places) :: len(runs)]]
            mark = {"color": color, "marker": marker, "fillstyle": "none", "markersize": 3.6, "markeredgewidth": 0.8}
            ax.plot(own["step"], own["logged"] / own["beta_base"], linestyle="none", label="_logged", **mark)
        ends.append(lines.End(T, ratio[-1], _name(runs, parameters, warm, decay), color))
    style.finish(ax, "weight of the distillation", rf"$\beta(k)$ / {_BETA} (fraction)", "training step k")
    ax.set_ylim(0, 1.08)
    if not groups:
        ax.text(0.5, 0.5, "no method of this scale has a schedule", transform=ax.transAxes, ha="center", va="center")
        return figure, data
    marks = [
        Line2D([], [], color=style.GREY, linewidth=1.4, label="schedule"),
        Line2D(
            [], [], color=style.GREY, marker="o", fillstyle="none", linestyle="none", markersize=3.6, label="logged by the runs"
        ),
    ]
    style.legend_below(figure, marks)
    lines.name_ends(figure, {ax: ends}, width=46)
    return figure, data


def _name(runs: list, parameters: dict, warm: int, decay: int) -> str:
    """Return the methods of one line in words, with beta_base: once if it is the same for all."""
    bases = {method: parameters[method, seed]["beta_base"] for method, seed in runs}
    looks = style.method_styles(bases)
    same = len(set(bases.values())) == 1
    names = ", ".join(looks[method].label + ("" if same else f" ({_BETA}={base:g})") for method, base in bases.items())
    said = [f"$T_\\mathrm{{warm}}={warm}$", f"$T_\\mathrm{{decay}}={decay}$"] if warm or decay else ["constant"]
    said += [f"{_BETA}={next(iter(bases.values())):g}"] if same else []
    return f"{names}\n{', '.join(said)}"


def _parameters(results: Results, method: str, seed: int) -> dict | None:
    path = results.run_dir(method, seed) / "run.json"
    config = run_parameters(results.run_info(method, seed), path)
    algorithm = config["algorithm"]
    if not all(name in algorithm for name in PARAMETERS):
        return None
    return {name: algorithm[name] for name in PARAMETERS} | {"T": algorithm.get("T", config["train"]["steps"])}


def _run(results: Results, method: str, seed: int, parameters: dict) -> list[tuple]:
    run = results.metrics.query("method == @method and seed == @seed")
    if "beta" not in run or run["beta"].isna().any():
        raise ValueError(f"{results.run_dir(method, seed)}/metrics.jsonl has no beta in some rows, but run.json has a schedule")
    steps, logged = run["step"].to_numpy(), run["beta"].to_numpy(dtype=float)
    analytic = schedule(steps, **parameters)
    return [(method, seed, *point, parameters["beta_base"]) for point in zip(steps, logged, analytic, strict=True)]

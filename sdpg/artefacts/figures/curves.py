"""Curves over the training steps, for the figures that show them: accuracy per evaluation set, and metrics of the rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.diverged import held, unexplained
from sdpg.analysis.results import Results, pivot_seeds, run_parameters, smoothing_window
from sdpg.artefacts.declare import PAPER
from sdpg.artefacts.figures import lines, style
from sdpg.artefacts.figures.names import BASE

COLUMNS = ["panel", "method", "seed", "step", "value"]  # no seed: the mean over the seeds
PER_ROW = 2  # panels
TRAINING = {  # column of metrics.jsonl: title, unit
    "reward": ("training reward", "reward per response"),
    "entropy": ("policy entropy", "entropy (nats per token)"),
    "response_length": ("response length", "mean length (tokens)"),
}
EXTRAS = {  # fill the last row, in this order, where there is room and the runs have them
    "process_accuracy": ("process accuracy, training", "fraction of responses"),
    "truncated": ("truncated responses, training", "fraction of responses"),
}
PUBLISHED_MARKERS = 8  # spread over each published curve


def draw(
    results: Results, styles: Mapping[str, style.Style], overlay: pd.DataFrame | None = None, extra: Sequence[Line2D] = ()
) -> tuple[Figure, pd.DataFrame]:
    """Return the panels of the methods in `styles`, and one row per point of each line of theirs (COLUMNS).

    Needs scores.csv and every run's metrics.jsonl. overlay: published curves, with columns panel, method, step and value;
    extra: their legend entries.
    """
    panels = _training_panels(results)
    titles = style.letters(len(results.tasks) + len(panels))
    figure, axes = style.panel_grid(len(titles), columns=PER_ROW)
    window = smoothing_window(results.steps or int(results.metrics["step"].max()))
    rows, ends = [], {}
    for panel, ax, letter in zip([*results.tasks, *panels], axes, titles, strict=True):
        if panel in panels:
            name, unit = panels[panel]
            new = _training_panel(ax, results, panel, styles, window)
        else:
            name, unit = f"accuracy: {panel}", f"{results.accuracy} (fraction)"
            new = _accuracy_panel(ax, results, panel, styles)
        lowest = min((row[-1] for row in new), default=0.0)
        if overlay is not None:
            for method, curve in overlay[overlay["panel"] == panel].groupby("method", sort=False):
                style.published(ax, curve["step"], curve["value"], styles[method], markers=PUBLISHED_MARKERS)
                lowest = min(lowest, curve["value"].min())
        style.finish(ax, f"{letter} {name}", unit, ymin=0 if lowest >= 0 else None)  # a reward may be negative
        if panel not in panels:
            style.from_zero(ax)
        ends[ax] = _ends(new, styles)
        rows += new
    style.legend_below(figure, [*lines.handles(len(results.seeds)), *_smoothing(window)], extra)
    lines.name_ends(figure, ends)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _smoothing(window: int) -> list[Line2D]:
    """Return the legend entry that says how rollout metrics are smoothed."""
    text = f"rollout metrics: mean of {window} steps around each step"
    return [Line2D([], [], linestyle="none", label=text)] if window > 1 else []


def _ends(rows: list[tuple], styles: Mapping[str, style.Style]) -> list[lines.End]:
    """Return where the means of a panel end."""
    last = {method: (step, value) for _, method, seed, step, value in rows if seed is None}
    return [lines.End(*last[method], look.label, look.color) for method, look in styles.items() if method in last]


def compare(
    results: Results,
    shown: Sequence[str],
    published: str,
    *,
    labels: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Return the panels for those of the methods `shown` that the config has, with the paper's curves where panels
    correspond.

    published: figure in results/published/curves.csv. labels: method -> label, where it is not the usual one. names: method ->
    its name in curves.csv, where that differs. The frame has one more column, source: runs or published. Needs every
    run.json too. Raises ValueError if the config has fewer than two of the methods.
    """
    methods = tuple(method for method in shown if method in results.methods)
    if len(methods) < 2:
        there = f"only {methods[0]}" if methods else "none"
        raise ValueError(f"this figure compares {', '.join(shown)}; the config of {results.root} has {there} of them")
    styles = {
        method: replace(look, label=(labels or {}).get(method, look.label))
        for method, look in style.method_styles(methods).items()
    }
    overlay = _published(results, styles, published, names or {})
    extra = []
    if not overlay.empty:
        model = overlay["model"].iloc[0]
        label = f"published: {model}, single runs (Figure {published.removeprefix('fig')} of {PAPER})"
        extra = [style.published_handle(label)]
    figure, data = draw(results, styles, overlay, extra)
    parts = [data.assign(source="runs"), overlay.drop(columns="model").assign(source="published")]
    return figure, pd.concat(parts[: 1 + len(extra)], ignore_index=True)


def _published(results: Results, methods: Iterable[str], figure: str, names: Mapping[str, str]) -> pd.DataFrame:
    """Return the points of a published figure for the methods and panels that correspond: panel, method, step, value, model."""
    curves = results.published_curves.query("figure == @figure")
    found = []
    for panel in corresponding(results.tasks, set(curves["metric"])):
        for method in methods:
            curve = curves[(curves["metric"] == panel) & (curves["method"] == names.get(method, method))]
            values = _own_reward(results, method, curve["value"]) if panel == "reward" else curve["value"]
            found.append(curve[["step", "model"]].assign(panel=panel, method=method, value=values).sort_values("step"))
    columns = ["panel", "method", "step", "value", "model"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def corresponding(tasks: Sequence[str], published: set[str]) -> list[str]:
    """Return the panels that show what the paper's show: evaluation sets of the same name; metrics of the rollouts only if
    every evaluation set is one of the paper's, since on other problems entropies and lengths have nothing to do with each
    other.
    """
    same = [task for task in tasks if task in published - TRAINING.keys()]
    return same + [metric for metric in TRAINING if metric in published and len(same) == len(tasks)]


def _own_reward(results: Results, method: str, values: pd.Series) -> pd.Series:
    """Put published rewards, which count -1 and +1, on the scale of our runs' rewards (0 and 1 unless the run says
    otherwise).
    """
    seed = results.seeds[0]
    train = run_parameters(results.run_info(method, seed), results.run_dir(method, seed) / "run.json")["train"]
    wrong, right = train.get("reward", (0, 1))
    return wrong + (values + 1) / 2 * (right - wrong)


def _training_panels(results: Results) -> dict[str, tuple[str, str]]:
    """Return the three panels of the paper, and as many of EXTRAS as fill the last row."""
    metrics = results.metrics
    missing = [column for column in TRAINING if column not in metrics or unexplained(metrics, column).any()]
    if missing:
        raise ValueError(f"{results.root}/runs/*/*/metrics.jsonl: no value for {', '.join(missing)} in some rows")
    there = {name: text for name, text in EXTRAS.items() if name in metrics and metrics[name].notna().all()}
    free = -(len(results.tasks) + len(TRAINING)) % PER_ROW
    return TRAINING | dict(list(there.items())[:free])


def _accuracy_panel(ax: Axes, results: Results, task: str, styles) -> list[tuple]:
    rows = []
    scores = results.scores
    for method, look in styles.items():
        chosen = scores.query("method == @method and task == @task and metric == @results.accuracy")
        what = f"{results.root / 'scores.csv'}, {results.accuracy} of {method} on {task}"
        if chosen.empty:
            raise ValueError(f"{what}: no rows; make scores.csv again from this config")
        rows += [(task, method, *point) for point in lines.runs(ax, pivot_seeds(chosen, "value", what), look)]
    base = lines.base_accuracy(results, task)
    lines.base_level(ax, base)
    return [*rows, (task, BASE, None, 0, base)] if base == base else rows


def _training_panel(ax: Axes, results: Results, column: str, styles, window: int) -> list[tuple]:
    rows = []
    for method, look in styles.items():
        steps = results.steps or int(results.metrics["step"].max())
        table = held(results.metrics.query("method == @method"), column, results.seeds, steps).dropna(axis=1)
        if table.empty:  # every run diverged before it had a value
            continue
        smooth = table.rolling(window, center=True, min_periods=1).mean()
        points = lines.runs(ax, smooth, look, markers=6, stride=window // 2 + 1)
        rows += [(column, method, *point) for point in points]
    return rows

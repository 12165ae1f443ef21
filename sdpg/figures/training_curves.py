"""The six panels of the paper's Figure 3, from our own runs: accuracy per evaluation set, reward, entropy, response length."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.intervals import RANGE_NAME, seed_range
from sdpg.analysis.results import Results, pivot_seeds
from sdpg.figures import style

CAPTION = (
    "Training curves per method: accuracy on each evaluation set, training reward, entropy and response length over the "
    "training steps. Lines are means over seeds, bands the range from the lowest to the highest seed."
)
COLUMNS = ["panel", "method", "step", "mean", "low", "high", "unsmoothed_mean"]
TRAINING = {  # column of metrics.jsonl: title, unit
    "reward": ("training reward", "mean reward per response"),
    "entropy": ("policy entropy", "entropy (nats per token)"),
    "response_length": ("response length", "mean length (tokens)"),
}
EXTRAS = {  # fill the last row, in this order, where there is room and the runs have them
    "process_accuracy": ("process accuracy, training", "fraction of responses"),
    "truncated": ("truncated responses, training", "fraction of responses"),
}


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Needs scores.csv and every run's metrics.jsonl. The frame has one row per point of each line (COLUMNS)."""
    styles = style.method_styles(results.methods)
    panels = _training_panels(results)
    titles = style.letters(len(results.tasks) + len(panels))
    figure, axes = style.panel_grid(len(titles))
    rows = []
    for task, ax in zip(results.tasks, axes, strict=False):
        rows += _accuracy_panel(ax, results, task, styles, titles.pop(0))
    window = smoothing_window(int(results.metrics["step"].max()))
    for (column, (name, unit)), ax in zip(panels.items(), axes[len(results.tasks) :], strict=True):
        rows += _training_panel(ax, results, column, styles, window)
        style.finish(ax, f"{titles.pop(0)} {name}", unit, ymin=0)
    marks = style.band_handles(RANGE_NAME, len(results.seeds))
    if window > 1:
        marks.append(
            Line2D([], [], color=style.GREY, label=f"rollout metrics: mean of {window} steps around each step")
        )
    if window > 1 and len(styles) <= style.MANY:
        marks.append(Line2D([], [], color=style.GREY, alpha=0.35, linewidth=0.7, label="unsmoothed mean"))
    style.legend_below(figure, style.method_handles(styles), marks)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def smoothing_window(steps: int) -> int:
    """Width in steps of the centred mean: odd, about a twentieth of the run; 1 (none) below 40 steps."""
    return 2 * (steps // 40) + 1


def _training_panels(results: Results) -> dict[str, tuple[str, str]]:
    """The three panels of the paper, and as many of EXTRAS as fill the last row of three."""
    metrics = results.metrics
    missing = [column for column in TRAINING if column not in metrics or metrics[column].isna().any()]
    if missing:
        raise ValueError(f"{results.root}/runs/*/*/metrics.jsonl: no value for {', '.join(missing)} in some rows")
    there = {name: text for name, text in EXTRAS.items() if name in metrics and metrics[name].notna().all()}
    free = -(len(results.tasks) + len(TRAINING)) % 3
    return TRAINING | dict(list(there.items())[:free])


def _accuracy_panel(ax: Axes, results: Results, task: str, styles, letter: str) -> list[tuple]:
    rows = []
    scores = results.scores
    for method, look in styles.items():
        chosen = scores.query("method == @method and task == @task and metric == @results.accuracy")
        what = f"{results.root / 'scores.csv'}, {results.accuracy} of {method} on {task}"
        if chosen.empty:
            raise ValueError(f"{what}: no rows; make scores.csv again from this config")
        table = pivot_seeds(chosen, "value", what)
        mean, low, high = seed_range(table.to_numpy().T)
        style.band(ax, table.index, low, high, look, len(styles))
        style.line(ax, table.index, mean, look)
        rows += [(task, method, *point, None) for point in zip(table.index, mean, low, high, strict=True)]
    style.finish(ax, f"{letter} accuracy: {task}", f"{results.accuracy} (fraction)", ymin=0)
    return rows


def _training_panel(ax: Axes, results: Results, column: str, styles, window: int) -> list[tuple]:
    rows = []
    for method, look in styles.items():
        what = f"{results.root}/runs/{method}: {column}"
        table = pivot_seeds(results.metrics.query("method == @method"), column, what)
        smooth = table.rolling(window, center=True, min_periods=1).mean()
        mean, low, high = seed_range(smooth.to_numpy().T)
        raw = table.mean(axis=1).to_numpy()
        if window > 1 and len(styles) <= style.MANY:
            ax.plot(table.index, raw, color=look.color, linewidth=0.6, alpha=0.3, zorder=1, label="_unsmoothed")
        style.band(ax, table.index, low, high, look, len(styles))
        style.line(ax, table.index, mean, look, markers=6)
        rows += [(column, method, *point) for point in zip(table.index, mean, low, high, raw, strict=True)]
    return rows

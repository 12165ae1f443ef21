"""How much each hyper-parameter matters: the trials of a sweep, scored on the validation sets."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdpg.analysis.results import Results
from sdpg.analysis.wording import setting_name, value_text
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import style
from sdpg.artefacts.tuning import read_trials, setting_columns

ARTEFACT = FigureSpec(
    reads=lambda files: files.made("tuning"),
    uses=lambda config: {"sweep": config.dump()["sweep"]},
    planned=lambda config: config.sweep is not None,
    caption=(
        "Validation accuracy (mean over the second half of training) of a sweep's trials against one setting. A "
        "line joins trials of a method that differ in this setting alone; marker: mean over seeds; small open "
        "circles: single seeds; ring: the trial that was chosen. Values are spaced evenly. Validation problems, not "
        "those of the result tables."
    ),
)
COLUMNS = ["setting", "method", "line", "trial", "value", "seed", "score", "chosen"]


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs sweep/tuned.csv. The frame: a row per drawn point, seed None in the means. ValueError if no setting
    varies.
    """
    path = results.root / "sweep" / "tuned.csv"
    frame = read_trials(path)
    styles = style.method_styles(frame["method"].unique())
    settings = setting_columns(frame)
    lines = {setting: _lines(frame, setting, settings) for setting in settings}
    lines = {setting: several for setting, several in lines.items() if several}
    if not lines:
        raise ValueError(f"{path}: no two trials of a method differ in one setting alone, so there is nothing to show")
    figure, axes = style.panel_grid(len(lines), columns=min(2, len(lines)), panel=(4.3, 3.0))
    rows = []
    for ax, (setting, several) in zip(axes, lines.items(), strict=True):
        rows += _panel(ax, setting, several, styles)
    marks = [
        Line2D([], [], color=style.GREY, marker="o", markersize=5, label="mean over seeds"),
        Line2D([], [], color=style.GREY, marker="o", fillstyle="none", linestyle="none", markersize=3, label="one seed"),
        Line2D([], [], color=style.GREY, marker="o", fillstyle="none", linestyle="none", markersize=10, label="chosen trial"),
    ]
    style.legend_below(figure, style.method_handles(styles), marks)
    return figure, pd.DataFrame(rows, columns=COLUMNS)


def _lines(frame: pd.DataFrame, setting: str, settings: list[str]) -> list[pd.DataFrame]:
    """Return the trials of each method that differ in `setting` alone, at least two to a line."""
    others = [key for key in settings if key != setting]
    rows = frame.dropna(subset=[setting])
    groups = (group for _, group in rows.groupby(["method", *others], dropna=False, sort=False))
    return [group.sort_values([setting, "seed"]) for group in groups if group[setting].nunique() > 1]


def _panel(ax: Axes, setting: str, lines: list[pd.DataFrame], styles: dict[str, style.Style]) -> list[tuple]:
    values = sorted({value for line in lines for value in line[setting]})
    place = {value: i for i, value in enumerate(values)}
    rows, drawn = [], dict.fromkeys(styles, 0)
    for line in lines:
        method = line["method"].iloc[0]
        look = styles[method]
        shift = (list(styles).index(method) / max(1, len(styles) - 1) - 0.5) * 0.24  # so that seeds do not hide each other
        means = line.groupby([setting, "trial"], as_index=False).agg(score=("score", "mean"), chosen=("chosen", "max"))
        x = [place[value] + shift for value in means[setting]]
        style.line(ax, x, means["score"], look, alpha=1.0 if line["chosen"].any() else 0.45)
        for at, (_, row) in zip(x, means.iterrows(), strict=True):
            if row["chosen"]:
                ax.plot([at], [row["score"]], marker="o", fillstyle="none", color=look.color, markersize=10, label="_chosen")
            rows.append(
                (setting, method, drawn[method], int(row["trial"]), row[setting], None, row["score"], int(row["chosen"]))
            )
        ax.plot(
            [place[value] + shift for value in line[setting]],
            line["score"],
            linestyle="none",
            marker="o",
            fillstyle="none",
            markersize=3,
            color=look.color,
            alpha=0.7,
            label="_seeds",
        )
        for _, row in line.iterrows():
            number = (int(row["trial"]), row[setting], int(row["seed"]), row["score"], int(row["chosen"]))
            rows.append((setting, method, drawn[method], *number))
        drawn[method] += 1
    style.finish(ax, setting_name(setting), "validation accuracy (fraction)", xlabel=setting, ymin=0)
    ax.set_xticks(range(len(values)), [value_text(value) for value in values])
    ax.set_xlim(-0.5, len(values) - 0.5)
    return rows

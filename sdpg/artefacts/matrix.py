"""Several scales side by side: the last checkpoint of every method in each, and how many of its seeds collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sdpg.analysis.results import Results
from sdpg.artefacts.stability import collapsed
from sdpg.io import write_atomic

COLUMNS = ["cell", "task", "method", "step", "mean", "low", "high", "seeds", "collapsed"]


def matrix(cells: Sequence[Results]) -> pd.DataFrame:
    """A row for each cell, task and method: last accuracy with its interval; collapsed: seeds that end below where they began.

    Raises ValueError for missing scores, and for a method without an interval.
    """
    rows = []
    for results in cells:
        scores = results.scores[results.scores["metric"] == results.accuracy]
        for task in results.tasks:
            for method in results.methods:
                own = scores[(scores["task"] == task) & (scores["method"] == method)]
                if own.empty:
                    raise ValueError(f"{results.root / 'scores.csv'} has no {results.accuracy} of {method} on {task}")
                step = int(own["step"].max())
                table = own.pivot(index="seed", columns="step", values="value")
                mean, low, high = _interval(results, task, method, step)
                fell = int(collapsed(table.to_numpy()).sum())
                rows.append((results.root.name, task, method, step, mean, low, high, len(table), fell))
    return pd.DataFrame(rows, columns=COLUMNS)


def write_matrix(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write folder/matrix.csv, and matrix.md with one table per task: methods by cells."""
    paths = [folder / "matrix.csv", folder / "matrix.md"]
    with write_atomic(paths[0]) as file:
        frame.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
    with write_atomic(paths[1]) as file:
        file.write("\n".join(_markdown(task, rows) for task, rows in frame.groupby("task", sort=False)))
    return paths


def _interval(results: Results, task: str, method: str, step: int) -> tuple[float, float, float]:
    found = results.intervals.query(
        "task == @task and method == @method and metric == @results.accuracy and selection == 'step' and step == @step"
    )
    if len(found) != 1:
        raise ValueError(
            f"{results.root / 'intervals.csv'}: expected one row for {results.accuracy} of {method} on {task} at step {step}, "
            f"got {len(found)}; make it again together with scores.csv"
        )
    return tuple(found[["mean", "low", "high"]].iloc[0])


def _markdown(task: str, rows: pd.DataFrame) -> str:
    cells = list(dict.fromkeys(rows["cell"]))
    lines = [
        f"**{task}**: accuracy of the last checkpoint, mean over seeds with its interval; in brackets, the seeds "
        "that ended below where they started.\n",
        "| method | " + " | ".join(cells) + " |",
        "|---" * (len(cells) + 1) + "|",
    ]
    for method, of in rows.groupby("method", sort=False):
        by_cell = of.set_index("cell")
        texts = [_cell(by_cell.loc[cell]) if cell in by_cell.index else "-" for cell in cells]
        lines.append(f"| {method} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: pd.Series) -> str:
    fallen = f" ({row['collapsed']} of {row['seeds']})" if row["collapsed"] else ""
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{fallen}"

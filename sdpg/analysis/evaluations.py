"""Evaluation files of the runs -> scores by problem.

Shapes: S seeds, K checkpoints (steps), P problems, n samples per problem. Every metric is a mean over problems of a per-problem
value x_SKP[s, k, p], so one matrix per (method, task, metric) carries all that tables, figures and tests need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sdpg.analysis.diverged import held_at
from sdpg.analysis.results import Results, require
from sdpg.evaluation.estimators import pass_at_k

EVAL_COLUMNS = ["step", "problem_id", "sample", "correct", "process", "tokens", "finish_reason", "entropy"]


@dataclass(frozen=True)
class TaskScores:
    """Scores of one method on one evaluation set: values[metric] is x_SKP, [S, K, P]."""

    steps: np.ndarray  # [K] ascending
    problems: np.ndarray  # [P] ids
    values: dict[str, np.ndarray]


def read_evaluation(path: Path, samples: int) -> pd.DataFrame:
    """Return one eval parquet file without its texts, sorted by (step, problem_id, sample).

    Raises ValueError for a missing file or column, an unknown finish reason, a sample given twice, or a problem that has not
    exactly `samples` samples at every step.
    """
    require(path)
    missing = [column for column in EVAL_COLUMNS if column not in pq.read_schema(path).names]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; delete it and run its evaluation rule again")
    frame = pd.read_parquet(path, columns=EVAL_COLUMNS)
    if frame.empty:
        raise ValueError(f"{path} has no rows; delete it and run its evaluation rule again")
    unknown = set(frame["finish_reason"]) - {"stop", "length"}
    if unknown:
        raise ValueError(f"{path}: finish_reason must be stop or length, got {', '.join(sorted(map(repr, unknown)))}")
    keys = ["step", "problem_id", "sample"]
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        raise ValueError(f"{path}: sample {_item(twice.iloc[0], keys)} is there twice; run its evaluation rule again")
    counts = frame.groupby(["step", "problem_id"]).size().unstack(fill_value=0).stack()
    wrong = counts[counts != samples]
    if len(wrong):
        (step, problem), got = wrong.index[0], int(wrong.iloc[0])
        raise ValueError(
            f"{path}: problem {problem!r} at step {step} has {got} samples, expected {samples} (evaluation.samples); "
            f"{len(wrong)} problems differ. Run the evaluation rule again with one value for all"
        )
    return frame.sort_values(keys, ignore_index=True)


def problem_values(frame: pd.DataFrame, samples: int, pass_k: tuple[int, ...], path: Path) -> dict[str, np.ndarray]:
    """Return the per-problem values of one run from a sorted evaluation frame: metric -> [K, P] (means over the n samples).

    Raises ValueError if k > n, or if process accuracy is there for some samples only.
    """
    too_large = [k for k in pass_k if not 1 <= k <= samples]
    if too_large:
        raise ValueError(f"evaluation.pass_k has {too_large}; every k must lie in 1..{samples} (evaluation.samples)")
    K = frame["step"].nunique()

    def cube(column) -> np.ndarray:
        return np.asarray(column, dtype=float).reshape(K, -1, samples)  # rows are sorted by step, problem, sample

    correct = cube(frame["correct"])
    c_KP = correct.sum(axis=2).astype(int)
    values = {f"mean@{samples}": correct.mean(axis=2)}
    values |= {f"pass@{k}": np.asarray(pass_at_k(samples, c_KP, k), dtype=float).reshape(c_KP.shape) for k in pass_k}
    null = frame["process"].isna()
    if null.any() and not null.all():
        raise ValueError(f"{path}: process is null in {int(null.sum())} of {len(null)} rows; expected all or none of them")
    if not null.any():
        values["process_accuracy"] = cube(frame["process"]).mean(axis=2)
    values["length"] = cube(frame["tokens"]).mean(axis=2)
    values["truncated"] = cube(frame["finish_reason"] == "length").mean(axis=2)
    values["entropy"] = cube(frame["entropy"]).mean(axis=2)
    return values


def task_scores(results: Results, method: str, task: str) -> TaskScores:
    """Read the runs of all seeds. Raises ValueError if two seeds have other checkpoints, problems or metrics (which file).

    A run that diverged has fewer checkpoints: from its last one on it counts with that one's scores.
    """
    runs, first, complete = [], None, None
    for seed in results.seeds:
        path = results.eval_dir(method, seed) / f"{task}.parquet"
        frame = read_evaluation(path, results.samples)
        steps, problems = np.unique(frame["step"]), np.unique(frame["problem_id"])
        values = problem_values(frame, results.samples, results.pass_k, path)
        first = first or (problems, set(values), path)
        _same(path, "problems", problems, first[0], first[2])
        _same(path, "metrics", sorted(values), sorted(first[1]), first[2])
        if (method, seed) not in results.diverged:
            complete = complete or (steps, path)
            _same(path, "checkpoints", steps, complete[0], complete[1])
        runs.append((steps, values))
    if complete is None:  # all diverged: what they have, and the end that they did not reach
        every = {int(step) for steps, _ in runs for step in steps} | ({results.steps} if results.steps else set())
        complete = (np.array(sorted(every)), None)
    steps, metrics = complete[0], runs[0][1]
    stacks = {metric: np.stack([values[metric][held_at(own, steps)] for own, values in runs]) for metric in metrics}
    return TaskScores(steps, first[0], stacks)


def correct_lengths(results: Results, method: str, seed: int, task: str) -> np.ndarray:
    """Return the lengths in tokens of a run's right responses at its last checkpoint: [n]."""
    frame = read_evaluation(results.eval_dir(method, seed) / f"{task}.parquet", results.samples)
    return frame[(frame["step"] == frame["step"].max()) & frame["correct"]]["tokens"].to_numpy(dtype=float)


def _same(path: Path, what: str, ours, theirs, other: Path) -> None:
    if list(ours) != list(theirs):
        raise ValueError(
            f"{path} has other {what} than {other} ({short(ours)}, expected {short(theirs)}); run both evaluation rules again"
        )


def _item(row: pd.Series, keys: list[str]) -> str:
    return ", ".join(f"{key} {row[key]}" for key in keys)


def short(value) -> str:
    text = value if isinstance(value, str) else ", ".join(map(str, value))
    return text if len(text) <= 80 else text[:77] + "..."

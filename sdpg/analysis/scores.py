"""Evaluation files of every run -> scores.csv, intervals.csv and comparisons.csv.

Shapes: S seeds, K checkpoints (steps), P problems, n samples per problem. Every metric is a mean over problems of a per-problem
value x_SKP[s, k, p], so one matrix per (method, task, metric) carries all that the tables, figures and tests need.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sdpg.analysis.comparisons import compare, holm
from sdpg.analysis.intervals import hierarchical_interval, iqm_interval
from sdpg.analysis.results import COMPARISON_COLUMNS, INTERVAL_COLUMNS, SCORE_COLUMNS, Results, require
from sdpg.evaluation.estimators import pass_at_k
from sdpg.io import read_json, write_atomic

EVAL_COLUMNS = ["step", "problem_id", "sample", "correct", "process", "tokens", "finish_reason", "entropy"]


@dataclass(frozen=True)
class TaskScores:
    """Scores of one method on one evaluation set: values[metric] is x_SKP, [S, K, P]."""

    steps: np.ndarray  # [K] ascending
    problems: np.ndarray  # [P] ids
    values: dict[str, np.ndarray]


def read_evaluation(path: Path, samples: int) -> pd.DataFrame:
    """One eval parquet file without its texts, sorted by (step, problem_id, sample).

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
    """Per-problem values of one run from a sorted evaluation frame: metric -> [K, P] (means over the n samples).

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
        raise ValueError(
            f"{path}: process is null in {int(null.sum())} of {len(null)} rows; expected all or none of them"
        )
    if not null.any():
        values["process_accuracy"] = cube(frame["process"]).mean(axis=2)
    values["length"] = cube(frame["tokens"]).mean(axis=2)
    values["truncated"] = cube(frame["finish_reason"] == "length").mean(axis=2)
    values["entropy"] = cube(frame["entropy"]).mean(axis=2)
    return values


def task_scores(results: Results, method: str, task: str) -> TaskScores:
    """Read the runs of all seeds. Raises ValueError if two seeds have other checkpoints, problems or metrics (which file)."""
    first, stack = None, []
    for seed in results.seeds:
        path = results.eval_dir(method, seed) / f"{task}.parquet"
        frame = read_evaluation(path, results.samples)
        steps, problems = np.unique(frame["step"]), np.unique(frame["problem_id"])
        values = problem_values(frame, results.samples, results.pass_k, path)
        if first is None:
            first = (steps, problems, set(values), path)
        for what, ours, theirs in (
            ("checkpoints", steps, first[0]),
            ("problems", problems, first[1]),
            ("metrics", sorted(values), sorted(first[2])),
        ):
            if list(ours) != list(theirs):
                raise ValueError(
                    f"{path} has other {what} than {first[3]} ({_short(ours)}, expected {_short(theirs)}); "
                    "run both evaluation rules again"
                )
        stack.append(values)
    return TaskScores(first[0], first[1], {metric: np.stack([run[metric] for run in stack]) for metric in stack[0]})


def score_rows(results: Results, method: str, task: str, scores: TaskScores) -> list[tuple]:
    """Rows of scores.csv: the mean over problems of every metric, seed and step."""
    rows = []
    for metric, x_SKP in scores.values.items():
        means = x_SKP.mean(axis=2)
        for s, seed in enumerate(results.seeds):
            rows += [(method, seed, task, int(step), metric, means[s, k]) for k, step in enumerate(scores.steps)]
    return rows


def best_checkpoints(accuracy_SKP: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Index [S] of each seed's checkpoint with the highest mean accuracy; step 0 is not a candidate if there are others."""
    means_SK = accuracy_SKP.mean(axis=2)
    candidates = steps > 0 if (steps > 0).any() else np.ones(len(steps), dtype=bool)
    return np.where(candidates, means_SK, -np.inf).argmax(axis=1)


def interval_rows(results: Results, method: str, task: str, scores: TaskScores) -> list[tuple]:
    """Rows of intervals.csv: every metric at every step, and the accuracy at each seed's best checkpoint.

    The interval of "best" takes the selected checkpoints as given; being picked on the evaluation set itself, it is biased up.
    """
    rows = []
    for metric, x_SKP in scores.values.items():
        for k, step in enumerate(scores.steps):
            rows.append((method, task, metric, "step", int(step), *_both(x_SKP[:, k])))
    accuracy = scores.values[results.accuracy]
    best_SP = accuracy[np.arange(len(results.seeds)), best_checkpoints(accuracy, scores.steps)]
    rows.append((method, task, results.accuracy, "best", None, *_both(best_SP)))
    return rows


def _both(x_SP: np.ndarray) -> tuple:
    """mean, low, high, seeds, problems, iqm, iqm_low, iqm_high."""
    return *hierarchical_interval(x_SP), *x_SP.shape, *iqm_interval(x_SP)


def comparison_rows(results: Results, task: str, by_method: dict[str, TaskScores]) -> list[tuple]:
    """Rows of comparisons.csv: accuracy of every two methods at the last checkpoint; p_holm is over the rows returned.

    Raises ValueError if two methods were evaluated on other problems or at other last steps.
    """
    keys, compared = [], []
    for method, other in itertools.combinations(by_method, 2):
        a, b = by_method[method], by_method[other]
        if list(a.problems) != list(b.problems) or a.steps[-1] != b.steps[-1]:
            raise ValueError(
                f"{task}: {method} and {other} were evaluated on other problems or last steps (step {a.steps[-1]} and "
                f"{b.steps[-1]}); run their evaluation rules again"
            )
        keys.append((method, other, task, results.accuracy, int(a.steps[-1])))
        compared.append(compare(a.values[results.accuracy][:, -1], b.values[results.accuracy][:, -1]))
    adjusted = holm([p for _, _, _, p, *_ in compared])
    return [(*key, *row[:4], p_holm, *row[4:]) for key, row, p_holm in zip(keys, compared, adjusted, strict=True)]


def lm_eval_rows(path: Path, method: str, seed: int, step: int) -> list[tuple]:
    """Rows of scores.csv from one lm_eval.json: {"results": {task: {"metric,filter": value, "metric_stderr,filter": ...}}}.

    The metric is called lm_eval_<metric>; where a task has several filters, lm_eval_<metric>[<filter>]. A standard error that
    lm-eval did not compute ("N/A") is left out. Raises ValueError if the file is not of that form.
    """
    require(path)
    content = read_json(path)
    tasks = content.get("results") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not tasks:
        raise ValueError(
            f"{path} has no results of lm-eval (expected a non-empty dict under 'results'); run its rule again"
        )
    rows = []
    for task, entries in tasks.items():
        keyed = {tuple(key.split(",", 1)): value for key, value in entries.items() if "," in key}
        filters: dict[str, int] = {}
        for metric, _ in keyed:
            filters[metric] = filters.get(metric, 0) + 1
        for (metric, name), value in keyed.items():
            if not isinstance(value, (int, float)) or not np.isfinite(value):
                continue
            label = f"lm_eval_{metric}" + (f"[{name}]" if filters[metric] > 1 else "")
            rows.append((method, seed, task, step, label, float(value)))
    if not rows:
        raise ValueError(f"{path} holds no numeric metric (got {_short(json.dumps(tasks))}); run its rule again")
    return rows


def make_scores(results: Results) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(scores, intervals, comparisons) of all methods, seeds and evaluation sets of a scale, read from `eval/`."""
    scores, intervals, comparisons = [], [], []
    last = {}
    for task in results.tasks:
        by_method = {method: task_scores(results, method, task) for method in results.methods}
        for method, values in by_method.items():
            scores += score_rows(results, method, task, values)
            intervals += interval_rows(results, method, task, values)
            last[method] = int(values.steps[-1])
        comparisons += comparison_rows(results, task, by_method)
    if results.lm_eval is not None:
        for method, seed in results.runs:
            scores += lm_eval_rows(results.eval_dir(method, seed) / "lm_eval.json", method, seed, last[method])
    tables = (scores, SCORE_COLUMNS), (intervals, INTERVAL_COLUMNS), (comparisons, COMPARISON_COLUMNS)
    return tuple(pd.DataFrame(rows, columns=columns) for rows, columns in tables)


def write_scores(results: Results) -> list[Path]:
    """Write scores.csv, intervals.csv and comparisons.csv under results.root; the three paths."""
    frames = make_scores(results)
    frames[1]["step"] = frames[1]["step"].astype("Int64")
    paths = [results.root / f"{name}.csv" for name in ("scores", "intervals", "comparisons")]
    for path, frame in zip(paths, frames, strict=True):
        with write_atomic(path) as file:
            frame.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
    return paths


def _item(row: pd.Series, keys: list[str]) -> str:
    return ", ".join(f"{key} {row[key]}" for key in keys)


def _short(value) -> str:
    text = value if isinstance(value, str) else ", ".join(map(str, value))
    return text if len(text) <= 80 else text[:77] + "..."

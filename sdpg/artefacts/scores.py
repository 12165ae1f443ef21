"""Evaluation files of every run -> scores.csv, intervals.csv and comparisons.csv.

Shapes: S seeds, K checkpoints (steps), P problems, n samples per problem. Every metric is a mean over problems of a per-problem
value x_SKP[s, k, p], so one matrix per (method, task, metric) carries all that the tables, figures and tests need.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

from sdpg.analysis.collapse import Collapse, collapse
from sdpg.analysis.comparisons import MEASURES, Outcome, compare, improvement, pool, scored
from sdpg.analysis.evaluations import TaskScores, short, task_scores
from sdpg.analysis.intervals import hierarchical_interval, iqm_interval
from sdpg.analysis.multiplicity import holm
from sdpg.analysis.results import COMPARISON_COLUMNS, INTERVAL_COLUMNS, SCORE_COLUMNS, Results, require
from sdpg.artefacts import write_csv
from sdpg.artefacts.declare import ArtefactSpec
from sdpg.io import read_json

SIZES = ("length", "entropy")  # metrics that are no shares

ARTEFACT = ArtefactSpec(
    about="scores.csv, with intervals and paired comparisons",
    reads=lambda files: [*files.evaluations, *files.lm_eval, *files.metrics],
    writes=("scores.csv", "intervals.csv", "comparisons.csv"),
)


def score_rows(results: Results, method: str, task: str, scores: TaskScores) -> list[tuple]:
    """Return rows of scores.csv: the mean over problems of every metric, seed and step."""
    rows = []
    for metric, x_SKP in scores.values.items():
        means = x_SKP.mean(axis=2)
        for s, seed in enumerate(results.seeds):
            rows += [(method, seed, task, int(step), metric, means[s, k]) for k, step in enumerate(scores.steps)]
    return rows


def best_checkpoints(accuracy_SKP: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the index [S] of each seed's best checkpoint by mean accuracy; step 0 is no candidate if there are others."""
    means_SK = accuracy_SKP.mean(axis=2)
    candidates = steps > 0 if (steps > 0).any() else np.ones(len(steps), dtype=bool)
    return np.where(candidates, means_SK, -np.inf).argmax(axis=1)


def collapse_of(results: Results, method: str, scores: TaskScores) -> Collapse:
    """Return what became of a method's runs on one evaluation set."""
    return collapse(scores.values[results.accuracy].mean(axis=2), scores.steps, results.ended(method))


def interval_rows(results: Results, method: str, task: str, scores: TaskScores) -> list[tuple]:
    """Return rows of intervals.csv: every metric at every step, and the accuracy at each seed's best checkpoint and, of the
    healthy runs alone, over the second half's checkpoints (no row where there are none).

    The interval of "best" takes the selected checkpoints as given; being picked on the evaluation set itself, it is biased up.
    """
    rows = []
    for metric, x_SKP in scores.values.items():
        for k, step in enumerate(scores.steps):
            rows.append((method, task, metric, "step", int(step), *_both(x_SKP[:, k], share=metric not in SIZES)))
    accuracy = scores.values[results.accuracy]
    best_SP = accuracy[np.arange(len(results.seeds)), best_checkpoints(accuracy, scores.steps)]
    rows.append((method, task, results.accuracy, "best", None, *_both(best_SP)))
    healthy_SP = scored(scores.steps, accuracy, "late")[collapse_of(results, method, scores).healthy]
    if len(healthy_SP):
        rows.append((method, task, results.accuracy, "healthy", None, *_both(healthy_SP)))
    return rows


def _both(x_SP: np.ndarray, *, share: bool = True) -> tuple:
    """Return the mean, low, high, seeds, problems, iqm, iqm_low, iqm_high; share: of a number between 0 and 1."""
    mean, iqm = hierarchical_interval(x_SP), iqm_interval(x_SP)
    return (*mean.within(0, 1), *x_SP.shape, *iqm.within(0, 1)) if share else (*mean, *x_SP.shape, *iqm)


def comparison_rows(results: Results, task: str, by_method: dict[str, TaskScores]) -> list[tuple]:
    """Return rows of comparisons.csv: every two methods by each of MEASURES; adjusted p-values are over the pairs of one
    measure.

    Raises ValueError if two methods were evaluated on other problems or at other checkpoints.
    """
    for method, other in itertools.combinations(by_method, 2):
        a, b = by_method[method], by_method[other]
        if list(a.problems) != list(b.problems) or a.steps[-1] != b.steps[-1]:
            raise ValueError(
                f"{task}: {method} and {other} were evaluated on other problems or last steps (step {a.steps[-1]} and "
                f"{b.steps[-1]}); run their evaluation rules again"
            )
    return [row for measure in MEASURES for row in _compared(results, task, by_method, measure)]


def _compared(results: Results, task: str, by_method: dict[str, TaskScores], measure: str) -> list[tuple]:
    outcomes = outcomes_of(results, by_method, measure)
    lent, pairs = pool(outcomes), list(itertools.combinations(by_method, 2))
    found = [compare(*pair, outcomes, lent, results.starts) for pair in pairs]
    adjusted = zip(holm([of.difference.p for of in found]), holm([of.fell.p for of in found]), strict=True)
    rows = []
    for (a, b), of, (p_holm, p_collapse_holm) in zip(pairs, found, adjusted, strict=True):
        performance = (of.difference.effect, *of.difference.interval(), of.difference.p, p_holm, int(of.kept_S.sum()))
        counted = [int(outcomes[name].collapse.ever.sum()) for name in (a, b)]
        fell = (*counted, of.fell.p, p_collapse_holm, of.base.p if of.base else None)
        rows.append((a, b, task, results.accuracy, measure, *performance, *fell, *improvement(outcomes[a], outcomes[b])))
    return rows


def outcomes_of(results: Results, by_method: dict[str, TaskScores], measure: str) -> dict[str, Outcome]:
    """Return each method's runs on one evaluation set, scored by a measure."""
    return {
        method: Outcome(scored(of.steps, of.values[results.accuracy], measure), collapse_of(results, method, of))
        for method, of in by_method.items()
    }


def lm_eval_rows(path: Path, method: str, seed: int, step: int) -> list[tuple]:
    """Return rows of scores.csv from one lm_eval.json: {"results": {task: {"metric,filter": value, "metric_stderr,filter":
    ...}}}.

    The metric is called lm_eval_<metric>; where a task has several filters, lm_eval_<metric>[<filter>]. A standard error that
    lm-eval did not compute ("N/A") is left out. Raises ValueError if the file is not of that form.
    """
    require(path)
    content = read_json(path)
    tasks = content.get("results") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not tasks:
        raise ValueError(f"{path} has no results of lm-eval (expected a non-empty dict under 'results'); run its rule again")
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
        raise ValueError(f"{path} holds no numeric metric (got {short(json.dumps(tasks))}); run its rule again")
    return rows


def make_scores(results: Results) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return (scores, intervals, comparisons) of all methods, seeds and evaluation sets of a scale, read from `eval/`."""
    scores, intervals, comparisons = [], [], []
    last = {}
    for task in results.tasks:
        by_method = {method: task_scores(results, method, task) for method in results.methods}
        for method, values in by_method.items():
            scores += score_rows(results, method, task, values)
            intervals += interval_rows(results, method, task, values)
            last[method] = int(values.steps[-1])
        comparisons += comparison_rows(results, task, {method: by_method[method] for method in results.compared})
    for method in results.methods:
        for seed in results.lm_eval_seeds:
            scores += lm_eval_rows(results.eval_dir(method, seed) / "lm_eval.json", method, seed, last[method])
    tables = (scores, SCORE_COLUMNS), (intervals, INTERVAL_COLUMNS), (comparisons, COMPARISON_COLUMNS)
    return tuple(pd.DataFrame(rows, columns=columns) for rows, columns in tables)


def make(job) -> None:
    """Write scores.csv, intervals.csv and comparisons.csv."""
    frames = make_scores(job.results)
    frames[1]["step"] = frames[1]["step"].astype("Int64")
    for name, frame in zip(ARTEFACT.writes, frames, strict=True):
        write_csv(frame, job.results.root / name)

"""Results under which a given claim holds, fails, or cannot be told, written as files like any scale's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sdpg.analysis.results import Results

STEPS, EVERY, SEEDS, TASKS = 80, 10, (0, 1, 2, 3), ("near", "far")
PROBLEMS, SAMPLES = 16, 8
RANGES = {"accuracy": (0, 1), "reward": (0, 1), "entropy": (0.02, 1.0), "response_length": (5, 45), "length": (5, 45)}
NOISE = np.array([0.4, -0.4, 0.35, -0.35])  # of the seeds: no effect on average, and a large spread
HIGH, LOW, MIDDLE = 0.95, 0.05, 0.5


def profiles(claim: dict, outcome: str) -> dict:
    """Method -> level(fraction of the run, index of the seed), from 0 to 1 in the metric's range."""
    methods = claim["methods"]
    for_it = claim["direction"] == "above"
    if outcome == "inconclusive":
        pattern = {"last": _level, "mean": _level, "change": _fall, "time_to": _rise}[claim["test"]]
        made = {methods[0]: lambda t, s: pattern(t, MIDDLE + NOISE[s])}
        return made | {other: lambda t, s: pattern(t, MIDDLE - NOISE[s] / 2) for other in methods[1:]}
    up = for_it == (outcome == "supported")  # does the first method have the larger value?
    if claim["test"] == "change":
        made = {methods[0]: lambda t, s: _fall(t, 0.0 if up else 1.0)}
        return made | {other: lambda t, s: MIDDLE for other in methods[1:]}
    if claim["test"] == "time_to":
        ends = (0.9, 0.1) if up else (0.1, 0.9)
        return {method: (lambda t, s, end=end: _rise(t, end)) for method, end in zip(methods, ends, strict=True)}
    ends = (HIGH, LOW) if up else (LOW, HIGH)
    return {method: (lambda t, s, end=end: end) for method, end in zip(methods, ends, strict=True)}


def _level(t: float, size: float) -> float:
    return size


def _fall(t: float, size: float) -> float:
    """From `size` to its opposite at 3/5 of the run, or at once after the start if a later claim would not see it."""
    return LOW + (HIGH - LOW) * (size if t <= 0.025 or 0.475 < t <= 0.59 else 1 - size)


def _rise(t: float, when: float) -> float:
    return LOW if t < when else HIGH


def write_claim_results(root: Path, claim: dict, outcome: str) -> Results:
    """eval/ and runs/ with the claim's methods and metric alone."""
    metric = claim["metric"]
    low, high = RANGES[metric]
    levels = profiles(claim, outcome)
    for m, (method, level) in enumerate(levels.items()):
        for s, seed in enumerate(SEEDS):
            rng = np.random.default_rng([m, seed])

            def value(t, level=level, s=s, rng=rng):
                return low + (high - low) * float(np.clip(level(t, s) + rng.normal(0, 0.01), 0, 1))

            if claim["test"] == "last" or claim.get("data") == "evaluation":
                for task in TASKS:
                    path = root / "eval" / method / f"seed{seed}" / f"{task}.parquet"
                    _write_evaluation(path, metric, value, rng)
            folder = root / "runs" / method / f"seed{seed}"
            folder.mkdir(parents=True)
            rows = [
                {"step": k, metric: value(k / STEPS), "sampled_tokens": 1000 + k, "flops": 2e9} for k in range(1, STEPS + 1)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    family = next(name for name in claim["family"] if name != "published data")
    return Results(root, tuple(levels), SEEDS, TASKS, SAMPLES, (1,), steps=STEPS, family=family)


def _write_evaluation(path: Path, metric: str, value, rng) -> None:
    steps = np.arange(0, STEPS + 1, EVERY)
    grid = np.stack(np.meshgrid(steps, np.arange(PROBLEMS), np.arange(SAMPLES), indexing="ij"), axis=-1).reshape(-1, 3)
    levels = np.repeat([value(step / STEPS) for step in steps], PROBLEMS * SAMPLES)
    frame = pd.DataFrame(
        {
            "step": grid[:, 0],
            "problem_id": [f"p{p:02d}" for p in grid[:, 1]],
            "sample": grid[:, 2],
            "correct": rng.random(len(grid)) < (levels if metric == "accuracy" else 0.5),
            "process": np.nan,
            "tokens": levels.round().astype(int) if metric == "length" else 20,
            "finish_reason": "stop",
            "entropy": levels if metric == "entropy" else 0.3,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)

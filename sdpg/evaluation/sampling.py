"""The checkpoint sweep: one engine per run, n samples per problem at every checkpoint, one parquet file per evaluation set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sdpg.evaluation.agreement import check_agreement
from sdpg.evaluation.checkpoints import Checkpoint, named_tensors
from sdpg.io import write_atomic
from sdpg.progress import Progress
from sdpg.rollout.engine import Engine, derive_seed
from sdpg.types import Problem, Rollout, Sampling

CHECKED_RESPONSES = 8  # per checkpoint, spread over the first set's problems
SCHEMA = {  # columns of eval/{method}/seed{n}/{task}.parquet
    "step": "int64",
    "problem_id": "str",
    "sample": "int64",
    "correct": "bool",
    "process": "float64",
    "tokens": "int64",
    "finish_reason": "str",
    "entropy": "float64",
    "text": "str",
    "unjudged": "str",
}


@dataclass(frozen=True)
class EvaluationSet:
    """One evaluation set with its student prompts as token ids; prompts[i] belongs to problems[i]."""

    name: str
    problems: Sequence[Problem]
    prompts: Sequence[list[int]]


def evaluation_set(name: str, problems: Sequence[Problem], task, max_prompt_tokens: int) -> EvaluationSet:
    """Encode a set's student prompts. Raises ValueError naming the problem whose prompt is too long, or an empty set."""
    if not problems:
        raise ValueError(f"evaluation set {name!r} is empty: got 0 problems, expected at least 1")
    prompts = [task.student_prompt(problem) for problem in problems]
    for problem, prompt in zip(problems, prompts, strict=True):
        if len(prompt) > max_prompt_tokens:
            raise ValueError(
                f"problem {problem.id!r} of evaluation set {name!r} has a prompt of {len(prompt)} tokens, but "
                f"train.max_prompt_tokens is {max_prompt_tokens}; raise it, or leave the problem out"
            )
    return EvaluationSet(name, problems, prompts)


def sweep(
    engine: Engine,
    checkpoints: Sequence[Checkpoint],
    sets: Sequence[EvaluationSet],
    task,
    *,
    sampling: Sampling,
    samples: int,
    seed: int,
    dtype: str,
    title: str = "evaluation",
) -> dict[str, pd.DataFrame]:
    """Sample every problem `samples` times at every checkpoint -> {set name: one row per sample, columns of SCHEMA}.

    The seed of a problem's samples comes from (seed, set, problem, step), so that methods share random numbers. After each
    change of weights the sampled log-probs are compared with transformers' (EngineMismatch if they differ).
    """
    frames: dict[str, list[pd.DataFrame]] = {s.name: [] for s in sets}
    total = len(checkpoints) * sum(len(s.problems) for s in sets)
    with Progress(total, title, "problem") as progress:
        for checkpoint in checkpoints:
            engine.load_weights(named_tensors(checkpoint.path), checkpoint.step)
            for s in sets:
                started = time.perf_counter()
                seeds = [derive_seed(seed, s.name, problem.id, checkpoint.step) for problem in s.problems]
                groups = engine.generate(s.prompts, samples, sampling, seeds)
                if s is sets[0]:
                    _check(checkpoint, s.prompts, groups, sampling.temperature, dtype)
                frame = score_groups(s.problems, groups, task, checkpoint.step)
                frames[s.name].append(frame)
                rate = frame["tokens"].sum() / (time.perf_counter() - started)
                facts = f"step {checkpoint.step}, {s.name}: accuracy {frame['correct'].mean():.3f}, {rate:,.0f} tokens/s"
                progress.update(len(s.problems), facts)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}


def score_groups(problems: Sequence[Problem], groups: Sequence[Sequence[Rollout]], task, step: int) -> pd.DataFrame:
    """Judge the samples of one set at one checkpoint -> one row per sample, columns of SCHEMA.

    entropy is the mean over tokens of -log p of the sampled token: unbiased for the per-token entropy (nats), but for greedy
    responses, whose tokens are the most probable ones.
    """
    rows = []
    flat = [(problem, j, rollout) for problem, group in zip(problems, groups, strict=True) for j, rollout in enumerate(group)]
    scores = task.score_many([problem for problem, _, _ in flat], [rollout for _, _, rollout in flat])
    for (problem, j, rollout), score in zip(flat, scores, strict=True):
        assert rollout.policy_version == step, f"rollout of version {rollout.policy_version} at step {step}"
        process = np.nan if score.process is None else score.process
        entropy, text = -float(np.mean(rollout.logprobs)), task.text(rollout.ids)
        facts = (score.correct, process, len(rollout.ids), rollout.finish_reason, entropy, text, score.unjudged or "")
        rows.append((step, problem.id, j, *facts))
    return pd.DataFrame(rows, columns=list(SCHEMA)).astype(SCHEMA)


def write_frame(path: str | Path, frame: pd.DataFrame) -> None:
    """Write one evaluation file atomically; a process score that a task does not have becomes null."""
    with write_atomic(path, "wb") as file:
        frame.to_parquet(file, index=False)


def _check(checkpoint: Checkpoint, prompts, groups, temperature: float, dtype: str) -> None:
    every = max(1, len(prompts) // CHECKED_RESPONSES)
    chosen = range(0, len(prompts), every)[:CHECKED_RESPONSES]
    rollouts = [groups[i][0] for i in chosen]
    check_agreement(checkpoint.path, [prompts[i] for i in chosen], rollouts, temperature=temperature, dtype=dtype)

"""Sampling and judging: n responses per problem at every checkpoint, a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sdpg.evaluation.agreement import Reference, check_agreement
from sdpg.evaluation.checkpoints import Checkpoint, named_tensors
from sdpg.evaluation.parts import EvaluationSet, Part
from sdpg.io import write_atomic
from sdpg.rollout.engine import Engine, derive_seed
from sdpg.types import Problem, Rollout, Sampling

CHECKED_RESPONSES = 8  # per change of weights, spread over the problems
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


class Sampler:
    """One engine that gets one checkpoint's weights after the other, each compared with transformers.

    The seed of a problem's samples comes from (seed, set, problem, step), so that methods share random numbers, and no sample
    depends on which process drew it, or in which order.
    """

    def __init__(self, engine: Engine, start: str | Path, task, *, sampling: Sampling, samples: int, seed: int, dtype: str):
        """start: the checkpoint that the engine was started on."""
        self.engine, self.task = engine, task
        self.sampling, self.samples, self.seed, self.dtype = sampling, samples, seed, dtype
        self.reference = Reference(start, dtype)
        self.loaded: Checkpoint | None = None

    def sample(self, part: Part) -> pd.DataFrame:
        """Sample and judge a part -> one row per sample, columns of SCHEMA. Raises EngineMismatch."""
        new = self._load(part.checkpoint)
        groups = self._generate(part.checkpoint, part.set, self.samples)
        if new:
            self._check(part.checkpoint, part.set, groups)
        return score_groups(part.set.problems, groups, self.task, part.checkpoint.step)

    def hold(self, checkpoint: Checkpoint, some: EvaluationSet) -> None:
        """Have the engine hold a checkpoint's weights. Compared on these problems, if it did not. Raises EngineMismatch."""
        if self._load(checkpoint):
            self._check(checkpoint, some, self._generate(checkpoint, some, 1))

    def _load(self, checkpoint: Checkpoint) -> bool:
        if self.loaded == checkpoint:
            return False
        self.engine.load_weights(named_tensors(checkpoint.path), checkpoint.step)
        self.loaded = checkpoint
        return True

    def _generate(self, checkpoint: Checkpoint, some: EvaluationSet, n: int) -> list[list[Rollout]]:
        seeds = [derive_seed(self.seed, some.name, problem.id, checkpoint.step) for problem in some.problems]
        return self.engine.generate(some.prompts, n, self.sampling, seeds)

    def _check(self, checkpoint: Checkpoint, some: EvaluationSet, groups) -> None:
        every = max(1, len(some.prompts) // CHECKED_RESPONSES)
        chosen = range(0, len(some.prompts), every)[:CHECKED_RESPONSES]
        prompts, rollouts = [some.prompts[i] for i in chosen], [groups[i][0] for i in chosen]
        how = {"temperature": self.sampling.temperature, "dtype": self.dtype}
        check_agreement(self.reference, checkpoint.path, prompts, rollouts, **how)


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

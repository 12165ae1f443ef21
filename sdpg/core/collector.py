"""From problems to scored rollouts: which problems a step takes, their responses, and their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpg.core.batch import Sample
from sdpg.rollout.engine import Engine, derive_seed
from sdpg.types import Problem, Sampling, Score


@dataclass(frozen=True)
class Batch:
    """Responses of N prompts x G, row by row: samples[i * G + j] is response j to prompt i; R (N, G) rewards in {0, 1}."""

    samples: list[Sample]
    scores: list[Score]
    R_NG: Tensor
    unjudged: int = 0  # responses that the verifier could not judge in time or size and called wrong


class Collector:
    """Samples and judges. Everything random is derived from (seed, step, place), so a resumed run sees the same."""

    def __init__(
        self,
        problems: Sequence[Problem],
        task,
        engine: Engine,
        *,
        seed: int,
        prompts_per_step: int,
        group_size: int,
        temperature: float,
        max_prompt_tokens: int,
        max_response_tokens: int,
        max_positions: int,
        rank: int = 0,
        world: int = 1,
    ):
        """max_positions: the model's context length, which the teacher's prompt plus a response must fit as well."""
        if not problems:
            raise ValueError("the training set is empty; check data.train in the config and rerun the rule data")
        self.problems, self.task, self.engine = problems, task, engine
        self.seed, self.P, self.G, self.rank, self.world = seed, prompts_per_step, group_size, rank, world
        self.sampling = Sampling(temperature, max_response_tokens, tuple(task.stop_token_ids))
        self.student = [
            _within(task.student_prompt(p), max_prompt_tokens, p, "train.max_prompt_tokens") for p in problems
        ]
        limit = max_positions - max_response_tokens
        what = "the model's context minus train.max_response_tokens"
        self.teacher = [_within(task.teacher_prompt(p), limit, p, what) for p in problems]

    def indices(self, step: int) -> list[int]:
        """Problems of step 1, 2, ...: P from one stream of shuffled epochs, the same for every method with this seed."""
        chosen = range((step - 1) * self.P, step * self.P)
        orders = {epoch: self._order(epoch) for epoch in {i // len(self.problems) for i in chosen}}
        return [orders[i // len(self.problems)][i % len(self.problems)] for i in chosen]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
        return torch.randperm(len(self.problems), generator=generator).tolist()

    def collect(self, step: int, clock) -> Batch:
        """Sample G responses to this process's share of the step's prompts, and judge them."""
        places = range(self.rank, self.P, self.world)
        indices = self.indices(step)
        chosen = [indices[place] for place in places]
        with clock("rollout"):
            groups = self.engine.generate(
                [self.student[i] for i in chosen],
                self.G,
                self.sampling,
                [derive_seed("rollout", self.seed, step, place) for place in places],
            )
        samples = [
            Sample(self.student[i], self.teacher[i], rollout)
            for i, group in zip(chosen, groups, strict=True)
            for rollout in group
        ]
        before = self._failures()
        with clock("verify"):
            scores = [
                self.task.score(self.problems[i], rollout.ids, rollout.finish_reason)
                for i, group in zip(chosen, groups, strict=True)
                for rollout in group
            ]
        rewards = torch.tensor([float(score.correct) for score in scores])
        return Batch(samples, scores, rewards.view(len(chosen), self.G), self._failures() - before)

    def _failures(self) -> int:
        return sum(self.task.failures.values())

    def accuracy(self, problems: Sequence[Problem], step: int) -> float:
        """Share of right answers with one response per problem, at the training temperature."""
        prompts = [self.task.student_prompt(p) for p in problems]
        seeds = [derive_seed("evaluation", self.seed, step, p.id) for p in problems]
        groups = self.engine.generate(prompts, 1, self.sampling, seeds)
        scores = [self.task.score(p, g[0].ids, g[0].finish_reason) for p, g in zip(problems, groups, strict=True)]
        return sum(score.correct for score in scores) / len(scores)


def _within(prompt: list[int], limit: int, problem: Problem, what: str) -> list[int]:
    if len(prompt) > limit:
        raise ValueError(
            f"problem {problem.id!r} gives a prompt of {len(prompt)} tokens, more than {limit} ({what}); "
            "raise the limit, shorten the problem or its solution, or leave it out of the data"
        )
    return prompt

"""From problems to scored rollouts: which problems a step takes, their responses, and their rewards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpg.config.settings import Train
from sdpg.core.batch import Sample
from sdpg.core.flops import Work, rollout_work
from sdpg.rollout.engine import Engine, derive_seed
from sdpg.types import Problem, Rollout, Sampling, Score


@dataclass(frozen=True)
class Group:
    """The G responses to one problem (its index), judged."""

    problem: int
    rollouts: list[Rollout]
    scores: list[Score]
    rewards: list[float]

    @property
    def informative(self) -> bool:
        """Not all rewards are equal, so that advantages are not all 0."""
        return len(set(self.rewards)) > 1


@dataclass(frozen=True)
class Batch:
    """Responses of N prompts x G, row by row: samples[i * G + j] is response j to prompt i; R (N, G) their rewards."""

    samples: list[Sample]
    scores: list[Score]
    R_NG: Tensor
    unjudged: int  # responses that the verifier could not judge in time or size and called wrong
    sampled: int  # responses, with those of groups that dynamic sampling left out; unjudged counts among these
    sampled_tokens: int  # their tokens
    work: Work  # of sampling them


class Collector:
    """Samples and judges. Everything random is derived from (seed, step, place), so a resumed run sees the same."""

    def __init__(
        self,
        problems: Sequence[Problem],
        task,
        engine: Engine,
        config: Train,
        *,
        seed: int,
        max_positions: int,
        rank: int = 0,
        world: int = 1,
    ):
        """Encode all prompts. max_positions: the model's context length, which the teacher's prompt plus a response must
        fit as well.
        """
        if not problems:
            raise ValueError("the training set is empty; check data.train in the config and rerun the rule data")
        self.problems, self.task, self.engine, self.config = problems, task, engine, config
        self.seed, self.rank, self.world = seed, rank, world
        self.P, self.G = config.prompts_per_step, config.group_size
        self.sampling = Sampling(config.temperature, config.max_response_tokens, tuple(task.stop_token_ids))
        limit = config.max_prompt_tokens
        self.student = [_within(task.student_prompt(p), limit, p, "train.max_prompt_tokens") for p in problems]
        self.teacher_limit = max_positions - config.max_response_tokens
        self.teacher = [self._teacher(task.teacher_prompt(p), p) for p in problems]

    def _teacher(self, prompt: list[int], problem: Problem) -> list[int]:
        return _within(prompt, self.teacher_limit, problem, "the model's context minus train.max_response_tokens")

    def indices(self, step: int, attempt: int = 0) -> list[int]:
        """Return the problems of step 1, 2, ...: P from one stream of shuffled epochs, the same for every method with this
        seed.

        attempt: 0, or the number of the extra batch of dynamic sampling, which comes from another stream.
        """
        chosen = range((step - 1) * self.P, step * self.P)
        orders = {epoch: self._order(epoch, attempt) for epoch in {i // len(self.problems) for i in chosen}}
        return [orders[i // len(self.problems)][i % len(self.problems)] for i in chosen]

    def _order(self, epoch: int, attempt: int) -> list[int]:
        stream = ("order", self.seed, epoch, attempt) if attempt else ("order", self.seed, epoch)
        generator = torch.Generator().manual_seed(derive_seed(*stream))
        return torch.randperm(len(self.problems), generator=generator).tolist()

    def collect(self, step: int, clock, context: str = "solution") -> Batch:
        """Sample G responses to this process's share of the step's prompts, and judge them.

        context: what the teacher reads, see `Needs`.
        """
        before = self._failures()
        groups = self._groups(step, 0, clock)
        share = len(groups)
        for attempt in range(1, self.config.dynamic_sampling + 1):
            if sum(group.informative for group in groups) >= share:
                break
            groups += self._groups(step, attempt, clock)
        sampled = [rollout for group in groups for rollout in group.rollouts]
        work = rollout_work([len(self.student[g.problem]) for g in groups], [[len(r.ids) for r in g.rollouts] for g in groups])
        if self.config.dynamic_sampling:
            groups.sort(key=lambda group: not group.informative)  # stable: the first drawn come first
            groups = groups[:share]
        samples = [sample for group in groups for sample in self._samples(group, context, step)]
        return Batch(
            samples,
            [score for group in groups for score in group.scores],
            torch.tensor([group.rewards for group in groups]),
            self._failures() - before,
            len(sampled),
            sum(len(rollout.ids) for rollout in sampled),
            work,
        )

    def _groups(self, step: int, attempt: int, clock) -> list[Group]:
        """Sample and judge this process's share of one batch of P prompts."""
        places = range(self.rank, self.P, self.world)
        indices = self.indices(step, attempt)
        chosen = [indices[place] for place in places]
        extra = (attempt,) if attempt else ()
        seeds = [derive_seed("rollout", self.seed, step, place, *extra) for place in places]
        with clock("rollout"):
            responses = self.engine.generate([self.student[i] for i in chosen], self.G, self.sampling, seeds)
        with clock("verify"):
            problems = [self.problems[i] for i, rollouts in zip(chosen, responses, strict=True) for _ in rollouts]
            scores = iter(self.task.score_many(problems, [r for rollouts in responses for r in rollouts]))
            return [self._judge(i, rollouts, scores) for i, rollouts in zip(chosen, responses, strict=True)]

    def _judge(self, i: int, rollouts: list[Rollout], all_scores: Iterator[Score]) -> Group:
        scores = [next(all_scores) for _ in rollouts]
        rewards = [self._reward(score, len(r.ids)) for score, r in zip(scores, rollouts, strict=True)]
        return Group(i, rollouts, scores, rewards)

    def _reward(self, score: Score, length: int) -> float:
        """Return the configured reward of a right or wrong answer, less DAPO's soft overlong penalty (arXiv 2503.14476, Eq.
        13).
        """
        reward, buffer = self.config.reward[int(score.correct)], self.config.overlong_buffer
        if buffer:
            over = length - (self.config.max_response_tokens - buffer)
            reward -= min(max(over / buffer, 0.0), 1.0)
        return reward

    def _samples(self, group: Group, context: str, step: int) -> list[Sample]:
        """Return a group's responses with their teacher's prompts."""
        problem, prompt = self.problems[group.problem], self.student[group.problem]
        if context == "solution":
            return [Sample(prompt, self.teacher[group.problem], rollout) for rollout in group.rollouts]
        right = [j for j, score in enumerate(group.scores) if score.correct]
        samples = []
        for j, rollout in enumerate(group.rollouts):
            others = [i for i in right if i != j]
            teacher = None
            if others:
                chosen = others[derive_seed("sibling", self.seed, step, problem.id, j) % len(others)]
                teacher = self._teacher(self.task.sibling_prompt(problem, group.rollouts[chosen].ids), problem)
            samples.append(Sample(prompt, teacher, rollout))
        return samples

    def _failures(self) -> int:
        return sum(self.task.failures.values())

    def accuracy(self, problems: Sequence[Problem], step: int) -> float:
        """Return the share of right answers with one response per problem, at the training temperature."""
        prompts = [self.task.student_prompt(p) for p in problems]
        seeds = [derive_seed("validation", self.seed, step, p.id) for p in problems]
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

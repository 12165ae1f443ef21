"""From problems to scored rollouts: which problems a step takes, their responses, their rewards, and who trains on them.

Each engine samples its share of the prompts. What is decided over all of them (which groups a step keeps, who trains on which)
is decided by every process from the same facts, so that no result depends on how many processes there are.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from sdpg.config.settings import Train
from sdpg.core import distributed
from sdpg.core.batch import Sample
from sdpg.core.flops import Work, rollout_work
from sdpg.core.hints import Hints
from sdpg.core.plan import deal
from sdpg.core.stopping import Stopper
from sdpg.rollout.engine import Engine, derive_seed
from sdpg.types import Problem, Rollout, Sampling, Score

Place = tuple[int, int]  # attempt, number among the prompts of its step


@dataclass(frozen=True)
class Group:
    """The G responses to one problem (its index), judged."""

    place: Place
    problem: int
    rollouts: list[Rollout]
    scores: list[Score]
    rewards: list[float]

    @property
    def tokens(self) -> int:
        """Tokens of the responses."""
        return sum(len(rollout.ids) for rollout in self.rollouts)


@dataclass(frozen=True)
class Fact:
    """What all processes know of a group."""

    place: Place
    rewards: list[float]
    tokens: int  # of the responses
    prompt: int  # tokens of the prompt

    @property
    def informative(self) -> bool:
        """Not all rewards are equal, so that advantages are not all 0."""
        return len(set(self.rewards)) > 1


@dataclass(frozen=True)
class Batch:
    """A step's rewards R (N, G), and the responses that this process trains on: those of the groups `own`, row by row.

    samples[i * G + j] is response j to the prompt of group own[i]. For each update, shares: the rows of `own` that it takes;
    tokens: of the responses that all processes take.
    """

    samples: list[Sample]
    scores: list[Score]
    R_NG: Tensor
    own: list[int]
    shares: list[slice]
    tokens: list[int]
    unjudged: int  # responses that the verifier could not judge in time or size and called wrong
    sampled: int  # responses, with those of groups that dynamic sampling left out; unjudged counts among these
    sampled_tokens: int  # their tokens
    work: Work  # of sampling them
    left_out: Counter  # of hints, see hints.py; this process's

    @property
    def no_room(self) -> int:
        """Responses of this process whose teacher was left out: a sibling's response does not fit its prompt."""
        return self.left_out["no_room"]


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
        max_positions: int | None,
        processes_per_engine: int,
        stopper: Stopper,
        teacher: bool = True,
    ):
        """Encode all prompts. max_positions: the model's context length (None: no limit), which the teacher's prompt plus a
        response must fit as well. processes_per_engine: so many sample together, and the first of them judges. teacher: whether
        one reads the problems' own context, which must then fit.
        """
        if not problems:
            raise ValueError("the training set is empty; check data.train in the config and rerun the rule data")
        self.problems, self.task, self.engine, self.config = problems, task, engine, config
        self.seed, self.stopper = seed, stopper
        self.world = distributed.start()
        self.engines = self.world.size // processes_per_engine
        self.engine_number, place_in_engine = divmod(self.world.rank, processes_per_engine)
        self.judges = place_in_engine == 0
        self._judging = ThreadPoolExecutor(1, "judging")  # beside the sampling
        self.P, self.G = config.prompts_per_step, config.group_size
        self.sampling = Sampling(config.temperature, config.max_response_tokens, tuple(task.stop_token_ids))
        limit = config.max_prompt_tokens
        self.student = [_within(task.student_prompt(p), limit, p, "train.max_prompt_tokens") for p in problems]
        self.teacher_limit = (max_positions or sys.maxsize) - config.max_response_tokens
        self.teacher = [task.teacher_prompt(p) for p in problems]
        for prompt, problem in zip(self.teacher, problems, strict=True) if teacher else ():
            _within(prompt, self.teacher_limit, problem, "the model's context minus train.max_response_tokens")

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

    def collect(self, step: int, clock, context: str = "solution", wrong_hints: int = 0) -> Batch:
        """Sample and judge G responses to each of the step's prompts, and choose what this process trains on. Collective.

        context, wrong_hints: what the teacher reads, see `Needs`. Raises Stopped if a process was asked to stop.
        """
        before = self._failures()
        groups = self._groups(step, 0, clock)
        facts = self._facts(groups)
        for attempt in range(1, self.config.dynamic_sampling + 1):
            if sum(fact.informative for fact in facts) >= self.P:
                break
            groups += self._groups(step, attempt, clock)
            facts = self._facts(groups)
        work = rollout_work([len(self.student[g.problem]) for g in groups], [[len(r.ids) for r in g.rollouts] for g in groups])
        if self.config.dynamic_sampling:
            facts.sort(key=lambda fact: not fact.informative)  # stable: the first drawn come first
            facts = facts[: self.P]
        own, shares, tokens = self._deal(facts)
        here = self._exchange(groups, [facts[i].place for i in own], {fact.place for fact in facts})
        left_out: Counter = Counter()
        return Batch(
            [sample for group in here for sample in self._samples(group, context, wrong_hints, step, left_out)],
            [score for group in here for score in group.scores],
            torch.tensor([fact.rewards for fact in facts]),
            own,
            shares,
            tokens,
            self._failures() - before,
            sum(len(group.rollouts) for group in groups),
            sum(group.tokens for group in groups),
            work,
            left_out,
        )

    def _facts(self, groups: list[Group]) -> list[Fact]:
        """Return the facts of all groups that all processes have sampled so far, in the order of their places."""
        self.stopper.check()
        own = [(g.place, g.rewards, g.tokens, len(self.student[g.problem])) for g in groups]
        every = [Fact(tuple(place), *rest) for part in distributed.gather(own) for place, *rest in part]
        return sorted(every, key=lambda fact: fact.place)

    def _deal(self, facts: list[Fact]) -> tuple[list[int], list[slice], list[int]]:
        """Return the groups that this process trains on, about as many tokens as any other's; which of them each update takes;
        and the tokens of each update's responses, over all processes.
        """
        n = len(facts) // self.config.updates_per_batch
        own: list[int] = []
        shares, tokens = [], []
        for first in range(0, len(facts), n):
            taken = facts[first : first + n]
            tokens.append(sum(fact.tokens for fact in taken))
            mine = deal([fact.tokens + fact.prompt for fact in taken], self.world.size)[self.world.rank]
            shares.append(slice(len(own), len(own) + len(mine)))
            own += [first + i for i in mine]
        return own, shares, tokens

    def _exchange(self, groups: list[Group], places: list[Place], chosen: set[Place]) -> list[Group]:
        """Return the groups of these places, wherever they were sampled. Collective. chosen: all groups that are trained on."""
        found = {group.place: group for group in groups}
        if self.world.size == 1:
            return [found[place] for place in places]
        groups = [found[place] for place in sorted(found.keys() & chosen - set(places))]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        heads = [
            {
                "place": group.place,
                "problem": group.problem,
                "rollouts": [(len(r.ids), r.finish_reason, r.policy_version) for r in group.rollouts],
                "scores": [asdict(score) for score in group.scores],
                "rewards": group.rewards,
            }
            for group in groups
        ]
        ids = distributed.gather_array(np.array([i for r in rollouts for i in r.ids], dtype=np.int64))
        logprobs = distributed.gather_array(np.array([x for r in rollouts for x in r.logprobs], dtype=np.float64))
        wanted = set(places)
        for part, part_ids, part_logprobs in zip(distributed.gather(heads), ids, logprobs, strict=True):
            at = 0
            for head in part:
                end = at + sum(length for length, _, _ in head["rollouts"])
                if (place := tuple(head["place"])) in wanted:
                    found[place] = _unpacked(head, place, part_ids[at:end].tolist(), part_logprobs[at:end].tolist())
                at = end
        return [found[place] for place in places]

    def _groups(self, step: int, attempt: int, clock) -> list[Group]:
        """Sample this engine's share of one batch of P prompts, and judge it; [] if another process of the engine does, or if
        this one was asked to stop.
        """
        places = range(self.engine_number, self.P, self.engines)
        indices = self.indices(step, attempt)
        chosen = [indices[place] for place in places]
        extra = (attempt,) if attempt else ()
        seeds = [derive_seed("rollout", self.seed, step, place, *extra) for place in places]
        prompts = [self.student[i] for i in chosen]
        problems = [self.problems[i] for i in chosen]
        with clock("rollout"):
            sampled = self.stopper.sample(lambda: self._sample(problems, prompts, self.G, seeds))
        if sampled is None or not self.judges:
            return []
        with clock("verify"):
            scores = [judging.result() for _, judging in sampled]
        judged = zip(places, chosen, sampled, scores, strict=True)
        return [self._group((attempt, place), i, rollouts, found) for place, i, (rollouts, _), found in judged]

    def _sample(
        self, problems: Sequence[Problem], prompts: list[list[int]], n: int, seeds: list[int]
    ) -> list[tuple[list[Rollout], Future[list[Score]]]]:
        """Sample n responses to each problem, and have them judged meanwhile: each group as soon as it is complete, where the
        engine gives it then.
        """
        arguments = (prompts, n, self.sampling, seeds)
        each = getattr(self.engine, "generate_each", None)
        found = {}
        try:
            for i, rollouts in each(*arguments) if each else enumerate(self.engine.generate(*arguments)):
                judging = self._judging.submit(self.task.score_many, [problems[i]] * n, rollouts) if self.judges else Future()
                found[i] = rollouts, judging
        except BaseException:
            for _, judging in found.values():
                judging.cancel()
            raise
        return [found[i] for i in range(len(prompts))]

    def _group(self, place: Place, i: int, rollouts: list[Rollout], scores: list[Score]) -> Group:
        rewards = [self._reward(score, len(r.ids)) for score, r in zip(scores, rollouts, strict=True)]
        return Group(place, i, rollouts, scores, rewards)

    def _reward(self, score: Score, length: int) -> float:
        """Return the configured reward of a right or wrong answer, less DAPO's soft overlong penalty (arXiv 2503.14476, Eq.
        13).
        """
        reward, buffer = self.config.reward[int(score.correct)], self.config.overlong_buffer
        if buffer:
            over = length - (self.config.max_response_tokens - buffer)
            reward -= min(max(over / buffer, 0.0), 1.0)
        return reward

    def _samples(self, group: Group, context: str, wrong_hints: int, step: int, left_out: Counter) -> list[Sample]:
        """Return a group's responses with their teacher's prompts. left_out: counts what cannot be a hint."""
        problem, prompt, own = self.problems[group.problem], self.student[group.problem], self.teacher[group.problem]
        limits = {"limit": self.teacher_limit, "seed": (self.seed, step), "counts": left_out}
        hints = Hints(self.task, problem, group.rollouts, group.scores, **limits)
        samples = []
        for j, rollout in enumerate(group.rollouts):
            teacher = own if context == "solution" else hints.sibling(j)
            wrong = hints.wrong(j, wrong_hints) if wrong_hints else ()
            if wrong_hints and (teacher is None or not wrong):  # nothing to contrast
                teacher, wrong = None, ()
            samples.append(Sample(prompt, teacher, rollout, wrong))
        return samples

    def _failures(self) -> int:
        return sum(self.task.failures.values())

    def accuracy(self, problems: Sequence[Problem], step: int) -> float:
        """Return the share of right answers with one response per problem, at the training temperature. Collective."""
        mine = problems[self.engine_number :: self.engines]
        prompts = [self.task.student_prompt(p) for p in mine]
        seeds = [derive_seed("validation", self.seed, step, p.id) for p in mine]
        sampled = self._sample(mine, prompts, 1, seeds)
        right = sum(judging.result()[0].correct for _, judging in sampled) if self.judges else 0
        return sum(distributed.gather(right)) / len(problems)


def _unpacked(head: dict, place: Place, ids: list[int], logprobs: list[float]) -> Group:
    """Return a group as it was before it was sent."""
    rollouts, at = [], 0
    for length, finish_reason, version in head["rollouts"]:
        rollouts.append(Rollout(ids[at : at + length], logprobs[at : at + length], finish_reason, version))
        at += length
    return Group(place, head["problem"], rollouts, [Score(**score) for score in head["scores"]], head["rewards"])


def _within(prompt: list[int], limit: int, problem: Problem, what: str) -> list[int]:
    if len(prompt) > limit:
        raise ValueError(
            f"problem {problem.id!r} gives a prompt of {len(prompt)} tokens, more than {limit} ({what}); "
            "raise the limit, shorten the problem or its solution, or leave it out of the data"
        )
    return prompt

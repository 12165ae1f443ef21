"""Responses of a micro-batch, where their tokens lie, and how a batch is split. B responses, T response tokens, M real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpg.types import Rollout


@dataclass(frozen=True)
class Sample:
    """One response with the prompt it was sampled from and the prompt that its teacher reads (None: it has no teacher).

    wrong_prompts: what the teacher reads in contrast to it, each with a wrong hint.
    """

    prompt: Sequence[int]
    teacher_prompt: Sequence[int] | None
    rollout: Rollout
    wrong_prompts: tuple[Sequence[int], ...] = ()


@dataclass(frozen=True)
class Tokens:
    """Where the M response tokens of B rows lie: row and t index a (B, T) tensor; targets are their ids."""

    row: Tensor  # (M,)
    t: Tensor  # (M,)
    targets: Tensor  # (M,)
    shape: tuple[int, int]  # (B, T)

    @property
    def mask(self) -> Tensor:
        """(B, T): 1 on response tokens."""
        return self.scatter(torch.ones(self.row.shape, device=self.row.device))

    def scatter(self, values: Tensor, where: Tensor | None = None) -> Tensor:
        """Scatter (M,) values, or those of the tokens that the mask `where` (M,) selects -> (B, T), 0 elsewhere."""
        row, t = (self.row, self.t) if where is None else (self.row[where], self.t[where])
        return values.new_zeros(self.shape).index_put((row, t), values)


def locate(samples: Sequence[Sample], device: torch.device) -> Tokens:
    """Index the response tokens of a micro-batch."""
    lengths = torch.tensor([len(s.rollout.ids) for s in samples])
    row = torch.arange(len(samples)).repeat_interleave(lengths)
    t = torch.cat([torch.arange(n) for n in lengths.tolist()])
    targets = torch.tensor([i for s in samples for i in s.rollout.ids])
    return Tokens(row.to(device), t.to(device), targets.to(device), (len(samples), int(lengths.max())))


def per_token(samples: Sequence[Sample], tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return the engine's log-probs, and 1 on the token that ended a response by itself: (B, T) float32 each."""
    device = tokens.row.device
    logprobs = torch.tensor([x for s in samples for x in s.rollout.logprobs], device=device)
    stop = torch.zeros(tokens.shape, device=device)
    for i, s in enumerate(samples):
        if s.rollout.finish_reason == "stop":
            stop[i, len(s.rollout.ids) - 1] = 1
    return tokens.scatter(logprobs), stop


def micro_batches(samples: Sequence[Sample], budget: int, *, packed: bool, teacher: bool = False) -> list[list[int]]:
    """Split into index lists of at most `budget` tokens; responses to one prompt stay together, and rows are alike in length.

    packed: tokens of the packed sequence, a prompt counted once, in batches of equal size. Otherwise of the padded rows.
    teacher: count the longest of the teacher's prompts where it is longer. A single response longer than the budget is a batch
    alone.
    """
    others = lambda s: ((s.teacher_prompt or ()), *s.wrong_prompts) if teacher else ()  # noqa: E731
    prompts = [max(s.prompt, *others(s), (), key=len) for s in samples]
    if not packed:
        lengths = [len(p) + len(s.rollout.ids) for p, s in zip(prompts, samples, strict=True)]
        return _padded_batches(lengths, budget)
    groups: dict[tuple, list[int]] = {}
    for i, (prompt, s) in enumerate(zip(prompts, samples, strict=True)):
        groups.setdefault((tuple(s.prompt), tuple(prompt)), []).append(i)
    longest = lambda rows: max(len(samples[i].rollout.ids) for i in rows)  # noqa: E731
    ordered = sorted(groups.values(), key=longest, reverse=True)
    left = sum(len(prompts[rows[0]]) + sum(len(samples[i].rollout.ids) for i in rows) for rows in ordered)
    batches: list[list[int]] = []
    size = target = 0.0
    for rows in ordered:
        for n, i in enumerate(rows):
            response, prompt = len(samples[i].rollout.ids), len(prompts[i])
            added = response if n else prompt + response
            if size >= target or size + added > budget:
                left += prompt if n else 0  # this batch reads the prompt as well
                batches.append([])
                size, target, added = 0.0, left / -(-left // budget), prompt + response
            batches[-1].append(i)
            size += added
            left -= added
    return batches


def _padded_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches

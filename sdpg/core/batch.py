"""Padding and micro-batches. B responses, L prompt + response tokens, T response tokens, M real response tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpg.types import Rollout


@dataclass(frozen=True)
class Sample:
    """One response with the prompt it was sampled from and the prompt that its teacher reads (None: it has no teacher)."""

    prompt: Sequence[int]
    teacher_prompt: Sequence[int] | None
    rollout: Rollout

    @property
    def length(self) -> int:
        """Tokens that the student reads."""
        return len(self.prompt) + len(self.rollout.ids)


@dataclass(frozen=True)
class Tokens:
    """Where the M response tokens of B rows lie: row and t index a (B, T) tensor; targets are their ids."""

    row: Tensor  # (M,)
    t: Tensor  # (M,)
    targets: Tensor  # (M,)
    shape: tuple[int, int]  # (B, T)

    def scatter(self, values: Tensor, where: Tensor | None = None) -> Tensor:
        """(M,) values, or those of the tokens that the mask `where` (M,) selects -> (B, T), 0 elsewhere."""
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
    """The engine's log-probs, and 1 on the token that ended a response by itself: (B, T) float32 each."""
    device = tokens.row.device
    logprobs = torch.tensor([x for s in samples for x in s.rollout.logprobs], device=device)
    stop = torch.zeros(tokens.shape, device=device)
    for i, s in enumerate(samples):
        if s.rollout.finish_reason == "stop":
            stop[i, len(s.rollout.ids) - 1] = 1
    return tokens.scatter(logprobs), stop


def pad(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Concatenate prompt and response, right-pad with 0: -> ids (B, L). See `models.hidden_states` on padding."""
    rows = [torch.tensor([*p, *r]) for p, r in zip(prompts, responses, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)


def before_response(hidden: Tensor, prompts: Sequence[Sequence[int]], row: Tensor, t: Tensor) -> Tensor:
    """Hidden states that predict the response tokens: (B, L, d) and indices (M,) -> (M, d)."""
    start = torch.tensor([len(p) - 1 for p in prompts], device=hidden.device)
    return hidden[row, start[row] + t]


def micro_batches(samples: Sequence[Sample], budget: int, *, teacher: bool = False) -> list[list[int]]:
    """Split into index lists whose padded size B * L stays within `budget` tokens, longest first, so rows are alike.

    teacher: count the teacher's longer prompt instead. A single response longer than the budget is a batch of its own.
    """

    def size(i):
        s = samples[i]
        prompt = max(len(s.prompt), len(s.teacher_prompt or ())) if teacher else len(s.prompt)
        return len(s.rollout.ids) + prompt

    batches: list[list[int]] = []
    for i in sorted(range(len(samples)), key=size, reverse=True):
        if batches and (len(batches[-1]) + 1) * size(batches[-1][0]) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches

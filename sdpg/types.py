"""The few plain records that every package shares. No torch here: analysis and figures import this file too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Problem:
    """One problem: question x, reference answer, and the worked solution; (answer, solution) is the privileged context c."""

    id: str
    question: str
    answer: str
    solution: str
    source: str


@dataclass(frozen=True)
class Sampling:
    """How to sample: temperature > 0, the most response tokens, and the ids that end a response (EOS among them)."""

    temperature: float
    max_tokens: int
    stop_token_ids: tuple[int, ...]

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be >= 1, got {self.max_tokens}")
        if not self.stop_token_ids:
            raise ValueError("stop_token_ids is empty: a response could never end; give at least the EOS id")


@dataclass(frozen=True)
class Rollout:
    """One sampled response. ids keeps the stop token; logprobs[t] is log p(ids[t]) under the sampling distribution (nats)."""

    ids: list[int]
    logprobs: list[float] = field(repr=False)
    finish_reason: FinishReason
    policy_version: int


@dataclass(frozen=True)
class Score:
    """The verifier's judgement: is the answer right, and (where a task has steps) is every step right too (1.0 / 0.0)."""

    correct: bool
    process: float | None = None

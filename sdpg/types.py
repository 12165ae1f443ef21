"""The few plain records that every package shares, and the ranges of settings. No torch here: analysis imports it too."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Ranges of settings, of the config and of a method's hyper-parameters alike.
LARGEST = 10**9  # of a count: more is a mistake, not a wish
Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrNone = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
ClipDual = Annotated[float, Field(gt=1)]  # a bound on what a negative advantage counts; at 1 or less it would bind always
Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]  # a path: ~ is the user's home


class Settings(BaseModel):
    """A block of settings: each with its type, range and default; the text below it is its meaning. Nothing else is taken."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )

    def dump(self) -> dict:
        """Return the block as plain values, under the names that a scale file uses."""
        return self.model_dump(by_alias=True)


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

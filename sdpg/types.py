"""The few plain records that every package shares, and the ranges of settings. No torch here: analysis imports it too."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def whole(value: Any) -> Any:
    """Take a whole float for the int that it is: 1000.0, 1e3."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


# Ranges of settings, of the config and of a method's hyper-parameters alike. Every number has both ends: what lies beyond
# LARGEST, or is nearer to 0 than LEAST, is a mistake and not a wish.
LARGEST, LEAST = 10**9, 1e-12
WHOLE = BeforeValidator(whole)  # last in `Annotated[int, ...]`, behind the range
Count = Annotated[int, Field(ge=1, le=LARGEST), WHOLE]
CountOrNone = Annotated[int, Field(ge=0, le=LARGEST), WHOLE]
Length = Annotated[int, Field(ge=1, le=1000), WHOLE]  # of a generated problem
Seed = Annotated[int, Field(ge=0, lt=2**63), WHOLE]
Positive = Annotated[float, Field(gt=0, ge=LEAST, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Negative = Annotated[float, Field(ge=-LARGEST, le=-LEAST)]
Weight = Annotated[float, Field(ge=0, le=1000)]  # of a term of a loss
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, ge=LEAST, le=1)]
LearningRate = Annotated[float, Field(gt=0, ge=LEAST, le=10)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]  # vLLM raises what is less to 0.01
TemperatureOrGreedy = Annotated[float, Field(ge=0, le=100)]
ClipLow = Annotated[float, Field(ge=0, lt=1)]  # 1 - clip_low bounds a ratio, which is positive anyway
ClipDual = Annotated[float, Field(gt=1, le=LARGEST)]  # most that a negative advantage counts; at 1 or less it would always bind
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
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
    """How to sample: temperature, the most response tokens, and the ids that end a response (EOS among them).

    Temperature 0 is greedy: the most probable token always, with the log-probs of temperature 1.
    """

    temperature: float
    max_tokens: int
    stop_token_ids: tuple[int, ...]

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number >= 0, got {self.temperature}")
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
    unjudged: str | None = field(default=None, compare=False)  # why the verifier could not judge, and called it wrong

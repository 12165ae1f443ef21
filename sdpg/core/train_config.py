"""What decides a run besides its method: the block `train` of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from sdpg.algorithms.base import Algorithm
from sdpg.algorithms.reduce import Reduction
from sdpg.core.collector import CollectorConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The block `train` of a config; defaults and meanings are in workflows/schemas/config.schema.json."""

    engine: str
    steps: int
    prompts_per_step: int
    group_size: int
    temperature: float
    max_prompt_tokens: int
    max_response_tokens: int
    lr: float
    lr_multiplier: float
    betas: Sequence[float]
    weight_decay: float
    warmup_steps: int
    clip_grad_norm: float
    reduction: Reduction
    updates_per_batch: int
    micro_batch_tokens: int
    packed: bool
    precision: Literal["fp32", "bf16"]
    gradient_checkpointing: bool
    reward: Sequence[float]
    overlong_buffer: int
    dynamic_sampling: int
    checkpoint_every: int
    validate_every: int

    def collector(self) -> CollectorConfig:
        """The part that decides what is sampled and how it is rewarded."""
        return CollectorConfig(**{f.name: getattr(self, f.name) for f in fields(CollectorConfig)})

    @property
    def dtype(self) -> str:
        """torch's name of the compute precision."""
        return {"fp32": "float32", "bf16": "bfloat16"}[self.precision]


def check(c: TrainConfig, algorithm: Algorithm, world: int) -> None:
    """Settings that do not fit together: ValueError."""
    updates = c.updates_per_batch
    if c.prompts_per_step % updates or (c.prompts_per_step // updates) % world:
        raise ValueError(
            f"train.prompts_per_step={c.prompts_per_step} must be a multiple of train.updates_per_batch={updates} "
            f"x {world} processes"
        )
    if updates > 1 and not algorithm.off_policy:
        raise ValueError(
            f"train.updates_per_batch={updates}, but {type(algorithm).__name__} is on-policy as configured; "
            "set it to 1, or `off_policy: true` where the method has that field"
        )

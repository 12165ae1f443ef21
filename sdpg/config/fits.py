"""What the settings of one block say about each other."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

from sdpg.rollout import engines


def check_training(train: Any) -> None:
    """Refuse training settings (`Train`) that do not fit each other, with PydanticCustomError "together"."""
    t = train
    if t.overlong_buffer >= t.max_response_tokens:
        _refuse("overlong_buffer is {overlong_buffer}, expected less than max_response_tokens={max_response_tokens}", t)
    if t.prompts_per_step % t.updates_per_batch:
        _refuse("prompts_per_step is {prompts_per_step}, expected a multiple of updates_per_batch={updates_per_batch}", t)
    if t.dynamic_sampling and t.group_size == 1:
        _refuse("dynamic_sampling is {dynamic_sampling}, expected 0: no reward differs in a group with group_size=1", t)
    if isinstance(t.keep, int) and t.keep % t.checkpoint_every:
        _refuse("keep is {keep}, expected all, last or a multiple of checkpoint_every={checkpoint_every}", t)
    if t.lr * t.lr_multiplier * t.weight_decay >= 1:
        _refuse(
            "weight_decay is {weight_decay}, expected less than 1 / (lr x lr_multiplier): a step would turn weights round", t
        )
    if t.lora_alpha and not t.lora_rank:
        _refuse("lora_alpha is {lora_alpha}, but lora_rank is 0: there are no adapters; give a rank, or null", t)

    check_temperature(t.engine, t.temperature)


def check_temperature(engine: str, temperature: float) -> None:
    """Refuse a temperature that an engine would change by itself, or does not take."""
    low, high = engines.temperatures(engine)
    if not low <= temperature <= high:
        text = "temperature is {temperature}, but the engine {engine} samples at temperatures from {low} to {high} only"
        given = {"temperature": temperature, "engine": engine, "low": low, "high": high}
        raise PydanticCustomError("together", text, given)


def _refuse(text: str, train: Any) -> None:
    raise PydanticCustomError("together", text, train.model_dump())

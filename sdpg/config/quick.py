"""`quick=true`: the same DAG, methods and sets in minutes, to see that everything runs before hours are spent on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdpg.config.files import ConfigError, show

KEY = "quick"
ASKED = "`snakemake --config quick=true`, or --set quick=true of `sdpg`"
STEPS, PROMPTS, GROUP, TOKENS, SAMPLES = 2, 4, 4, 256, 2
TRAIN = {"steps": STEPS, "prompts_per_step": PROMPTS, "warmup_steps": 0, "checkpoint_every": STEPS, "validate_every": STEPS}
MOST = {"group_size": GROUP, "max_response_tokens": TOKENS, "updates_per_batch": 2, "overlong_buffer": TOKENS // 2}
SCHEDULE = {"T_warm": 1, "T_decay": 1}  # of a method that has one


def wants_quick(overrides: dict[str, Any]) -> bool:
    """Take `quick` out of the overrides -> whether it is asked for. Raises ConfigError for what is neither true nor false."""
    value = overrides.pop(KEY, False)
    if not isinstance(value, bool):
        raise ConfigError(f"override {KEY}: got {show(value)}, expected true or false")
    return value


def refuse_in_a_file(keys: Mapping[str, Any]) -> None:
    """Raise ConfigError for `quick` in a scale file: it is no part of a scale."""
    if KEY in keys:
        raise ConfigError(f"config key {KEY!r} is none of a scale file; ask for it when you run: {ASKED}")


def make_quick(config: dict[str, Any]) -> None:
    """Shrink a merged config in place: two steps of four problems, four responses each, one seed, sets of four problems."""
    config["name"] = f"{config.get('name')}-{KEY}"
    config["matrix"] = []
    config["seeds"] = config["seeds"][:1] if isinstance(config.get("seeds"), list) else [0]
    if not all(isinstance(config.get(key), dict | None) for key in ("train", "evaluation", "data")):
        return  # refused by the settings
    config["train"] = _few(MOST, {"group_size": GROUP} | (config.get("train") or {}) | TRAIN)
    evaluation = config.get("evaluation") or {}
    samples = 1 if evaluation.get("temperature") == 0 else SAMPLES
    config["evaluation"] = evaluation | {"samples": samples, "pass_k": sorted({1, samples})}
    if isinstance(lm_eval := evaluation.get("lm_eval"), dict) and lm_eval:
        few = {"seeds": 1} if lm_eval.get("seeds") else {}
        config["evaluation"]["lm_eval"] = lm_eval | {"repeats": 1, "limit": PROMPTS} | few
    data = config.get("data") or {}
    sets = [block for part in ("validation", "evaluation") if isinstance(block := data.get(part), dict)]
    for source in (data.get("train"), *(source for block in sets for source in block.values())):
        if isinstance(source, dict):
            _shrink(source)
    for block in (config.get("methods") or {}).values():
        if isinstance(block, dict):
            block |= {key: value for key, value in SCHEDULE.items() if block.get(key)}
            if isinstance(own := block.get("train"), dict):
                own |= {key: value for key, value in TRAIN.items() if key in own}
                most = MOST | {"group_size": 2 * GROUP}  # a control with more of them keeps more
                block["train"] = _few(most, own, config["train"].get("max_response_tokens"))


def _shrink(source: dict[str, Any]) -> None:
    generated = [value for value in source.values() if isinstance(value, Mapping) and "count" in value]
    for options in generated:
        options["count"] = PROMPTS
    if not generated:
        source["limit"] = PROMPTS


def _few(most: Mapping[str, int], train: dict[str, Any], below: Any = None) -> dict[str, Any]:
    """Return training settings with at most so much of each, and every one of the few checkpoints kept.

    below: max_response_tokens where these settings have none of their own.
    """
    few = train | {key: min(train[key], limit) for key, limit in most.items() if isinstance(train.get(key), int)}
    if isinstance(few.get("keep"), int):  # a multiple of what checkpoint_every was
        few["keep"] = "all"
    tokens, buffer = few.get("max_response_tokens", below), few.get("overlong_buffer")
    if isinstance(tokens, int) and isinstance(buffer, int) and tokens >= 1:
        few["overlong_buffer"] = min(buffer, tokens - 1)
    return few

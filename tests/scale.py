"""Configs for tests that need only some of the blocks, and the errors of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from sdpg.config import ConfigError, resolve
from sdpg.config.settings import Config
from sdpg.types import Settings

CHAIN = {"chain": {"operations": [2], "count": 3, "seed": 0}}
BLOCKS = {
    "name": "test",
    "model": {"pretrained": "some/dir"},
    "data": {"train": CHAIN, "evaluation": {"chain": CHAIN}},
    "train": {"steps": 5, "max_prompt_tokens": 32, "max_response_tokens": 16},
    "methods": {"grpo": {}},
}


def config_of(**blocks: Any) -> Config:
    """Return a config with these blocks, merged one level deep over BLOCKS."""
    merged = BLOCKS | {
        key: {**BLOCKS.get(key, {}), **value} if isinstance(value, dict) and key in ("data", "train") else value
        for key, value in blocks.items()
    }
    return Config.model_validate(merged)


def block(model: type[Settings], **values: Any) -> Settings:
    """Return one block of settings."""
    return model.model_validate(values)


def evaluated(name: str, *sets: str, **evaluation: Any) -> dict[str, Any]:
    """Return a scale whose finished runs are evaluated in process on these sets: nothing of it is trained."""
    return {
        "name": name,
        "model": "nowhere",
        "task": {"template": "chain", "verifier": "chain"},
        "data": {"train": CHAIN, "evaluation": dict.fromkeys(sets, CHAIN)},
        "train": {"steps": 20, "max_prompt_tokens": 16, "max_response_tokens": 24},
        "evaluation": {"engine": "in-process", "lm_eval": None, **evaluation},
        "methods": {"grpo": {}},
    }


def message(scale, overrides=None) -> str:
    """The text of the ConfigError that resolving raises; it is one line."""
    with pytest.raises(ConfigError) as error:
        resolve(scale, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)

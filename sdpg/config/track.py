"""The setting `track`: one name, several or none."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

TRACKERS = ["tensorboard", "trackio", "wandb"]  # as in sdpg/core/trackers.py
SCHEMA = {"anyOf": [{"enum": TRACKERS}, {"type": "array", "items": {"enum": TRACKERS}, "uniqueItems": True}, {"type": "null"}]}


def _listed(value: Any) -> list[str]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or any(name not in TRACKERS for name in names) or len(set(names)) < len(names):
        raise PydanticCustomError("expected", f"expected one of {', '.join(TRACKERS)}, a list of them with none twice, or null")
    return names


Track = Annotated[list[str], BeforeValidator(_listed), WithJsonSchema(SCHEMA)]

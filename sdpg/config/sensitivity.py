"""The block `sensitivity` of a scale: settings that are varied, one at a time, around the scale's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from sdpg.types import Settings, Text

NONE_TWICE = {"uniqueItems": True}


class Axis(Settings):
    """One setting that is varied for some methods, while all else stays as it is."""

    setting: Text
    """Dotted key as under `methods`: train.lr, or a setting of the methods' own such as beta_base."""
    methods: Annotated[list[str], Field(min_length=1, json_schema_extra=NONE_TWICE)]
    """Methods of the scale that get the values; the others are compared with them as they are."""
    values: Annotated[list[Annotated[float, Field(ge=-1e9, le=1e9)]], Field(min_length=1, json_schema_extra=NONE_TWICE)]
    """Values beside the methods' own: one more method for each, run under the name METHOD.SETTING-VALUE."""

    @field_validator("methods", "values")
    @classmethod
    def _none_twice(cls, value: list) -> list:
        if len(set(value)) < len(value):
            raise PydanticCustomError("expected", "expected none twice")
        return value

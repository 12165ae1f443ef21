"""Blocks of the config of which exactly one key is given."""

from __future__ import annotations

from typing import Any

from pydantic import model_serializer, model_validator
from pydantic_core import PydanticCustomError

from sdpg.types import Settings


class Alternatives(Settings):
    """A block of which exactly one key is given; it is dumped without the others. Null takes an inherited key away."""

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, value: Any) -> Any:
        keys = cls.alternatives()
        if not isinstance(value, dict) or set(value) - set(_aliases(cls)):
            return value  # no block, or one with unknown keys, which are refused as such
        value = {key: given for key, given in value.items() if given is not None or key not in keys}
        given = [key for key in keys if key in value]
        for option in value:
            if option not in keys and not set(kinds := cls.kinds_of(option)) & set(given):
                needed = {"option": option, "kind": " or ".join(kinds)}
                raise PydanticCustomError("goes_with", "{option} goes with {kind}, which is missing", needed)
        if len(given) != 1:
            words = {"got": ", ".join(value) or "nothing", "keys": ", ".join(keys)}
            raise PydanticCustomError("exactly_one", "got {got}, expected exactly one of {keys}", words)
        return value

    @classmethod
    def alternatives(cls) -> list[str]:
        """Return the keys of which one is given."""
        return _aliases(cls)

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(key for key in self.alternatives() if getattr(self, key.replace("-", "_")) is not None)

    @model_serializer(mode="wrap")
    def _without_others(self, handler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


def _aliases(model: type[Settings]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]

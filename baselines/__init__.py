"""The registry of methods. To add one: write its file, add its line here, add config/methods/<name>.yaml."""

from __future__ import annotations

import dataclasses
import difflib
from functools import cache
from typing import get_type_hints

from pydantic import ValidationError, create_model

from baselines.grpo import GRPO
from baselines.opcd import OPCD
from baselines.opsa import OPSA
from baselines.opsd import OPSD
from baselines.rlcsd import RLCSD
from baselines.rlsd import RLSD
from baselines.sdft import SDFT
from baselines.sdpo import SDPO
from sdpg.algorithms.base import Algorithm
from sdpg.algorithms.sdpg import SDPG
from sdpg.types import Settings

REGISTRY = {
    "grpo": GRPO,
    "opcd": OPCD,
    "opsa": OPSA,
    "opsd": OPSD,
    "rlcsd": RLCSD,
    "rlsd": RLSD,
    "sdft": SDFT,
    "sdpo": SDPO,
    "sdpg": SDPG,
}


@cache
def hyperparameters(algorithm: str) -> type[Settings]:
    """Return an algorithm's fields with their types, ranges and defaults, as its dataclass has them."""
    cls = REGISTRY[algorithm]
    hints = get_type_hints(cls, include_extras=True)
    fields = {
        field.name: (hints[field.name], ... if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(cls)
    }
    return create_model(cls.__name__, __base__=Settings, **fields)


def make(algorithm: str, **fields) -> Algorithm:
    """Build a method by its registry name; an unknown name, field or value is a ValueError that says what is expected."""
    if algorithm not in REGISTRY:
        raise ValueError(f"unknown algorithm {algorithm!r}; {_nearest(algorithm, REGISTRY)}")
    known = hyperparameters(algorithm)
    for name in fields:
        if name not in known.model_fields:
            raise ValueError(f"algorithm {algorithm!r} has no field {name!r}; {_nearest(name, known.model_fields)}")
    try:
        known.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ValueError(f"algorithm {algorithm!r}, {at}: got {first['input']!r}; {first['msg']}") from None
    return REGISTRY[algorithm](**fields)


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(known))}"

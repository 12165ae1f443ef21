"""The registry of methods. To add one: write its file, add its line here, add config/methods/<name>.yaml."""

from __future__ import annotations

import dataclasses
import difflib

from baselines.grpo import GRPO
from baselines.opcd import OPCD
from baselines.opsd import OPSD
from baselines.rlsd import RLSD
from baselines.sdft import SDFT
from baselines.sdpo import SDPO
from sdpg.algorithms.base import Algorithm
from sdpg.algorithms.sdpg import SDPG

REGISTRY = {
    "grpo": GRPO,
    "opcd": OPCD,
    "opsd": OPSD,
    "rlsd": RLSD,
    "sdft": SDFT,
    "sdpo": SDPO,
    "sdpg": SDPG,
}


def make(algorithm: str, **fields) -> Algorithm:
    """Build a method by its registry name; an unknown name or field is a ValueError that names the nearest valid one."""
    if algorithm not in REGISTRY:
        raise ValueError(f"unknown algorithm {algorithm!r}; {_nearest(algorithm, REGISTRY)}")
    cls = REGISTRY[algorithm]
    known = {field.name for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            raise ValueError(f"algorithm {algorithm!r} has no field {name!r}; {_nearest(name, known)}")
    return cls(**fields)


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(known))}"

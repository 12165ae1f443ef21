"""What figures call the methods and the measures: words, not the names of files."""

from __future__ import annotations

import re

LABELS = {
    "sdpg-ufkl": "SDPG-UFKL",
    "sdpg-urkl": "SDPG-URKL",
    "sdpg-fkl": "SDPG-FKL",
    "sdpg-rkl": "SDPG-RKL",
    "sdpg-no-anchor": "SDPG without anchor",
    "sdpg-no-gate": "SDPG without gate",
    "sdpg-no-schedule": "SDPG without schedule",
    "sdpg-open": "SDPG without gate and schedule",
    "grpo": "GRPO",
    "grpo-double": "GRPO, twice the responses",
    "grpo-equal-compute": "GRPO, 9 responses",
    "grpo-imitation": "GRPO with imitation",
    "dapo": "DAPO",
    "dr-grpo": "Dr. GRPO",
    "gspo": "GSPO",
    "rpg": "RPG (no distillation)",
    "rlsd": "RLSD",
    "rlcsd": "RLCSD",
    "opcd": "OPCD",
    "opsd": "OPSD",
    "opsa": "OPSA",
    "opsa-constant": "OPSA, constant advantage",
    "sdpo": "SDPO",
    "sdft": "SDFT",
}
VARIED = re.compile(r"(?P<method>[\w-]+)\.(\w+\.)*(?P<key>\w+)-(?P<value>[\d.e+-]+)")  # config/variants.py names them
BASE = "base model"  # the method of the rows of a figure's CSV that no run made


def label(method: str) -> str:
    """Return a method in words: "SDPG-URKL, large beta" for a variant sdpg-urkl-large-beta, "GRPO, lr 0.0006" for one that a
    scale's `sensitivity` makes (grpo.train.lr-0.0006); a name that begins like none of the project's methods stays as its user
    wrote it.
    """
    if method in LABELS:
        return LABELS[method]
    if (varied := VARIED.fullmatch(method)) and varied["method"] in LABELS:
        return f"{LABELS[varied['method']]}, {varied['key'].replace('_', ' ')} {varied['value']}"
    known = max((name for name in LABELS if method.startswith(f"{name}-")), key=len, default=None)
    return f"{LABELS[known]}, {method.removeprefix(known)[1:].replace('-', ' ')}" if known else method

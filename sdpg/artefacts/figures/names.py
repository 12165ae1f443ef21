"""What figures call the methods and the measures: words, not the names of files."""

from __future__ import annotations

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
    "grpo-equal-compute": "GRPO at SDPG's compute",
    "grpo-imitation": "GRPO with imitation",
    "grpo-sdpg-rate": "GRPO at SDPG's rate",
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
BASE = "base model"  # the method of the rows of a figure's CSV that no run made


def label(method: str) -> str:
    """Return a method in words: "SDPG-URKL, large beta" for a variant sdpg-urkl-large-beta; a name that begins like none of
    the project's methods stays as its user wrote it.
    """
    if method in LABELS:
        return LABELS[method]
    known = max((name for name in LABELS if method.startswith(f"{name}-")), key=len, default=None)
    return f"{LABELS[known]}, {method.removeprefix(known)[1:].replace('-', ' ')}" if known else method

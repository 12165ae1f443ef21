"""How figures and tables write settings and their values."""

from __future__ import annotations

import math
from typing import Any

SETTINGS = {  # dotted key -> in words
    "train.lr": "learning rate",
    "beta_base": "β, weight of the distillation",
    "alpha": "α, weight of the anchor",
    "kl_coef": "weight of GRPO's KL penalty",
}


def setting_name(key: str) -> str:
    """Return a setting in words; its key where there are none."""
    return SETTINGS.get(key, key)


def short_name(key: str) -> str:
    """Return the same without what explains it: "β"."""
    return setting_name(key).partition(",")[0]


def value_text(value: Any) -> str:
    """Shorten 0.001 to 1e-3, and leave 0.3."""
    if isinstance(value, bool) or not isinstance(value, float | int):
        return str(value)
    if not value or 0.01 <= abs(value) < 1000:
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    return f"{value / 10**exponent:g}e{exponent}"


def joined(words: list[str]) -> str:
    """Join ["a", "b", "c"] to "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))

"""The Snakemake command that stands for a scale and its overrides (`from_snakemake` reads it back)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any


def snakemake_command(scale: str, overrides: Mapping[str, Any]) -> str:
    """Return the command that runs everything at a scale with these overrides."""
    words = ["snakemake", "reproduce-all", "--config", f"scale={scale}"]
    words += [f"{key}={json.dumps(value)}" for key, value in overrides.items() if "." not in key]
    dotted = [f"{key}={json.dumps(value)}" for key, value in overrides.items() if "." in key]
    return shlex.join(words + ([f"set={shlex.join(dotted)}"] if dotted else []))

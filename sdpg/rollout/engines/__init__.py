"""The rollout engines, a file for each; all keep the contract of sdpg/rollout/engine.py (tests/rollout/test_contract.py).

The file's name is the engine's (`in_process.py`: in-process). It has `ENGINE`, the class, made with (model_dir, dtype=,
max_len=, threads=, seed=), and may have `LABEL`, its name in tables, and `LM_EVAL = True` if lm-eval can use it as it runs.
"""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from sdpg.rollout.engine import Engine


def names() -> tuple[str, ...]:
    """Return the engines' names."""
    return tuple(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def engine_file(name: str) -> str:
    """Return an engine's file, relative to the project."""
    return f"{__name__.replace('.', '/')}/{name.replace('-', '_')}.py"


def engine_module(name: str) -> ModuleType:
    """Import an engine's file, and no other's. Raises ValueError with the nearest name."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"unknown rollout engine {name!r}{hint}; choose one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def make_engine(
    name: str, model_dir: str | Path, *, dtype: str, max_len: int, threads: int = 1, seed: int = 0
) -> Engine:
    """Start an engine on an HF checkpoint. dtype: "float32" | "bfloat16"; max_len: prompt plus response, in tokens."""
    return engine_module(name).ENGINE(model_dir, dtype=dtype, max_len=max_len, threads=threads, seed=seed)

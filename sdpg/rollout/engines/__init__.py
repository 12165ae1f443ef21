"""The rollout engines, a file for each; all keep the contract of sdpg/rollout/engine.py (tests/rollout/test_contract.py).

The file's name is the engine's (`in_process.py`: in-process). It has `ENGINE`, the class, made with (model_dir, dtype=,
max_len=, threads=, seed=, share=), and may have `LABEL = "..."`, its name in tables, `LM_EVAL = True` if lm-eval can use
it as it runs (through its `llm`, a `vllm.LLM`), `TEMPERATURES = (low, high)`, where it samples as asked (0, greedy, is
always among them), and `REFUSES = {model_type: why}`, models that it does not compute as transformers does. These are read
without importing the file, which loads torch.
"""

from __future__ import annotations

import ast
import importlib
import math
import pkgutil
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sdpg.rollout.engine import Engine
from sdpg.rollout.placement import DEFAULT, Share

CONSTANTS = ("LABEL", "LM_EVAL", "TEMPERATURES", "REFUSES")


def names() -> tuple[str, ...]:
    """Return the engines' names."""
    return tuple(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def engine_file(name: str) -> str:
    """Return an engine's file, relative to the project."""
    return f"{__name__.replace('.', '/')}/{name.replace('-', '_')}.py"


def label(name: str) -> str:
    """Return an engine's name in tables."""
    return _constants(name).get("LABEL", name)


def temperatures(name: str) -> tuple[float, float]:
    """Return the lowest and the highest temperature at which an engine samples as it is asked to."""
    return _constants(name).get("TEMPERATURES", (0.0, math.inf))


def refuses(name: str, kind: str) -> str | None:
    """Return why an engine does not take models of a kind (`model_type` in config.json), None where nothing is known."""
    return _constants(name).get("REFUSES", {}).get(kind)


def lm_eval_engine(name: str) -> str:
    """Return the engine that lm-eval uses where `name` evaluates: that one if it can, else the first that can."""
    able = [other for other in (name, *names()) if _constants(other).get("LM_EVAL", False)]
    if not able:
        raise ValueError(f"no engine in {__name__} says LM_EVAL = True; set evaluation.lm_eval to null")
    return able[0]


@cache
def _constants(name: str) -> dict[str, Any]:
    """Read what an engine's file assigns to these names, as literals."""
    file = Path(__path__[0], f"{name.replace('-', '_')}.py")
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    found = [(ast.unparse(node.targets[0]), node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return {target: ast.literal_eval(value) for target, value in found if target in CONSTANTS}


def engine_module(name: str) -> ModuleType:
    """Import an engine's file, and no other's. Raises ValueError with the nearest name."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"unknown rollout engine {name!r}{hint}; choose one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def make_engine(
    name: str, model_dir: str | Path, *, dtype: str, max_len: int, threads: int = 1, seed: int = 0, share: Share = DEFAULT
) -> Engine:
    """Start an engine on an HF checkpoint. dtype: "float32" | "bfloat16"; max_len: prompt plus response, in tokens."""
    return engine_module(name).ENGINE(model_dir, dtype=dtype, max_len=max_len, threads=threads, seed=seed, share=share)

"""Rollout engines: `in-process` (transformers with a KV cache) and `vllm`, behind one interface."""

from __future__ import annotations

from pathlib import Path

from sdpg.rollout.engine import Engine

ENGINES = ("in-process", "vllm")


def make_engine(
    name: str, model_dir: str | Path, *, dtype: str, max_len: int, threads: int = 1, seed: int = 0
) -> Engine:
    """Start an engine on an HF checkpoint. dtype: "float32" | "bfloat16"; max_len: prompt plus response, in tokens."""
    if name == "in-process":
        from sdpg.rollout.engines.in_process import HFEngine

        return HFEngine(model_dir, dtype=dtype, max_len=max_len)
    if name == "vllm":
        from sdpg.rollout.engines.vllm import VLLMEngine

        return VLLMEngine(model_dir, dtype=dtype, max_len=max_len, threads=threads, seed=seed)
    raise ValueError(f"unknown rollout engine {name!r}; choose one of {', '.join(ENGINES)}")

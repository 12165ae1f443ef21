"""What every evaluation starts with: the task, the evaluation sets with their prompts, how to sample, and an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdpg.config.settings import Config
from sdpg.evaluation.parts import EvaluationSet
from sdpg.evaluation.sampling import evaluation_set
from sdpg.types import Sampling


def load_sets(config: Config, model_dir: str | Path, data_dir: str | Path) -> tuple[Any, list[EvaluationSet]]:
    """Return the task, for the tokenizer in model_dir, and every evaluation set of the config with its prompts."""
    from transformers import AutoTokenizer

    from sdpg.tasks.data import load_problems
    from sdpg.tasks.task import make_task

    task = make_task(config.task, AutoTokenizer.from_pretrained(model_dir))
    limit = config.train.max_prompt_tokens
    sets = [
        evaluation_set(name, load_problems(Path(data_dir) / "eval" / f"{name}.parquet"), task, limit)
        for name in config.data.evaluation
    ]
    return task, sets


def make_sampling(config: Config, task) -> Sampling:
    """Return how evaluation samples: its own temperature, training's response limit, the task's stop tokens."""
    return Sampling(config.evaluation.temperature, config.train.max_response_tokens, tuple(task.stop_token_ids))


def start_engine(name: str, model_dir: str | Path, config: Config, threads: int, seed: int, *, reference: bool = False):
    """Start an engine with room for the longest prompt and response of the config. reference: leave room on a GPU for the same
    model under transformers.
    """
    from sdpg.rollout.engines import make_engine
    from sdpg.rollout.placement import own_gpu, share

    max_len = config.train.max_prompt_tokens + config.train.max_response_tokens
    vllm = config.resources.vllm
    given = {"memory": vllm.memory, "max_num_seqs": vllm.max_num_seqs, "prefix_caching": vllm.prefix_caching}
    how = {"dtype": config.evaluation.dtype, "max_len": max_len, "threads": threads, "seed": seed}
    beside = weight_bytes(model_dir, config.evaluation.dtype) / 2**30 if reference else 0.0
    return make_engine(name, model_dir, **how, share=share(own_gpu(), alone=True, beside=beside, **given))


def weight_bytes(model_dir: str | Path, dtype: str) -> int:
    """Return what a checkpoint's tensors take in `dtype`; read from the files' headers."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for path in Path(model_dir).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  no mapping
    return count * (2 if dtype == "bfloat16" else 4)

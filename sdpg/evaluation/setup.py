"""What every evaluation starts with: the task, the evaluation sets with their prompts, how to sample, and an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdpg.config.settings import Config
from sdpg.evaluation.sampling import EvaluationSet, evaluation_set
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


def start_engine(name: str, model_dir: str | Path, config: Config, threads: int, seed: int):
    """Start an engine with room for the longest prompt and response of the config."""
    from sdpg.rollout.engines import make_engine
    from sdpg.rollout.placement import own_gpu, share

    max_len = config.train.max_prompt_tokens + config.train.max_response_tokens
    vllm = config.resources.vllm
    given = {"memory": vllm.memory, "max_num_seqs": vllm.max_num_seqs, "prefix_caching": vllm.prefix_caching}
    how = {"dtype": config.evaluation.dtype, "max_len": max_len, "threads": threads, "seed": seed}
    return make_engine(name, model_dir, **how, share=share(own_gpu(), alone=True, **given))

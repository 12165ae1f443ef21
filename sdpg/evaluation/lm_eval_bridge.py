"""lm-eval on one checkpoint: the evaluation sets as local tasks, and a task that training does not touch (forgetting)."""

from __future__ import annotations

import logging
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from sdpg.config.settings import Config
from sdpg.evaluation.agreement import Reference, check_agreement
from sdpg.evaluation.lm_eval_task import bundled_names, bundled_task, prompt_texts, sampled_task
from sdpg.evaluation.parts import EvaluationSet
from sdpg.evaluation.sampling import CHECKED_RESPONSES, evaluation_set
from sdpg.evaluation.setup import load_sets, make_sampling, start_engine
from sdpg.io import write_json
from sdpg.rollout.engines import lm_eval_engine

KEPT = ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
SEED = 1234


def lm_evaluate(
    model_dir: str | Path, config: Config, *, seed: int, data_dir: str | Path, out_dir: str | Path, threads: int = 1
) -> Path:
    """Run lm-eval on an HF checkpoint in a separate engine and write out_dir/lm_eval.json. Errors: as `Evaluation`."""
    if config.evaluation.lm_eval is None:
        raise ValueError("evaluation.lm_eval is null in this scale; set evaluation.lm_eval.repeats to run lm-eval")
    if not (Path(model_dir) / "config.json").is_file():
        raise ValueError(f"no model in {model_dir}: config.json is missing; run the rule that makes it first")
    task, sets = load_sets(config, model_dir, data_dir)
    forgetting = forgetting_set(config, task, data_dir)
    engine = start_engine(lm_eval_engine(config.evaluation.engine), model_dir, config, threads, seed, reference=True)
    try:
        check_weights(engine, model_dir, config, task, sets[0])
        results = lm_evaluate_engine(engine, config, task, sets, forgetting, seed=seed)
    finally:
        engine.close()
        task.close()
    path = Path(out_dir) / "lm_eval.json"
    write_json(path, results)
    return path


def check_weights(engine, model_dir: str | Path, config: Config, task, some: EvaluationSet) -> None:
    """Compare an engine that was started on a checkpoint with transformers, on some of a set's problems. Raises EngineMismatch.

    What it sampled leaves no trace in the engine: lm-eval begins as if it had just been started.
    """
    prompts, sampling = some.prompts[:CHECKED_RESPONSES], make_sampling(config, task)
    rollouts = [group[0] for group in engine.generate(prompts, 1, sampling, SEED)]
    dtype = config.evaluation.dtype
    reference = Reference(model_dir, dtype)
    check_agreement(reference, model_dir, prompts, rollouts, temperature=sampling.temperature, dtype=dtype)
    engine.llm.reset_prefix_cache()


def forgetting_set(config: Config, task, data_dir: str | Path) -> EvaluationSet | str | None:
    """Return what evaluation.lm_eval.forgetting names: None, a bundled multiple-choice task (its name), or problems of
    data_dir/forgetting/<name>.parquet. Raises ValueError if there is neither.
    """
    name = config.evaluation.lm_eval.forgetting
    if name is None or name in bundled_names():
        return name
    if name in config.data.evaluation:
        raise ValueError(f"evaluation.lm_eval.forgetting is {name!r}, which is an evaluation set already; leave it null")
    from sdpg.tasks.data import load_problems

    path = Path(data_dir) / "forgetting" / f"{name}.parquet"
    if not path.is_file():
        raise ValueError(
            f"evaluation.lm_eval.forgetting is {name!r}: it must be {' or '.join(bundled_names())}, or a data set, but {path} "
            "is missing; `sdpg data --scale NAME` makes it"
        )
    return evaluation_set(name, load_problems(path), task, config.train.max_prompt_tokens)


def lm_evaluate_engine(
    engine, config: Config, task, sets: Sequence[EvaluationSet], forgetting, *, seed: int = 0
) -> dict[str, Any]:
    """Run lm-eval on the weights that a running engine (with LM_EVAL) holds -> lm-eval's results as plain JSON values.

    Of the config: evaluation.temperature, evaluation.lm_eval.repeats and .limit; the first so many problems of every task.
    Responses that the verifier could not judge, and called wrong, are counted by reason under config.unjudged, if any.
    """
    from sdpg.rollout.vllm_environment import vllm_version_shim

    options, evaluation = config.evaluation.lm_eval, config.evaluation
    sampled = [*sets, forgetting] if isinstance(forgetting, EvaluationSet) else list(sets)
    configs = [
        sampled_task(
            s, task, repeats=options.repeats, temperature=evaluation.temperature, max_tokens=config.train.max_response_tokens
        )
        for s in sampled
    ]
    if isinstance(forgetting, str):
        configs.append(bundled_task(forgetting))
    prompts = {text: ids for s in sampled for text, ids in zip(prompt_texts(s, task), s.prompts, strict=True)}
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every task is local
    _quiet()
    with vllm_version_shim():
        from sdpg.evaluation.lm_eval_model import EngineLM

        lm = EngineLM(engine, prompts, task.encoder.encode_text)
        return judged(task, lambda: _evaluate(lm, configs, options.limit, SEED + seed))


def judged(task, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the results of `run`, with how many responses the task's verifier could not judge meanwhile, by reason."""
    before = Counter(task.failures)
    results = run()
    if unjudged := dict(Counter(task.failures) - before):
        results["config"]["unjudged"] = unjudged
    return results


def _evaluate(lm, configs: list[dict[str, Any]], limit: int | None, seed: int) -> dict[str, Any]:
    """Return lm_eval.evaluate on tasks made from configs. simple_evaluate would add a report of this machine and of git's
    state.
    """
    import lm_eval
    import lm_eval.api.task as lm_eval_tasks

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  lm-eval and its metrics use the global generators
    torch.manual_seed(seed)  # decides the samples: lm-eval gives its requests no seeds
    tasks = {config["task"]: lm_eval_tasks.ConfigurableTask(config=config) for config in configs}
    for task in tasks.values():
        task.set_fewshot_seed(seed)
    with patch.object(lm_eval_tasks, "tqdm", lambda items, *_, **__: items):  # a bar for making a list of requests
        raw = lm_eval.evaluate(
            lm=lm, task_dict={"tasks": tasks, "groups": {}}, limit=limit, log_samples=False, bootstrap_iters=100
        )
    about = {"lm_eval_version": lm_eval.__version__, "limit": limit, "seed": seed}
    return _plain({key: raw[key] for key in KEPT} | {"config": about})


def _plain(value):
    """Return the same as JSON values: NaN and infinity become null, anything unknown its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # NumPy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _quiet() -> None:
    for name in ("lm_eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)

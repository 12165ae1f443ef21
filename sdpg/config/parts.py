"""The parts of a config that the stages depend on: what is not in a stage's part cannot change its result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import baselines
from sdpg.config.data import Data
from sdpg.config.files import ConfigError, nearest
from sdpg.config.methods import method_block, method_config
from sdpg.config.settings import Config, Task, Train
from sdpg.types import Settings

EXECUTION = ("micro_batch_tokens", "packed", "gradient_checkpointing")  # keys of train that change memory and speed alone
CHECKS = ("student_range", "teacher_min")  # keys of model.warm_start that decide only whether a base model is refused


class Run(Settings):
    """All that one training run depends on: no other method, no list of seeds, no evaluation block."""

    scale: str
    seed: int
    method: str
    algorithm: dict[str, Any]
    model: dict[str, Any]
    task: Task
    data: Data
    train: Train


def run_config(config: Config, method: str, seed: int) -> Run:
    """Return the part of a training run. Raises ConfigError for a method that the config does not have."""
    if method not in config.methods:
        raise ConfigError(f"method {method!r} is not in scale {config.name}; {nearest(method, config.methods)}")
    block = method_block(method, config)
    train = Train.model_validate(config.train.dump() | block.pop("train", {}))
    model = base_config(config, base_index(config, seed))["model"]
    run = {"scale": config.name, "seed": seed, "method": method, "algorithm": block, "model": model}
    return Run.model_validate(run | {"task": config.task, "data": _problems(config), "train": train})


def outcome_part(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dumped `Run` without what decides only how it is executed, or whether its base model is refused: its result is
    the same under other values.

    Under the reduction `micro-batch` the micro-batches are part of the loss, and stay.
    """
    run = without_checks(run)
    train = run.get("train")
    if not isinstance(train, Mapping):
        return run
    without = [key for key in EXECUTION if train.get("reduction") != "micro-batch" or key == "gradient_checkpointing"]
    return {**run, "train": {key: value for key, value in train.items() if key not in without}}


def base_seeds(config: Config) -> list[int]:
    """Return the seeds of the base models: one for each; a model that is loaded is one, with number 0."""
    return config.model.warm_start.seeds if config.model.warm_start else [0]


def base_index(config: Config, seed: int) -> int:
    """Return which base model (0, 1, ...) a run with this seed starts from: they take turns."""
    return seed % len(base_seeds(config))


def base_config(config: Config, index: int) -> dict[str, Any]:
    """Return all that base model `index` depends on; a warm start's list of seeds becomes its own seed."""
    model = config.model.dump()
    if "warm_start" in model:
        del model["warm_start"]["seeds"]
        model["warm_start"]["seed"] = base_seeds(config)[index]
    return {"model": model, "task": config.task.dump(), "data": _problems(config).dump()}


def base_part(config: Config, index: int) -> dict[str, Any]:
    """Return what decides the weights and the report of base model `index`: all that it depends on but CHECKS.

    Raises ConfigError for one that the config does not have.
    """
    if index not in range(len(base_seeds(config))):
        raise ConfigError(f"there is no base model {index} in this config")
    return {"base": index, **without_checks(base_config(config, index))}


def without_checks(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of a config without CHECKS of its block `model`: a model that passes is the same under other limits."""
    model = part.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("warm_start"), Mapping):
        return dict(part)
    warm_start = {key: value for key, value in model["warm_start"].items() if key not in CHECKS}
    return {**part, "model": {**model, "warm_start": warm_start}}


def evaluation_config(config: Config) -> dict[str, Any]:
    """Return all that the evaluation of a run depends on, beside the run's checkpoints; without lm-eval where that has jobs of
    its own.
    """
    evaluation = config.evaluation.dump()
    lm_eval = None if config.lm_eval_apart else _lm_eval(config)
    return _evaluating(config, evaluation | {"lm_eval": lm_eval})


def lm_eval_config(config: Config) -> dict[str, Any]:
    """Return all that lm-eval in a job of its own depends on, beside the checkpoint."""
    evaluation = config.evaluation.dump()
    del evaluation["samples"], evaluation["pass_k"]
    return _evaluating(config, evaluation | {"lm_eval": _lm_eval(config)})


def _lm_eval(config: Config) -> dict[str, Any] | None:
    """Return the block without its seeds: they decide which runs, and no run's result."""
    block = config.evaluation.lm_eval
    return block and {key: value for key, value in block.dump().items() if key != "seeds"}


def _evaluating(config: Config, evaluation: dict[str, Any]) -> dict[str, Any]:
    limits = {"max_prompt_tokens": config.train.max_prompt_tokens, "max_response_tokens": config.train.max_response_tokens}
    data = {"evaluation": config.data.dump()["evaluation"]}
    parts = {"task": config.task.dump(), "evaluation": evaluation}
    return {"scale": config.name, "train": limits, "data": data, **parts}


def analysis_config(config: Config) -> dict[str, Any]:
    """Return what analysis and figures take from the config."""
    return {
        "methods": list(config.methods),
        "seeds": copy.copy(config.seeds),
        "tasks": list(config.data.evaluation),
        "evaluation": config.evaluation.dump(),
        "bases": config.bases,
    }


def data_config(config: Config) -> dict[str, Any]:
    """Return all that the problems depend on; `forgetting`: the task that training leaves alone, or None."""
    forgetting = config.evaluation.lm_eval.forgetting if config.evaluation.lm_eval else None
    model = {"warm_start": {}} if config.model.warm_start else config.model.dump()  # its tokenizer, which decides what fits
    parts = {"data": _problems(config).dump(), "task": config.task.dump(), "model": model, "prompts": prompt_limits(config)}
    return {**parts, "forgetting": forgetting}


def solutions_config(config: Config) -> dict[str, Any]:
    """Return all that the written solutions depend on."""
    return {**data_config(config), "solutions": config.data.solutions and config.data.solutions.outcome()}


def _problems(config: Config) -> Data:
    """Return the block `data` without who writes solutions: what was written is a file, whose content counts; and without the
    mirror, whose copies are what the hub has.
    """
    return config.data.model_copy(update={"solutions": None, "mirror": None})


def prompt_limits(config: Config) -> dict[str, Any]:
    """Return what all runs together have room for: the least of their max_prompt_tokens, the most of their max_response_tokens,
    and whether a method's teacher reads the problems' own context.
    """
    runs = [run_config(config, method, 0).train for method in config.methods]
    return {
        "max_prompt_tokens": min(train.max_prompt_tokens for train in runs),
        "max_response_tokens": max(train.max_response_tokens for train in runs),
        "teacher": any(_reads_context(config, method, train.steps) for method, train in zip(config.methods, runs, strict=True)),
    }


def _reads_context(config: Config, method: str, steps: int) -> bool:
    """Return whether a method has a teacher that reads the problem's own answer and solution, in its first 1000 steps."""
    fields = method_config(config, method)
    fields.pop("train", None)
    algorithm = baselines.make(fields.pop("algorithm"), **fields)
    needs = (algorithm.needs(k) for k in range(1, min(steps, 1000) + 1))
    return any(need.teacher is not None and need.context == "solution" for need in needs)


# Stage -> the part of the config that its job depends on. A job of `train` is told by method and seed, of `base_model` by base.
PARTS: dict[str, Callable[[Config, Mapping[str, Any]], dict[str, Any]]] = {
    "data": lambda config, job: data_config(config),
    "solutions": lambda config, job: solutions_config(config),
    "base_model": lambda config, job: base_part(config, int(job["base"])),
    "train": lambda config, job: outcome_part(run_config(config, job["method"], int(job["seed"])).dump()),
    "evaluate": lambda config, job: evaluation_config(config),
    "lm_eval": lambda config, job: lm_eval_config(config),
}

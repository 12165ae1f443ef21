"""Whether the installed vLLM can run where a scale's jobs do. Asked before anything runs: vLLM would fail after training."""

from __future__ import annotations

from sdpg.config import Config
from sdpg.experiment.inputs import engines_of
from sdpg.experiment.written import wanted
from sdpg.rollout.vllm_environment import is_cpu_build

INSTEAD = {"evaluation.lm_eval": "null"}  # of a setting by which vLLM is used; the others name an engine


def uses_of_vllm(config: Config) -> list[str]:
    """Return the settings by which the jobs of a scale use vLLM. A sweep evaluates nothing."""
    engines = {key: name for key, name in engines_of(config).items() if config.sweep is None or key == "train.engine"}
    if wanted(config) and config.data.solutions.local:
        engines["data.solutions.local.engine"] = config.data.solutions.local.engine
    return [key for key, name in engines.items() if name == "vllm"]


def check_build(config: Config) -> None:
    """Raise ValueError where jobs without a GPU would start vLLM's CUDA build, which needs one."""
    used = uses_of_vllm(config)
    if config.resources.gpus or not used:
        return
    try:
        if is_cpu_build():
            return
    except RuntimeError:  # none is installed: the engine says so
        return
    instead = " ".join(f"{key}={INSTEAD.get(key, 'in-process')}" for key in used)
    raise ValueError(
        f"resources.gpus=0, but the vLLM that is installed is the CUDA build, which needs a GPU, and {', '.join(used)} "
        f"{'use' if len(used) > 1 else 'uses'} it; set resources.gpus=1, or {instead}, or install the CPU build "
        "(make setup FLAVOUR=cpu)"
    )

"""From a scale file to one typed, complete, validated config.

settings.py has every setting, of its larger blocks in data.py, task.py, solutions.py, track.py and resources.py; files.py reads
YAML, methods.py puts a method's settings together, layers.py resolves and explains, checks.py says what is wrong, parts.py cuts
out what a stage depends on, diff.py compares. Nothing here imports torch.
"""

from __future__ import annotations

from sdpg.config.command import from_snakemake, parse_overrides
from sdpg.config.files import METHODS, PRESETS, ConfigError, available_presets, available_scales, nearest, parse_value
from sdpg.config.layers import resolve
from sdpg.config.methods import method_config
from sdpg.config.parts import (
    analysis_config,
    base_config,
    base_index,
    base_seeds,
    data_config,
    evaluation_config,
    lm_eval_config,
    outcome_part,
    prompt_limits,
    run_config,
    solutions_config,
    without_checks,
)
from sdpg.config.settings import Config
from sdpg.rollout.engines import label as engine_label

__all__ = [
    "METHODS",
    "PRESETS",
    "Config",
    "ConfigError",
    "analysis_config",
    "available_presets",
    "available_scales",
    "base_config",
    "base_index",
    "base_seeds",
    "data_config",
    "engine_label",
    "evaluation_config",
    "lm_eval_config",
    "from_snakemake",
    "method_config",
    "nearest",
    "outcome_part",
    "parse_overrides",
    "parse_value",
    "prompt_limits",
    "resolve",
    "run_config",
    "solutions_config",
    "without_checks",
]

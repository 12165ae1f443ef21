"""What the config says about what lies outside it: folders of results, other scales, the model's own config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sdpg.config.files import ConfigError, available_scales, merged, scale_layers, scale_path
from sdpg.io import path_of

if TYPE_CHECKING:
    from sdpg.config.settings import Config

COMMITTED = ("published", "reference")  # folders of results/ that are part of the project
ACROSS = ("matrix",)  # artefacts of several scales, which lie in results/<scale>-<artefact>
WARM_START = 512  # positions of the tiny model: hinted prompt and response of a chain of 30 operations


def check_name(config: Config, where: str) -> None:
    """Refuse a name whose folder of results belongs to something else."""
    if config.name.casefold() in COMMITTED:  # on some file systems Published is published
        raise ConfigError(
            f"name: results/{config.name} is part of the project and not overwritten; take another name ({where})"
        )
    for artefact in ACROSS:
        if config.name.endswith(f"-{artefact}"):
            scale = config.name.removesuffix(f"-{artefact}")
            text = f"name: results/{config.name} is where the {artefact} of scale {scale} goes; take another name"
            raise ConfigError(f"{text} ({where})")


def check_matrix(config: Config, where: str) -> None:
    """Refuse cells that are no scales, that are fewer than two, the same, without this scale, or named alike."""
    names: dict[str, str] = {}
    for cell in config.matrix:
        try:
            keys = merged(scale_layers(scale_path(cell)))
        except ConfigError as error:
            raise ConfigError(f"matrix: {error} ({where})") from None
        name = str(keys.get("name"))
        if name in names:
            raise ConfigError(
                f"matrix: {names[name]} and {cell} are both named {name!r}; each needs a name of its own ({where})"
            )
        if keys.get("sweep"):
            raise ConfigError(f"matrix: {cell} is a sweep, which has no scores to set beside others ({where})")
        names[name] = cell
    if config.matrix and config.name not in names:
        listed = ", ".join(config.matrix)
        raise ConfigError(f"matrix: got {listed}; this scale, named {config.name!r}, has to be among them ({where})")
    if len(config.matrix) == 1:
        raise ConfigError(f"matrix: got {config.matrix[0]} alone, expected two scales or more ({where})")


def no_matrix(name: str) -> str:
    """Return what is said of `snakemake matrix` at a scale without cells."""
    having = [scale for scale in available_scales() if scale_layers(scale_path(scale))[-1][1].get("matrix")]
    quick = "; with quick=true or another name each cell is run by itself" if name not in available_scales() else ""
    return f"matrix: scale {name} lists no cells under `matrix`; expected one that does, such as {', '.join(having)}{quick}"


def check_jobs(config: Config, where: str) -> None:
    """Refuse jobs that cannot do what they are asked: lm-eval on more seeds than there are, or watch no validation set."""
    asked, there = config.evaluation.lm_eval and config.evaluation.lm_eval.seeds, len(config.seeds)
    if asked and asked > there and not config.sweep:  # nothing of a sweep is evaluated
        text = f"evaluation.lm_eval.seeds: got {asked}, but the scale has {there} (`seeds`), expected at most {there}"
        raise ConfigError(f"{text}, or null for all ({where})")
    if not config.data.validation:
        blocks = [block.get("train") for block in config.methods.values()]
        asked = [config.train.stop_collapsed, *(b.get("stop_collapsed") for b in blocks if isinstance(b, dict))]
        if any(share is not None for share in asked):
            text = "train.stop_collapsed: looks at data.validation, which is empty; give it a set, or leave the key out"
            raise ConfigError(f"{text} ({where})")


def check_positions(config: Config, where: str) -> None:
    """Refuse a prompt and a response that together are longer than the model, where its config.json is here to be read."""
    known = positions(config.model)
    train, methods = config.train, config.methods.values()
    blocks = [{}, *(block["train"] for block in methods if isinstance(block.get("train"), dict))]
    for block in blocks if known else []:
        prompt = block.get("max_prompt_tokens", train.max_prompt_tokens)
        response = block.get("max_response_tokens", train.max_response_tokens)
        if all(isinstance(length, int | float) for length in (prompt, response)) and prompt + response > known:
            text = f"train.max_prompt_tokens + train.max_response_tokens: got {prompt} + {response}, but the model has {known}"
            raise ConfigError(f"{text} positions; lower one of them ({where})")


def positions(model: Any) -> int | None:
    """Return the most tokens that a `model` block's model can read; None where it is not known before the model is loaded."""
    if model.warm_start:
        return WARM_START
    try:
        text = (path_of(model.pretrained or "") / "config.json").read_text(encoding="utf-8")
        own = json.loads(text) if model.pretrained else {}
    except (
        OSError,
        ValueError,
        RuntimeError,
    ):  # no folder of this machine, or a broken one: the rule base_model says what it is
        return None
    own = own.get("text_config") or own if isinstance(own, dict) else {}
    if not isinstance(own, dict) or own.get("rope_scaling") or "factor" in (own.get("rope_parameters") or ()):
        return None  # scaled: more than it says, and the engine knows how much
    found = own.get("max_position_embeddings") or own.get("n_positions")
    return found if isinstance(found, int) and found > 0 else None

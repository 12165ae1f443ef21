"""What the core takes of an architecture: which it refuses by name, dropout that it switches off, names of weights.

docs/models.md says what is tested with which architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from sdpg.rollout import context


def check_kind(model: PreTrainedModel, name: str) -> None:
    """Raise ValueError, in one line that begins with `name`, for a model that cannot be trained here.

    These are models with a recurrent state (state-space models and hybrids), encoders, and models without a linear lm-head.
    """
    kind, config = type(model).__name__, model.config.get_text_config()
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name}: {kind} has an encoder and a decoder; take a decoder-only causal language model")
    others = sorted(set(getattr(config, "layer_types", None) or ()) - context.ATTENTION)
    if model._is_stateful or others:
        what = f"layers of kind {', '.join(others)}" if others else "a recurrent state"
        raise ValueError(
            f"{name}: {kind} has {what} and not attention alone, for which the core has no packed or padded rows yet"
        )
    if not hasattr(model.get_output_embeddings(), "weight"):
        raise ValueError(f"{name}: {kind} has no linear lm-head; take a causal language model")


@torch.no_grad()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """Raise ValueError for a model whose tokens see later ones."""
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size
    training = model.training
    model.eval()
    whole, before = (model.base_model(input_ids=x, use_cache=False).last_hidden_state.float() for x in (ids, ids[:, :-1]))
    model.train(training)
    if not whole.isfinite().all():
        raise ValueError(f"{name}: its hidden states are not finite numbers; the weights are broken: copy or download it again")
    limit = 1e-3 if model.dtype == torch.float32 else 5e-2
    if not (whole[:, :-1] - before).abs().max() <= limit * whole.abs().max():
        raise ValueError(f"{name}: tokens of {type(model).__name__} see later ones; take a causal language model")


def lacking(model: PreTrainedModel, report: dict[str, Any]) -> str | None:
    """Return what of a checkpoint does not fit its config.json: weights that it lacks (transformers would draw them at random),
    has in another shape, or has beside tied ones. None if nothing.

    report: of `from_pretrained(..., output_loading_info=True, ignore_mismatched_sizes=True)`.
    """
    kind = type(model).__name__
    own = model.config.get_text_config() is model.config and model.config.tie_word_embeddings
    if own and not report["missing_keys"] and not report["mismatched_keys"]:
        head = getattr(model.get_output_embeddings(), "weight", None)
        if head is not None and head is not model.get_input_embeddings().weight:  # vLLM would go by config.json
            return (
                "its lm-head differs from its embedding, but config.json says tie_word_embeddings: true; set that to false, or "
                "leave the lm-head out of the weights"
            )
    if missing := sorted(report["missing_keys"]):
        return f"it lacks {len(missing)} weights of {kind}, first {missing[0]}; copy or download it again"
    if others := sorted(report["mismatched_keys"], key=str):
        name, has, expected = others[0]
        return (
            f"{len(others)} of its weights have another shape than its config.json says, first {name}: {tuple(has)}, expected "
            f"{tuple(expected)}"
        )
    return None


def without_dropout(model: PreTrainedModel) -> list[str]:
    """Switch off dropout and noise of routers, so that log-probs are the policy's -> names of settings that were above 0."""
    found = set()
    for module in model.modules():
        for key in ("p",) if isinstance(module, nn.Dropout) else [key for key in vars(module) if _is_dropout(key)]:
            value = getattr(module, key)
            if isinstance(value, float) and value > 0:
                setattr(module, key, 0.0)
                found.add(type(module).__name__)
    config = model.config.get_text_config()
    for key in [key for key in vars(config) if _is_dropout(key) and not key.startswith(("classifier", "summary"))]:
        if isinstance(value := getattr(config, key), float) and value > 0:
            setattr(config, key, 0.0)
            found.add(key)
    return sorted(found, key=lambda name: (not _is_dropout(name), name))


def _is_dropout(key: str) -> bool:
    return "drop" in key or "jitter" in key


def checkpoint_names(model: PreTrainedModel, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors under the names of the model's checkpoint, in which experts stand one by one, as engines take them."""
    converts = bool(getattr(model, "_weight_conversions", None))
    for name, tensor in tensors:
        if converts:
            yield from revert_weight_conversion(model, {name: tensor}).items()
        else:
            yield name, tensor


def positions(model: PreTrainedModel) -> int | None:
    """Return the longest sequence that the model takes, None where its config names none (ALiBi)."""
    return context.positions(model.config)

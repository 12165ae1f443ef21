"""Floating-point operations of a model's passes: what the arithmetic asks for, without padding or anything computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

_KNOWN: WeakKeyDictionary[PreTrainedModel, tuple[int, int, int]] = WeakKeyDictionary()  # a model is not kept by it
TRAIN = 3  # times a forward pass: the backward pass takes gradients of inputs and of weights


class Work(NamedTuple):
    """What a pass over some sequences is made of."""

    tokens: int  # that the model reads
    pairs: int  # of a query and a key that it sees
    predictions: int  # tokens whose logits are taken


def rollout_work(prompts: Sequence[int], responses: Sequence[Sequence[int]]) -> Work:
    """Return the work of sampling: lengths of prompts, each read once, and of the responses to each, less the last token."""
    tokens = pairs = predictions = 0
    for P, lengths in zip(prompts, responses, strict=True):
        tokens += P + sum(n - 1 for n in lengths)
        pairs += P * (P + 1) // 2 + sum((n - 1) * n // 2 + (n - 1) * P for n in lengths)
        predictions += sum(lengths)
    return Work(tokens, pairs, predictions)


def forward_flops(model: PreTrainedModel, work: Work) -> float:
    """Return the FLOPs of one forward pass.

    2 per token and weight of a linear layer, 4 per pair, layer, head and its size (QK^T and AV), 2 per prediction and weight of
    the lm-head. Norms, softmax and embeddings are left out; experts all count.
    """
    body, attention, head = _sizes(model)
    return 2.0 * body * work.tokens + 4.0 * attention * work.pairs + 2.0 * head * work.predictions


def _sizes(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return the weights of the body's linear layers, attention width summed over layers, weights of the lm-head."""
    if model in _KNOWN:
        return _KNOWN[model]
    config = model.config
    body = sum(m.weight.numel() for m in model.base_model.modules() if isinstance(m, nn.Linear))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    head = model.get_output_embeddings().weight.numel()
    _KNOWN[model] = body, config.num_hidden_layers * config.num_attention_heads * size, head
    return _KNOWN[model]

"""Floating-point operations of a model's passes: what the arithmetic asks for, without padding or anything computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sdpg.rollout.context import head_dim


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


class _Sizes(NamedTuple):
    body: int  # weights of all linear layers but the lm-head
    trained_body: int  # of these, those that are trained
    attention: int  # width, summed over layers
    head: int  # weights of the lm-head
    trained_head: int


_KNOWN: WeakKeyDictionary[PreTrainedModel, _Sizes] = WeakKeyDictionary()  # a model is not kept by it


def forward_flops(model: PreTrainedModel, work: Work) -> float:
    """Return the FLOPs of one forward pass.

    2 per token and weight of a linear layer, 4 per pair, layer, head and its size (QK^T and AV), 2 per prediction and weight of
    the lm-head. Norms, softmax and embeddings are left out; of the experts those count that a token is sent to, and adapters
    that are on.
    """
    size = _sizes(model)
    return 2.0 * size.body * work.tokens + 4.0 * size.attention * work.pairs + 2.0 * size.head * work.predictions


def backward_flops(model: PreTrainedModel, work: Work) -> float:
    """Return the FLOPs of the backward pass: a forward pass's for the gradients of inputs, and as many again for those of
    weights, as far as they are trained: twice a forward pass's where all are.
    """
    size = _sizes(model)
    weights = 2.0 * size.trained_body * work.tokens + 2.0 * size.trained_head * work.predictions
    return forward_flops(model, work) + weights + 4.0 * size.attention * work.pairs


def _sizes(model: PreTrainedModel) -> _Sizes:
    """Return what FLOPs are counted by; a layer with an adapter has three linear layers: itself, A and B."""
    if model in _KNOWN:
        return _KNOWN[model]
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    body = [(m.weight, m.weight.numel()) for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    body += _experts(model, getattr(config, "num_experts_per_tok", None) or 1)
    size = head_dim(config)
    _KNOWN[model] = _Sizes(
        body=sum(n for _, n in body),
        trained_body=sum(n for w, n in body if w.requires_grad),
        attention=config.num_hidden_layers * config.num_attention_heads * size,
        head=head.weight.numel(),
        trained_head=head.weight.numel() * head.weight.requires_grad,
    )
    return _KNOWN[model]


def _experts(model: PreTrainedModel, chosen: int) -> list[tuple[nn.Parameter, int]]:
    """Return the tensors of experts, (experts, inputs, outputs), and how many of their weights a token meets."""
    tensors = [p for name, p in model.named_parameters() if p.ndim == 3 and ".experts." in name]
    return [(p, p.numel() // len(p) * min(chosen, len(p))) for p in tensors]

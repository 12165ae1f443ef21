"""One reduction for every method: the loss is sum over tokens of weight * term, and the weights are known beforehand.

So no micro-batch split, padding or number of processes can change it: they only change where the sum is taken.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["group", "batch", "sequence", "constant", "micro-batch"]


def token_weights(
    length_NG: Tensor, reduction: Reduction, *, prompts: int, tokens: int, max_tokens: int | None = None
) -> Tensor:
    """Return the weight of every token of a response: lengths (N, G) of this process's share -> (N, G) float.

    group (the SDPG paper's): 1 / (prompts * sum_G |y_i|), the token mean within a prompt's group, then the mean over prompts.
    batch (DAPO's): 1 / tokens, the token mean over everything. sequence (GRPO's first form, GSPO's): 1 / (prompts * G * |y_i|),
    the mean over responses of their token means. constant (Dr. GRPO's): 1 / (prompts * G * max_tokens).
    prompts, tokens: counts of the whole update, over all processes. max_tokens: the longest response allowed. Over the
    whole update weight x length sums to 1 (with constant, to the share of max_tokens in use).
    """
    G = length_NG.shape[1]
    if reduction == "group":
        total = prompts * length_NG.sum(1, keepdim=True).double().expand(length_NG.shape)
    elif reduction == "batch":
        total = torch.full(length_NG.shape, float(tokens), dtype=torch.float64, device=length_NG.device)
    elif reduction == "sequence":
        total = prompts * G * length_NG.double()
    elif reduction == "constant":
        total = torch.full(length_NG.shape, float(prompts * G * max_tokens), dtype=torch.float64, device=length_NG.device)
    else:
        raise ValueError(f"unknown reduction {reduction!r}; choose group, batch, sequence, constant or micro-batch")
    return (1.0 / total).float()


def micro_batch_weight(tokens: int, responses: int, *, total_responses: int) -> float:
    """Return the weight of every token of one micro-batch under "micro-batch": its token mean, weighted by its share of the
    responses.

    What the released code does. It depends on how the batch is split, so no other setting uses it.
    """
    return responses / total_responses / tokens

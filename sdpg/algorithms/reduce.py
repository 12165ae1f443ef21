"""One reduction for every method: the loss is sum over tokens of weight * term, and the weights are known beforehand.

So no micro-batch split, padding or number of processes can change it: they only change where the sum is taken.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["group", "batch"]


def token_weights(length_NG: Tensor, reduction: Reduction, *, prompts: int, tokens: int) -> Tensor:
    """Weight of every token of a response: lengths (N, G) of this process's share -> (N, G) float.

    group (the paper's): 1 / (prompts * sum_G |y_i|), the token mean within a prompt's group, then the mean over prompts.
    batch: 1 / tokens, the token mean over everything.
    prompts, tokens: counts of the whole update, over all processes. Over the whole update, weight x length sums to 1.
    """
    if reduction == "group":
        return (1.0 / (prompts * length_NG.sum(1, keepdim=True).double())).expand(length_NG.shape).float()
    if reduction == "batch":
        return torch.full(length_NG.shape, 1.0 / tokens, device=length_NG.device)
    raise ValueError(f"unknown reduction {reduction!r}; choose group or batch")

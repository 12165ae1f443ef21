"""Exact divergences over the whole vocabulary. p is the student, q the (detached) teacher; V entries on the last axis.

gJSD_b(p, q) = b KL(q || m) + (1 - b) KL(p || m) with m = (1 - b) p + b q, for 0 < b < 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reverse_kl(logp: Tensor, logq: Tensor) -> Tensor:
    """KL(p || q) = sum_a p(a) (log p(a) - log q(a)), Eq. (3.2): log-probs (..., V) -> nats (...)."""
    return (logp.exp() * (logp - logq)).sum(-1)


def forward_kl(logp: Tensor, logq: Tensor) -> Tensor:
    """KL(q || p): log-probs (..., V) -> nats (...)."""
    return (logq.exp() * (logq - logp)).sum(-1)


def gjsd(logp: Tensor, logq: Tensor, b: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence with 0 < b < 1: log-probs (..., V) -> nats (...)."""
    if not 0 < b < 1:
        raise ValueError(f"gjsd needs 0 < b < 1, got {b}; its limits are forward_kl (b=0) and reverse_kl (b=1)")
    logm = torch.logaddexp(logp + math.log1p(-b), logq + math.log(b))
    return b * forward_kl(logm, logq) + (1 - b) * forward_kl(logm, logp)


DIVERGENCES = {"reverse_kl": reverse_kl, "forward_kl": forward_kl, "gjsd": gjsd}

"""Clipped policy-gradient surrogates on the ratio rho = pi_theta / pi_old of the sampled token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a config is read without loading torch
    from torch import Tensor


def clipped(rho: Tensor, A: Tensor, *, low: float, high: float, dual: float | None = None) -> Tensor:
    """Compute max(-A rho, -A clip(rho, 1 - low, 1 + high)), and for A < 0 at most -A * dual (A.3): (B, T), (B, 1) -> (B, T)."""
    loss = (-A * rho).maximum(-A * rho.clamp(1 - low, 1 + high))
    if dual is None:
        return loss
    return loss.minimum(-A * dual).where(A < 0, loss)


def sequence_ratio(s) -> Tensor:
    """Compute GSPO's ratio (arXiv 2507.18071): (prod_t pi_theta / pi_old)^(1/|y|) for every token: signals -> (B, T)."""
    mean = ((s.logp - s.logp_old) * s.mask).sum(1, keepdim=True) / s.mask.sum(1, keepdim=True)
    return mean.exp().expand(s.logp.shape)

"""Reference anchors (section 3.4, A.2): surrogates of log w = log pi_theta - log pi_ref on the sampled token.

Each is built so that its gradient, averaged over tokens sampled from the current policy, is the gradient of the named
divergence. Their values are not estimates of it. All: (B, T) -> (B, T).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a config is read without loading torch
    from torch import Tensor

Anchor = Literal["ufkl", "urkl", "fkl", "rkl"]


def ufkl(logw: Tensor) -> Tensor:
    """Compute 1/w + log w: unnormalised forward KL, UKL(ref || theta)."""
    return (-logw).exp() + logw


def urkl(logw: Tensor) -> Tensor:
    """Compute (log w)^2 / 2: unnormalised reverse KL, UKL(theta || ref)."""
    return logw.square() / 2


def fkl(logw: Tensor) -> Tensor:
    """Compute 1/w: forward KL, KL(ref || theta)."""
    return (-logw).exp()


def rkl(logw: Tensor) -> Tensor:
    """Compute (log w + 1)^2 / 2: reverse KL, KL(theta || ref)."""
    return (logw + 1).square() / 2


def k3(logw: Tensor) -> Tensor:
    """Compute 1/w - 1 + log w: Schulman's low-variance estimate of KL(theta || ref), whose value (not gradient) is unbiased."""
    return (-logw).exp() - 1 + logw


ANCHORS = {"ufkl": ufkl, "urkl": urkl, "fkl": fkl, "rkl": rkl}

"""Advantages from the rewards of a group (Eq. 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a config is read without loading torch
    from torch import Tensor

EPS_STD = 1e-6  # section 4.1


def group_centred(R_NG: Tensor) -> Tensor:
    """Compute A_i = R_i - mean_G R, without the standard deviation (Dr. GRPO): rewards (N, G) -> advantages (N, G)."""
    return (R_NG - R_NG.mean(1, keepdim=True)).masked_fill((R_NG == R_NG[:, :1]).all(1, keepdim=True), 0.0)


def group_normalised(R_NG: Tensor, *, eps: float = EPS_STD) -> Tensor:
    """Compute A_i = (R_i - mean_G R) / (std_G R + eps), Eq. (2.1): rewards (N, G) -> advantages (N, G).

    A group whose rewards are all equal gets exactly 0, whatever rounding does to its mean. The standard deviation is
    the unbiased one (G - 1); the paper does not say which, the released code takes this one.
    Raises ValueError for G < 2, for which no spread is defined.
    """
    if R_NG.ndim != 2 or R_NG.shape[1] < 2:
        raise ValueError(f"rewards must be (N, G) with G >= 2 to be normalised in the group, got {tuple(R_NG.shape)}")
    return group_centred(R_NG) / (R_NG.std(1, keepdim=True) + eps)


def no_advantage(R_NG: Tensor) -> Tensor:
    """Return zeros (N, G): for methods that do not use rewards."""
    return R_NG.new_zeros(R_NG.shape)

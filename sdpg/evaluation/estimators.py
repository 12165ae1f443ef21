"""mean@n and pass@k from counts of correct samples. NumPy only: the analysis imports this file."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def mean_at_n(n: int, c: ArrayLike) -> np.ndarray:
    """Return the share of correct samples: c of n, elementwise. c: any shape [...], 0 <= c <= n -> [...] in [0, 1]."""
    return _counts(n, c) / n


def pass_at_k(n: int, c: ArrayLike, k: int) -> np.ndarray:
    """Return the unbiased estimate of P(at least one of k samples is correct), from n samples of which c are correct.

    1 - C(n-c, k) / C(n, k), Chen et al. 2021 (arXiv 2107.03374), as the product over i = n-c+1 .. n of (1 - k/i): no large
    factorials. c: any shape [...] -> [...] in [0, 1]. Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n, got k = {k} with n = {n} samples; draw more samples or lower k")
    c = _counts(n, c)
    i = np.arange(1, n + 1)  # [n]
    drawn = i > n - c[..., None]  # [..., n]: the factors that belong to this c
    # the factor of i = k is exactly 0, so fewer than k wrong samples give 1
    return 1.0 - np.where(drawn, np.clip(1.0 - k / i, 0.0, None), 1.0).prod(axis=-1)


def check_pass_k(samples: int, pass_k: list[int]) -> None:
    """Raise ValueError, before anything is sampled, if some k of pass@k is not in 1..samples."""
    wrong = [k for k in pass_k if not 1 <= k <= samples]
    if wrong:
        raise ValueError(
            f"evaluation.pass_k asks for k = {', '.join(map(str, wrong))}, but evaluation.samples draws {samples} responses "
            f"per problem and every k must lie in 1..{samples}; raise evaluation.samples or lower pass_k"
        )


def _counts(n: int, c: ArrayLike) -> np.ndarray:
    c = np.asarray(c)
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    if c.size and (c.min() < 0 or c.max() > n):
        raise ValueError(f"counts of correct samples must lie in 0..{n}, got {c.min()}..{c.max()}")
    return c

"""Proposition 3.1 by enumeration, in float64: grad D_KL(p || q) = -grad E_{a ~ SG[p]}[A(a) log p(a)], and E_p[A] = 0.

V entries of the vocabulary, z logits of p = softmax(z). Both gradients are taken by complex steps, so that neither side
uses a formula of the other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 1e-30  # of the imaginary part: no cancellation, so it can be this small


def advantage(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Return A(a) = D - log p(a)/q(a), D = D_KL(p || q): [V]."""
    ratio = log_p - log_q
    return (np.exp(log_p) * ratio).sum() - ratio


def largest_error(vocabulary: int = 11, prefixes: int = 20, seed: int = 0) -> float:
    """Return the largest absolute difference between the two gradients, and from 0 of E_p[A], over random policies and
    teachers.
    """
    rng = np.random.default_rng(seed)
    return max(_error(*rng.normal(0, 2, (2, vocabulary))) for _ in range(prefixes))


def _error(z: np.ndarray, teacher: np.ndarray) -> float:
    log_p, log_q = _log_softmax(z), _log_softmax(teacher)
    A = advantage(log_p, log_q)  # [V], and p below, held fixed
    p = np.exp(log_p)
    left = _gradient(lambda z: (np.exp(_log_softmax(z)) * (_log_softmax(z) - log_q)).sum(), z)
    right = _gradient(lambda z: -(p * A * _log_softmax(z)).sum(), z)
    return float(max(np.abs(left - right).max(), abs((p * A).sum())))


def _gradient(function: Callable[[np.ndarray], complex], z: np.ndarray) -> np.ndarray:
    return np.array([function(z + 1j * STEP * unit).imag / STEP for unit in np.eye(len(z))])


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.real.max()
    return z - np.log(np.exp(z).sum())

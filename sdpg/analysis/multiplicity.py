"""Many questions at once: adjusted p-values that are compared with one alpha."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), in the order given: reject where they are <= alpha, and at most alpha of all
    families of true null hypotheses have any rejection, however the tests depend on each other.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped)) if len(p) else stepped
    return adjusted.tolist()


def fallback(p: Sequence[float]) -> list[float]:
    """Return adjusted p-values of the fallback procedure (Wiens and Dmitrienko 2005), for hypotheses in a fixed order.

    Each of n has the share 1/n of alpha. One that is rejected hands its share to the next in the order that is not, the last to
    the first (a graph of Bretz et al. 2009: a ring), so that one that is stuck holds up its own share and what neighbours hand
    it, and no more. The family-wise error is at most alpha however the tests depend on each other.
    """
    left, weights = list(range(len(p))), np.full(len(p), 1 / len(p)) if len(p) else np.empty(0)
    adjusted, reached = [1.0] * len(p), 0.0
    while left:
        best = min(left, key=lambda i: p[i] / weights[i])
        reached = max(reached, min(1.0, p[best] / weights[best]))
        adjusted[best] = float(reached)
        position = left.index(best)
        left.remove(best)
        if left:
            weights[left[position % len(left)]] += weights[best]
    return adjusted

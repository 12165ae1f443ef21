"""Advantages of single tokens, formed over the whole rollout batch of all processes before its first update (OPSA).

Every process forms all of them from the same arrays, in the order of the groups, so that no result depends on how many
processes there are. M tokens of the batch, N groups of G responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdpg.algorithms.base import Algorithm
from sdpg.core import distributed


@dataclass(frozen=True)
class TokenAdvantages:
    """own: of the responses that this process trains on, (|y|,) each, in the order of its samples. totals: of each update, the
    tokens with an advantage other than 0 over all processes; only these count in the means of the reduction.
    """

    own: list[Tensor]
    totals: list[int]

    def counted(self, rows: slice) -> list[int]:
        """Return how many tokens of each of these responses count."""
        return [int(A.count_nonzero()) for A in self.own[rows]]


def form(
    algorithm: Algorithm, logp: Sequence[Tensor], entropy: Sequence[Tensor], *, own: Sequence[int], G: int, updates: int
) -> TokenAdvantages:
    """Let the method form its advantages by token. Collective.

    logp, entropy: of this process's responses, (|y|,) each. own: its groups' numbers, G responses each. updates: per batch.
    """
    heads = distributed.gather([list(own), [len(x) for x in logp]])
    joined = [torch.cat([torch.empty(0), *(x.float().cpu() for x in xs)]).numpy() for xs in (logp, entropy)]
    parts = [distributed.gather_array(values) for values in joined]
    lengths, places, at = {}, {}, 0  # by (group, response): tokens, and where they begin among those gathered
    for groups, sizes in heads:
        for n, size in enumerate(sizes):
            key = (groups[n // G], n % G)
            lengths[key], places[key] = size, at
            at += size
    order = sorted(lengths)
    index = np.concatenate([np.arange(places[key], places[key] + lengths[key]) for key in order])
    logp_M, entropy_M = (torch.from_numpy(np.concatenate(part)[index]) for part in parts)
    A_M = algorithm.token_advantages(logp_M, entropy_M)
    assert A_M.shape == logp_M.shape
    of = dict(zip(order, A_M.split([lengths[key] for key in order]), strict=True))
    n = (1 + max(group for group, _ in order)) // updates  # groups of an update
    totals = [sum(int(A.count_nonzero()) for (i, _), A in of.items() if i // n == u) for u in range(updates)]
    return TokenAdvantages([of[i, j] for i in own for j in range(G)], totals)

"""A method's loss on a micro-batch: its terms weighted, added up by name, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from sdpg.algorithms.base import Algorithm, Signals
from sdpg.core import sharding
from sdpg.core.passes import Passes, backward, by_token, signals


class Objective:
    """The loss of one method: sum over tokens of weight x term."""

    def __init__(self, algorithm: Algorithm):
        self._algorithm = algorithm
        self._elementwise = False  # not yet known: see _check_elementwise

    def backward(self, passes: Passes, A_B1: Tensor, w_B1: Tensor, k: int, *, check: bool) -> tuple[Signals, dict[str, Tensor]]:
        """Compute loss and gradients of a micro-batch -> its signals, and its loss terms by name.

        check: once a run, see `_check_elementwise`. Without grad enabled the loss is computed alone.
        """
        totals: dict[str, Tensor] = {}

        def weighted_sum(s: Signals, A: Tensor, w: Tensor) -> Tensor:
            """Return the weighted sum of all terms; each is added to `totals` by name."""
            terms = self._algorithm.token_loss(s, A, k)
            terms = {name: (w * s.mask * term).sum() for name, term in terms.items()}
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach()
            return sum(terms.values())

        if torch.is_grad_enabled() and not passes.needs.whole_responses:
            if check and not self._elementwise:
                self._check_elementwise(passes, A_B1, k)
            s = backward(passes, lambda s, rows: weighted_sum(s, A_B1[rows], w_B1[rows]))
            return s, totals
        s = signals(passes)
        value = weighted_sum(s, A_B1, w_B1)
        if isinstance(value, Tensor) and value.requires_grad:
            value.backward()
        elif torch.is_grad_enabled() and sharding.is_sharded(passes.models.policy):  # the other processes take part in it
            passes.hidden.backward(torch.zeros_like(passes.hidden))
        return s, totals

    @torch.no_grad()
    def _check_elementwise(self, passes: Passes, A_B1: Tensor, k: int) -> None:
        """Check once a run: ValueError if `token_loss` looks at other tokens of a response without saying so in its needs."""
        s = signals(passes)
        whole = self._algorithm.token_loss(s, A_B1, k)
        alone = self._algorithm.token_loss(by_token(s), A_B1.expand_as(s.mask).reshape(-1, 1), k)
        for name, term in whole.items():
            if not torch.allclose(alone[name].view_as(term) * s.mask, term * s.mask, rtol=1e-4, atol=1e-6, equal_nan=True):
                raise ValueError(
                    f"{type(self._algorithm).__name__}.token_loss: the term {name!r} of a token changes with the other tokens "
                    "of its response; let needs() return whole_responses=True"
                )
        self._elementwise = True


def gradient_without_advantage(algorithm: Algorithm, k: int) -> bool:
    """Return whether responses with advantage 0 have a gradient at step k. Asked of `token_loss` itself, on signals of all
    sizes.
    """
    needs = algorithm.needs(k)
    g = torch.Generator().manual_seed(0)
    draw = lambda scale: scale * torch.rand(64, 4, generator=g, dtype=torch.float64) ** 3  # noqa: E731
    leaves = {"logp": -draw(20.0), "entropy": draw(10.0)} | ({"div": draw(50.0)} if needs.divergence else {})
    leaves = {name: x.requires_grad_() for name, x in leaves.items()}
    fixed = {"logp_old": -draw(20.0), "logp_rollout": -draw(20.0), "mask": torch.ones(64, 4), "stop": draw(1.0).round()}
    fixed |= {"logp_ref": -draw(20.0) if needs.reference else None, "logq": -draw(20.0) if needs.teacher_logp else None}
    if needs.wrong_hints:
        fixed |= {"logq_wrong": -draw(20.0), "contrasted": draw(1.0).round()}
    if needs.token_advantages:
        fixed["A_t"] = draw(2.0) - 1
    loss = sum(term.sum() for term in algorithm.token_loss(Signals(**leaves, **fixed), torch.zeros(64, 1), k).values())
    if not loss.requires_grad:
        return False
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return any(x is not None and x.ne(0).any().item() for x in found)

"""Gradients of the head's parameters, added up over chunks. V vocabulary, d hidden size."""

from __future__ import annotations

import torch
from torch import Tensor


class Accumulator:
    """The gradient of one parameter of the head, added up in float32 (or wider) and in place.

    parameter: None, or one without `requires_grad`, for none.
    """

    def __init__(self, parameter: Tensor | None):
        self.parameter = parameter if parameter is not None and parameter.requires_grad else None
        self.total: Tensor | None = None

    def _open(self) -> bool:
        """Make the sum with its first addend, and return whether there is one: not without a parameter."""
        if self.parameter is not None and self.total is None:
            dtype = torch.promote_types(self.parameter.dtype, torch.float32)
            self.total = torch.zeros(self.parameter.shape, dtype=dtype, device=self.parameter.device)
        return self.total is not None

    def add_product(self, g: Tensor, hidden: Tensor) -> None:
        """Add g^T hidden: (C, V) and (C, d) -> (V, d)."""
        if not self._open():
            return
        if g.dtype == self.total.dtype:
            self.total.addmm_(g.T, hidden)
        else:
            self.total += g.T @ hidden

    def add_rows(self, g: Tensor) -> None:
        """Add the sum over the tokens of g (C, V)."""
        if self._open():
            self.total += g.sum(0, dtype=self.total.dtype)

    def result(self) -> Tensor | None:
        """Return the sum in the parameter's dtype, 0 if nothing was added; None without a parameter."""
        return self.total.to(self.parameter.dtype) if self._open() else None


class GradAccumulator(Accumulator):
    """An accumulator that hands its sum to the parameter's `.grad`, without a copy of it where nothing watches.

    Hooks on the parameter (`register_hook`, `register_post_accumulate_grad_hook`) run as after a backward pass. Where the
    parameter has an attribute `wide_grad`, of float32 or wider, everything is added there instead.
    """

    def __init__(self, parameter: Tensor | None):
        super().__init__(parameter)
        p = self.parameter
        self.wide = getattr(p, "wide_grad", None)
        self.direct = (
            p is not None
            and self.wide is None
            and p.dtype == torch.promote_types(p.dtype, torch.float32)
            and not (p._backward_hooks or p._post_accumulate_grad_hooks)
        )
        if self.direct or self.wide is not None:
            self.total = p.grad if self.direct else self.wide

    def finish(self) -> None:
        """Finish, once, after the last chunk. `.grad` stays as it is if nothing was added."""
        if self.direct:
            self.parameter.grad = self.total
        elif self.wide is None and self.total is not None:
            self.parameter.backward(self.result())

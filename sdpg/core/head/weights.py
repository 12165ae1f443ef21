"""Gradients of the head's parameters, added up over chunks. V vocabulary, d hidden size."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor


def way_to_add(g: Tensor, total: Tensor) -> Literal["in place", "widened", "rounded"]:
    """Return how g^T hidden is added to `total`: by a product of one dtype; by one that reads g's dtype and adds in total's;
    or, where torch has none, by a product rounded to g's dtype, which takes room and traffic of its own.
    """
    if g.dtype == total.dtype:
        return "in place"
    return "widened" if total.dtype == torch.float32 and _widens(g.device, g.dtype) else "rounded"


@functools.cache
def _widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch adds products of `dtype` to a float32 sum there without rounding them: tried once, on ones.

    It depends on torch's version on CUDA, and torch 2.13 does not on the CPU.
    """
    rows = torch.ones(2049, 16, dtype=dtype, device=device)  # 2049 is no number of bf16 or fp16
    total = torch.ones(16, 16, device=device)
    try:
        torch.addmm(total, rows.T, rows, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 2050).all())


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
        match way_to_add(g, self.total):
            case "in place":
                self.total.addmm_(g.T, hidden)
            case "widened":
                torch.addmm(self.total, g.T, hidden, out_dtype=self.total.dtype, out=self.total)
            case "rounded":
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

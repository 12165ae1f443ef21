"""The head's parameters as the products need them, and their gradients: added up over chunks, sharded again under FSDP2.

V vocabulary, d hidden size, n processes. Under FSDP2 (`fully_shard`) a parameter is a DTensor whose rows are spread over the
processes of its mesh, every dimension of which is taken to be data parallel.
"""

from __future__ import annotations

import functools
import sys
from typing import Literal

import torch
from torch import Tensor


def is_sharded(parameter: Tensor | None) -> bool:
    """Return whether it is a DTensor, without importing what defines one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(parameter, module.DTensor)


def full(parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the whole parameter, detached; a sharded one is gathered in `dtype`. Collective then: every process must call
    it.
    """
    if parameter is None:
        return None
    return parameter.detach().to(dtype).full_tensor() if is_sharded(parameter) else parameter.detach()


def shared_out(total: Tensor, like: Tensor) -> Tensor:
    """Turn this process's gradient of the whole parameter into the mean over processes, sharded as `like`. Collective.

    It is what FSDP2 does with the other parameters' gradients. Where losses are to be summed over n processes, scale the loss
    by n (or set FSDP2's gradient divide factor to 1 and scale the head's share alike).
    """
    from torch.distributed.tensor import DTensor, Partial

    mesh = like.device_mesh
    summed = DTensor.from_local(total / mesh.size(), mesh, [Partial()] * mesh.ndim, run_check=False)
    return summed.redistribute(placements=like.placements)


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
        """Return the sum in the parameter's dtype and sharding, 0 if nothing was added; None without a parameter."""
        if not self._open():
            return None
        total = shared_out(self.total, self.parameter) if is_sharded(self.parameter) else self.total
        return total.to(self.parameter.dtype)


class GradAccumulator(Accumulator):
    """An accumulator that hands its sum to the parameter's `.grad`, without a copy of it where nothing watches.

    Hooks on the parameter (`register_hook`, `register_post_accumulate_grad_hook`) run as after a backward pass.
    """

    def __init__(self, parameter: Tensor | None):
        super().__init__(parameter)
        p = self.parameter
        self.direct = (
            p is not None
            and not is_sharded(p)
            and p.dtype == torch.promote_types(p.dtype, torch.float32)
            and not (p._backward_hooks or p._post_accumulate_grad_hooks)
        )
        if self.direct:
            self.total = p.grad

    def finish(self) -> None:
        """Finish, once, after the last chunk. `.grad` stays as it is if nothing was added (on any process, if it is
        sharded).
        """
        if self.direct:
            self.parameter.grad = self.total
        elif self.total is not None or is_sharded(self.parameter):  # other processes may have something to add
            self.parameter.backward(self.result())

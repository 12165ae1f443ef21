"""From hidden states to per-token signals without holding [tokens, vocabulary] for more than one chunk of tokens.

Names: M response tokens, d hidden size, V vocabulary. The tokens of a chunk share one product with the lm-head. On a CPU a
chunk is then read in tiles of a few tokens whose temporaries stay in cache (`head_torch.py`); on CUDA one Triton kernel reads
it whole (`head_triton.py`). Everything after the product is float32 or wider.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head.torch import Coefficients, Reading, by_autograd, closed_form, scaled
from sdpg.core.head.weights import Accumulator, GradAccumulator, full

Kernel = Literal["auto", "torch", "triton"]

# Logits of one chunk. A product of few rows is bound by reading the weight: on an H100 below about 300 rows in bf16.
CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}  # 16 MiB in float32; 128 MiB in bf16, 441 rows of a vocabulary of 152k
LEAST_ROWS = 64  # of a chunk, unless the caller asks for less
TILE_ELEMENTS = 2**19  # 2 MiB in float32


@dataclass(frozen=True)
class Head:
    """An lm-head: weight (V, d), optional bias (V,), optional soft cap (logits <- cap * tanh(logits / cap)).

    The parameters may be FSDP2's DTensors. Each call then gathers them once, in the hidden states' precision, and leaves the
    shards' gradient averaged over the processes, as FSDP2 does; every process must make the same calls in the same order.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    @classmethod
    def of(cls, model) -> Head:
        """The head of an HF causal LM; raises ValueError if the model has no linear lm-head."""
        layer = model.get_output_embeddings()
        if layer is None or not hasattr(layer, "weight"):
            raise ValueError(f"{type(model).__name__} has no linear lm-head (get_output_embeddings() gave {layer!r})")
        cap = getattr(model.config, "final_logit_softcapping", None)
        return cls(layer.weight, getattr(layer, "bias", None), cap)

    def product(self, hidden: Tensor) -> Tensor:
        """hidden (C, d) -> hidden times weight, plus bias, in the compute precision (C, V)."""
        return torch.nn.functional.linear(hidden, self.weight, self.bias)

    def product_into(self, out: Tensor, hidden: Tensor) -> Tensor:
        """`product` written to `out` (C, V); without a graph."""
        if self.bias is None:
            return torch.mm(hidden, self.weight.T, out=out)
        return torch.addmm(self.bias, hidden, self.weight.T, out=out)

    def logprobs(self, product: Tensor, temperature: float) -> Tensor:
        """`product` (C, V) -> log softmax(logits / temperature), float32 or wider (C, V)."""
        return torch.log_softmax(scaled(product, self.softcap, temperature), -1)

    def whole(self, dtype: torch.dtype) -> Head:
        """The head with its parameters detached, and gathered in `dtype` where they are sharded."""
        return replace(self, weight=full(self.weight, dtype), bias=full(self.bias, dtype))


@dataclass(frozen=True)
class TokenSignals:
    """Of M tokens, (M,) each: logp, entropy, div differentiable; logq detached; div and logq None without a teacher."""

    logp: Tensor
    entropy: Tensor
    div: Tensor | None
    logq: Tensor | None


def token_signals(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    divergence: Divergence | None = None,
    teacher_hidden: Tensor | None = None,
    teacher_head: Head | None = None,
    chunk_elements: int | None = None,
    kernel: Kernel = "auto",
) -> TokenSignals:
    """Signals of M tokens: hidden (M, d), targets (M,).

    logp = log p(target); entropy of p. With a teacher (teacher_hidden (M, d') and teacher_head): logq = log q(target), and,
    if a divergence is given, that of the student p and the detached q over the vocabulary (Eq. 3.2). One temperature serves
    both. Nats, float32 or wider. The gradient reaches `hidden` and the head through logp, entropy and div with any upstream
    gradient per token; the backward pass computes the logits again, of the tokens with an upstream gradient other than 0.

    chunk_elements: logits held at once; None for what suits the device. kernel: "auto" is Triton's on CUDA where it is
    installed and takes the divergence, else plain torch. Raises ValueError for a divergence without a teacher, and for
    kernel="triton" where Triton's cannot be used.
    """
    task = _Task(targets, temperature, divergence, teacher_hidden, teacher_head, chunk_elements, kernel)
    if not torch.is_grad_enabled():
        return _sweep(hidden, head, task)[0]
    return TokenSignals(*_TwoPass.apply(hidden, head.weight, head.bias, head.softcap, task))


def token_signals_backward(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    loss: Callable[[TokenSignals, slice], Tensor],
    *,
    temperature: float = 1.0,
    divergence: Divergence | None = None,
    teacher_hidden: Tensor | None = None,
    teacher_head: Head | None = None,
    chunk_elements: int | None = None,
    kernel: Kernel = "auto",
) -> tuple[TokenSignals, Tensor | None]:
    """Forward and backward of a loss that adds up over tokens: no logits are computed twice or kept.

    loss: the signals of some tokens and which ones (a slice of the M) -> their scalar loss. The head's parameters get their
    gradients here; returned are the signals, detached, and the gradient of the hidden states (M, d), for
    `hidden.backward(gradient)`; None if no token has one. Otherwise as `token_signals`.
    """
    task = _Task(targets, temperature, divergence, teacher_hidden, teacher_head, chunk_elements, kernel)
    weight, bias = GradAccumulator(head.weight), GradAccumulator(head.bias)
    signals, gradient = _sweep(hidden, head, task, functools.partial(_derivative, loss), weight, bias)
    weight.finish()
    bias.finish()
    return signals, gradient


@dataclass(frozen=True)
class _Task:
    """All of a call but the student's hidden states and head."""

    targets: Tensor
    temperature: float
    divergence: Divergence | None
    teacher_hidden: Tensor | None
    teacher_head: Head | None
    chunk_elements: int | None
    kernel: Kernel

    def __post_init__(self):
        if self.divergence is not None and (self.teacher_hidden is None or self.teacher_head is None):
            raise ValueError(f"divergence {self.divergence!r} needs teacher_hidden and teacher_head")
        if self.kernel not in get_args(Kernel):
            raise ValueError(f"kernel: got {self.kernel!r}, expected one of {', '.join(get_args(Kernel))}")

    def of_rows(self, index: Tensor | slice, distil: bool) -> _Task:
        """The task of some of its tokens, with the teacher only if `distil`."""
        teacher = dict.fromkeys(("teacher_hidden", "teacher_head", "divergence"))
        if distil:
            teacher = {"teacher_hidden": self.teacher_hidden[index]}
        return replace(self, targets=self.targets[index], **teacher)

    def reading(self, head: Head) -> Reading:
        """How the logits of student and teacher are read."""
        cap = self.teacher_head.softcap if self.teacher_head is not None else None
        return Reading(self.temperature, head.softcap, cap, self.divergence)

    def reader(self, hidden: Tensor) -> Callable:
        """What reads a chunk of logits (see `head_torch`)."""
        closed = self.divergence is None or self.divergence.has_closed_slope
        fits = closed and hidden.dtype in (torch.float32, torch.bfloat16, torch.float16)
        if self.kernel == "triton" and not (fits and _has_triton()):
            raise ValueError(
                f"kernel='triton': got {hidden.dtype} and {self.divergence}, expected float32, bf16 or fp16, no top_k, and "
                "Triton installed; use kernel='torch'"
            )
        if self.kernel == "triton" or (self.kernel == "auto" and hidden.is_cuda and fits and _has_triton()):
            from sdpg.core.head.triton import fused  # Triton is optional, and slow to import

            return fused
        return closed_form if closed else by_autograd

    def sizes(self, head: Head, device: torch.device) -> tuple[int, int]:
        """Tokens of a chunk and of a tile."""
        V = head.weight.shape[0]
        if self.chunk_elements is None:
            rows = max(LEAST_ROWS, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"]) // V)
        else:
            rows = max(1, self.chunk_elements // V)
        return rows, min(rows, max(1, TILE_ELEMENTS // V)) if device.type == "cpu" else rows


class _TwoPass(torch.autograd.Function):
    """Signals now, the logits once more for the gradient, when all upstream gradients are known."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, softcap, task):
        """The signals (M,): logp, entropy, div, logq."""
        signals, _ = _sweep(hidden, Head(weight, bias, softcap), task)
        ctx.save_for_backward(hidden, weight, bias)
        ctx.softcap, ctx.task = softcap, task
        ctx.set_materialize_grads(False)
        if signals.logq is not None:
            ctx.mark_non_differentiable(signals.logq)
        return signals.logp, signals.entropy, signals.div, signals.logq

    @staticmethod
    @once_differentiable
    def backward(ctx, *upstream):
        """Upstream gradients (M,) of logp, entropy, div (None for none) -> those of hidden, weight and bias."""
        hidden, weight, bias = ctx.saved_tensors
        index, c = _nonzero(upstream[:3])
        index = slice(0) if index is None else index
        weight_sum, bias_sum = (
            Accumulator(x if needed else None)
            for x, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        )
        task = ctx.task.of_rows(index, distil=c[2] is not None)
        take = lambda x, j: tuple(None if v is None else v[j] for v in c)  # noqa: E731
        _, part = _sweep(hidden[index], Head(weight, bias, ctx.softcap), task, take, weight_sum, bias_sum)
        gradient = torch.zeros_like(hidden)
        if part is not None:
            gradient[index] = part
        return gradient, weight_sum.result(), bias_sum.result(), None, None


@torch.no_grad()
def _sweep(
    hidden: Tensor,
    head: Head,
    task: _Task,
    coefficients: Callable[[TokenSignals, slice], Coefficients] | None = None,
    weight: Accumulator | None = None,
    bias: Accumulator | None = None,
) -> tuple[TokenSignals, Tensor | None]:
    """Chunk by chunk: the signals (M,) and, given what each token's are multiplied by in the loss's derivative, gradients.

    That of the hidden states (M, d) is returned, None if all coefficients are 0; those of the head go to `weight`, `bias`.
    """
    hidden, how, read = hidden.detach(), task.reading(head), task.reader(hidden)
    whole, teacher = head.whole(hidden.dtype), None
    if task.teacher_hidden is not None:
        same = task.teacher_head.weight is head.weight and task.teacher_head.bias is head.bias
        teacher = whole if same else task.teacher_head.whole(task.teacher_hidden.dtype)
    rows, tile = task.sizes(head, hidden.device)
    z = hidden.new_empty(min(rows, len(hidden)), len(whole.weight))
    z_teacher = None if teacher is None else task.teacher_hidden.new_empty(z.shape)
    gradient, found = None, []
    for start in range(0, max(1, len(hidden)), rows):
        j = slice(start, min(start + rows, len(hidden)))
        logits = [whole.product_into(z[: j.stop - j.start], hidden[j]), None]
        if teacher is not None:
            logits[1] = teacher.product_into(z_teacher[: j.stop - j.start], task.teacher_hidden[j].detach())
        live = _read_tiles(read, logits, j, tile, task.targets, how, coefficients, found)
        if live is not None:
            h = hidden[live]
            g = z[: len(h)]
            gradient = torch.zeros_like(hidden) if gradient is None else gradient
            gradient[live] = g @ whole.weight
            weight.add_product(g, h)
            bias.add_rows(g)
    return TokenSignals(*found), gradient


def _read_tiles(read, logits, j: slice, tile: int, targets, how, coefficients, found: list) -> Tensor | slice | None:
    """Read a chunk, tokens j, in tiles: signals are written to `found`, gradients overwrite the student's logits.

    found: the signals of all tokens (M,), made with the first tile. A tile's own are not kept: small tensors that outlive the
    large ones beside them would leave memory in pieces too small for the next tile's.

    Gradients of tokens whose coefficients are all 0 are left out: row i of the logits becomes that of the i-th other token.
    Returned are these tokens: j, the indices of a part of it, or None if there are none.
    """
    z, z_teacher = logits
    live, filled = [], 0
    for i in range(j.start, max(j.stop, j.start + 1), tile):
        at = slice(i, min(i + tile, j.stop))
        here = slice(at.start - j.start, at.stop - j.start)
        teacher = None if z_teacher is None else z_teacher[here]
        signals, gradient = read(z[here], teacher, targets[at], how, coefficients is not None)
        if not found:
            found.extend(None if x is None else x.new_empty(len(targets)) for x in signals)
        for column, x in zip(found, signals, strict=True):
            if x is not None:
                column[at] = x
        if coefficients is None:
            continue
        index, c = _nonzero(coefficients(TokenSignals(*signals), at))
        if index is None:
            continue
        g = gradient(c, index)
        place = z[filled : filled + len(g)]
        if g.data_ptr() != place.data_ptr():
            place.copy_(g)
        filled += len(g)
        live.append((at, index))
    if filled == len(z) or not live:
        return j if live else None
    return torch.cat([torch.arange(at.start, at.stop, device=z.device)[index] for at, index in live])


def _derivative(loss: Callable[[TokenSignals, slice], Tensor], x: TokenSignals, j: slice) -> Coefficients:
    """d loss / d (logp, entropy, div) of the tokens j, (C,) each, by autograd over these vectors; None where it is not used."""
    leaves = [v.requires_grad_() for v in (x.logp, x.entropy, x.div) if v is not None]
    with torch.enable_grad():
        value = loss(x, j)
    if not value.requires_grad:
        return None, None, None
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return (*found, None)[:3]


def _nonzero(c: Coefficients) -> tuple[Tensor | slice | None, Coefficients]:
    """The tokens with a coefficient other than 0, and their coefficients: indices, slice(None) for all, None for no token."""
    given = [x != 0 for x in c if x is not None]
    if not given:
        return None, c
    some = functools.reduce(torch.logical_or, given)
    if some.all() and len(some):
        return slice(None), c
    index = some.nonzero()[:, 0]
    return (index, tuple(None if x is None else x[index] for x in c)) if len(index) else (None, c)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None

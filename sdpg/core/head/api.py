"""From hidden states to per-token signals, without holding [tokens, vocabulary] for more than one chunk of tokens.

Names: M response tokens, d hidden size, V vocabulary. The tokens of a chunk share one product with the lm-head. On a CPU a
chunk is then read in tiles of a few tokens whose temporaries stay in cache (torch.py); on CUDA one Triton kernel reads it whole
(triton.py), or, where it does not fit, plain torch in larger tiles. Everything after the product is float32 or wider.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head.sizes import CHUNK_ELEMENTS, LEAST_ROWS, TILE_ELEMENTS
from sdpg.core.head.torch import Coefficients, Reading, by_autograd, closed_form, scaled
from sdpg.core.head.weights import Accumulator, GradAccumulator

Kernel = Literal["auto", "torch", "triton"]
Derivative = Callable[["TokenSignals", slice], Coefficients]

TILED = (closed_form, by_autograd)


@dataclass(frozen=True)
class Head:
    """An lm-head: weight (V, d), optional bias (V,), optional soft cap (logits <- cap * tanh(logits / cap)).

    scale: what logits are multiplied by, after a soft cap (Granite, Cohere): the same as another temperature.
    Plain tensors: a sharded model's are gathered beforehand (`sdpg.core.sharding.WholeHead`).
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, model) -> Head:
        """Return the head of an HF causal LM; raises ValueError if the model has no linear lm-head."""
        layer = model.get_output_embeddings()
        if layer is None or not hasattr(layer, "weight"):
            raise ValueError(f"{type(model).__name__} has no linear lm-head (get_output_embeddings() gave {layer!r})")
        config = model.config and model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(layer.weight, getattr(layer, "bias", None), cap, scale)

    def product(self, hidden: Tensor) -> Tensor:
        """Multiply out: hidden (C, d) -> logits before soft cap and temperature, in the compute precision (C, V)."""
        return torch.nn.functional.linear(hidden, self.weight, self.bias)

    def product_into(self, out: Tensor, hidden: Tensor) -> Tensor:
        """Write `product` to `out` (C, V); without a graph."""
        if self.bias is None:
            return torch.mm(hidden, self.weight.T, out=out)
        return torch.addmm(self.bias, hidden, self.weight.T, out=out)

    def logprobs(self, product: Tensor, temperature: float) -> Tensor:
        """Return log softmax(logits / temperature) of a `product` (C, V), float32 or wider (C, V)."""
        return torch.log_softmax(scaled(product, self.softcap, temperature / self.scale), -1)

    def detached(self) -> Head:
        """Return the same head without gradients."""
        return replace(self, weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())


@dataclass(frozen=True)
class TokenSignals:
    """Of M tokens, (M,) each: logp, entropy, div differentiable; logq detached; div and logq None without a teacher."""

    logp: Tensor
    entropy: Tensor
    div: Tensor | None
    logq: Tensor | None


def token_signals(hidden: Tensor, head: Head, targets: Tensor, **options) -> TokenSignals:
    """Compute the signals of M tokens: hidden (M, d), targets (M,).

    logp = log p(target); entropy of p. With a teacher: logq = log q(target), and, if a divergence is given, that of the student
    p and the detached q over the vocabulary (Eq. 3.2). Nats, float32 or wider. The gradient reaches `hidden` and the head
    through logp, entropy and div with any upstream gradient per token; the backward pass computes the logits again, of the
    tokens with an upstream gradient other than 0. options: see `Options`; raises ValueError as it does.
    """
    options = Options(**options)
    if not torch.is_grad_enabled():
        return _sweep(Reader(hidden, head, targets, options))[0]
    return TokenSignals(*_TwoPass.apply(hidden, head.weight, head.bias, (head.softcap, head.scale), targets, options))


def token_signals_backward(
    hidden: Tensor, head: Head, targets: Tensor, objective: Callable[[TokenSignals, slice], Tensor], **options
) -> tuple[TokenSignals, Tensor | None]:
    """Run forward and backward of an objective that adds up over tokens: no logits are computed twice or kept.

    objective: the signals of some tokens and which ones (a slice of the M) -> a scalar to be minimised. The head's parameters
    get their gradients here; returned are the signals, detached, and the gradient of the hidden states (M, d), for
    `hidden.backward(gradient)`; None if no token has one. Otherwise as `token_signals`.
    """
    weight, bias = GradAccumulator(head.weight), GradAccumulator(head.bias)
    reader = Reader(hidden, head, targets, Options(**options))
    signals, gradient = _sweep(reader, functools.partial(_derivative, objective), weight, bias)
    weight.finish()
    bias.finish()
    return signals, gradient


@dataclass(frozen=True, kw_only=True)
class Options:
    """How signals are computed.

    temperature: of student and teacher. teacher_hidden (M, d') and teacher_head: of the teacher. chunk_elements: logits held
    at once; None for what suits the device. kernel: "auto" is Triton's on CUDA where it is installed and takes the divergence,
    else plain torch. Raises ValueError for a divergence without a teacher, and for kernel="triton" where it cannot be used.
    """

    temperature: float = 1.0
    divergence: Divergence | None = None
    teacher_hidden: Tensor | None = None
    teacher_head: Head | None = None
    chunk_elements: int | None = None
    kernel: Kernel = "auto"

    def __post_init__(self):
        if self.divergence is not None and (self.teacher_hidden is None or self.teacher_head is None):
            raise ValueError(f"divergence {self.divergence!r} needs teacher_hidden and teacher_head")
        if self.kernel not in get_args(Kernel):
            raise ValueError(f"kernel: got {self.kernel!r}, expected one of {', '.join(get_args(Kernel))}")

    def of_rows(self, index: Tensor | slice, distil: bool) -> Options:
        """Return the options for some of the tokens, with the teacher only if `distil`."""
        if distil:
            return replace(self, teacher_hidden=self.teacher_hidden[index])
        return replace(self, teacher_hidden=None, teacher_head=None, divergence=None)

    def kernel_for(self, hidden: Tensor) -> Callable:
        """Return what reads a tile of logits (see torch.py)."""
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

    def sizes(self, V: int, device: torch.device, *, tiled: bool) -> tuple[int, int]:
        """Return how many tokens a chunk and a tile have; a kernel that is not `tiled` reads a chunk whole."""
        kind = device.type if device.type in CHUNK_ELEMENTS else "cuda"
        asked = self.chunk_elements
        rows = max(LEAST_ROWS, CHUNK_ELEMENTS[kind] // V) if asked is None else max(1, asked // V)
        return rows, min(rows, max(1, TILE_ELEMENTS[kind] // V)) if tiled else rows


class Reader:
    """One sweep over M tokens: it multiplies out a chunk of logits, and reads them in tiles.

    It owns the buffers of a chunk's logits, and `columns`, the signals of all tokens (M,), made with the first tile. A tile's
    own are not kept: small tensors that outlive the large ones beside them would leave memory in pieces too small to use.
    """

    def __init__(self, hidden: Tensor, head: Head, targets: Tensor, options: Options):
        """Choose kernel and sizes, and make the buffers."""
        self.hidden, self.targets, self.options = hidden.detach(), targets, options
        self.head, self.teacher, other = head.detached(), None, options.teacher_head
        if options.teacher_hidden is not None:
            same = other.weight is head.weight and other.bias is head.bias
            self.teacher = self.head if same else other.detached()
        self.kernel = options.kernel_for(hidden)
        cap = None if other is None else other.softcap
        if other is not None and other.scale != head.scale:
            raise ValueError(f"a teacher whose logits are scaled by {other.scale}, and a student's by {head.scale}")
        self.how = Reading(options.temperature / head.scale, head.softcap, cap, options.divergence)
        self.rows, self.tile = options.sizes(len(self.head.weight), hidden.device, tiled=self.kernel in TILED)
        self.z = hidden.new_empty(min(self.rows, len(hidden)), len(self.head.weight))
        self.z_teacher = None if self.teacher is None else options.teacher_hidden.new_empty(self.z.shape)
        self.columns: list[Tensor | None] = []

    def chunks(self) -> Iterator[slice]:
        """Multiply out one chunk after the other, and yield its tokens."""
        for start in range(0, max(1, len(self.hidden)), self.rows):
            j = slice(start, min(start + self.rows, len(self.hidden)))
            self.head.product_into(self.z[: j.stop - start], self.hidden[j])
            if self.teacher is not None:
                hidden = self.options.teacher_hidden[j].detach()
                self.teacher.product_into(self.z_teacher[: j.stop - start], hidden)
            yield j

    def read(self, j: slice, derivative: Derivative | None) -> Tensor | slice | None:
        """Read the chunk of tokens j: write their signals to `columns` and, given `derivative`, gradients over the logits.

        Tokens whose coefficients are all 0 are left out: row i of the logits becomes the gradient of the i-th other token.
        Returned are the tokens that are not left out: j, the indices of a part of it, or None if there are none.
        """
        live, filled = [], 0
        for i in range(j.start, max(j.stop, j.start + 1), self.tile):
            at = slice(i, min(i + self.tile, j.stop))
            here = slice(at.start - j.start, at.stop - j.start)
            teacher = None if self.z_teacher is None else self.z_teacher[here]
            signals, gradient = self.kernel(self.z[here], teacher, self.targets[at], self.how, derivative is not None)
            self._keep(signals, at)
            if derivative is None:
                continue
            index, c = _nonzero(derivative(TokenSignals(*signals), at))
            if index is None:
                continue
            g = gradient(c, index)
            place = self.z[filled : filled + len(g)]
            if g.data_ptr() != place.data_ptr():
                place.copy_(g)
            filled += len(g)
            live.append((at, index))
        if filled == j.stop - j.start or not live:
            return j if live else None
        return torch.cat([torch.arange(at.start, at.stop, device=self.z.device)[index] for at, index in live])

    def _keep(self, signals: tuple[Tensor | None, ...], at: slice) -> None:
        if not self.columns:
            self.columns += [None if x is None else x.new_empty(len(self.targets)) for x in signals]
        for column, x in zip(self.columns, signals, strict=True):
            if x is not None:
                column[at] = x


@torch.no_grad()
def _sweep(
    reader: Reader, derivative: Derivative | None = None, weight: Accumulator | None = None, bias: Accumulator | None = None
) -> tuple[TokenSignals, Tensor | None]:
    """Read all chunks -> the signals (M,), and the gradient of the hidden states (M, d), None if all coefficients are 0.

    derivative: what each signal of some tokens is multiplied by in the derivative of the loss; None for no gradients. Those of
    the head are added to `weight` and `bias`.
    """
    gradient = None
    for j in reader.chunks():
        live = reader.read(j, derivative)
        if live is not None:
            h = reader.hidden[live]
            g = reader.z[: len(h)]
            gradient = torch.zeros_like(reader.hidden) if gradient is None else gradient
            gradient[live] = g @ reader.head.weight
            weight.add_product(g, h)
            bias.add_rows(g)
    return TokenSignals(*reader.columns), gradient


class _TwoPass(torch.autograd.Function):
    """Signals now, the logits once more for the gradient, when all upstream gradients are known."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, shape, targets, options):
        """Return the signals (M,): logp, entropy, div, logq. shape: the head's soft cap and scale."""
        signals, _ = _sweep(Reader(hidden, Head(weight, bias, *shape), targets, options))
        ctx.save_for_backward(hidden, weight, bias)
        ctx.shape, ctx.targets, ctx.options = shape, targets, options
        ctx.set_materialize_grads(False)
        if signals.logq is not None:
            ctx.mark_non_differentiable(signals.logq)
        return signals.logp, signals.entropy, signals.div, signals.logq

    @staticmethod
    @once_differentiable
    def backward(ctx, *upstream):
        """Return the gradients of hidden, weight and bias; upstream: those of logp, entropy, div, (M,) or None each."""
        hidden, weight, bias = ctx.saved_tensors
        index, c = _nonzero(upstream[:3])
        index = slice(0) if index is None else index
        weight_sum, bias_sum = (
            Accumulator(x if needed else None) for x, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        )
        options = ctx.options.of_rows(index, distil=c[2] is not None)
        reader = Reader(hidden[index], Head(weight, bias, *ctx.shape), ctx.targets[index], options)
        _, part = _sweep(reader, lambda x, j: tuple(None if v is None else v[j] for v in c), weight_sum, bias_sum)
        gradient = torch.zeros_like(hidden)
        if part is not None:
            gradient[index] = part
        return gradient, weight_sum.result(), bias_sum.result(), None, None, None


def _derivative(objective: Callable[[TokenSignals, slice], Tensor], x: TokenSignals, j: slice) -> Coefficients:
    """Return d objective / d (logp, entropy, div) of the tokens j, (C,) each, by autograd; None: not used."""
    leaves = [v.requires_grad_() for v in (x.logp, x.entropy, x.div) if v is not None]
    with torch.enable_grad():
        value = objective(x, j)
    if not value.requires_grad:
        return None, None, None
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return (*found, None)[:3]


def _nonzero(c: Coefficients) -> tuple[Tensor | slice | None, Coefficients]:
    """Return the tokens with a coefficient other than 0 (indices; slice(None): all; None: none) and their coefficients."""
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

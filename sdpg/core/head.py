"""From hidden states to per-token signals without holding [tokens, vocabulary] for more than one chunk of tokens.

Names: M response tokens, d hidden size, V vocabulary. Everything after the lm-head's product is at least float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdpg.algorithms.divergences import Divergence

CHUNK_ELEMENTS = 2**25  # logits held at once: 128 MiB in float32


@dataclass(frozen=True)
class Head:
    """An lm-head: weight (V, d), optional bias (V,), optional soft cap (logits <- cap * tanh(logits / cap))."""

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

    def logprobs(self, product: Tensor, temperature: float) -> Tensor:
        """`product` (C, V) -> log softmax(logits / temperature), float32 or wider (C, V)."""
        logits = product.to(torch.promote_types(product.dtype, torch.float32))
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        if temperature != 1.0:
            logits = logits / temperature
        return torch.log_softmax(logits, -1)


@dataclass(frozen=True)
class TokenSignals:
    """Of M tokens, (M,) each: logp, div differentiable; entropy, logq detached; div and logq None without a teacher."""

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
    chunk_elements: int = CHUNK_ELEMENTS,
) -> TokenSignals:
    """Signals of M tokens: hidden (M, d), targets (M,).

    logp = log p(target). With a teacher (teacher_hidden (M, d') and teacher_head): logq = log q(target), and, if a
    divergence is given, that of the student p and the detached q over the vocabulary (Eq. 3.2). One temperature serves
    both. float32, nats. The gradient reaches `hidden` and the head through logp and div with any upstream gradient per
    token. When the tokens need several chunks, each is computed again in the backward pass instead of being kept.
    """
    signals = _Chunk(temperature, divergence, teacher_hidden, teacher_head)
    chunks = _chunks(len(hidden), head, chunk_elements)

    def chunk(h, y, q):
        return signals(head.logprobs(head.product(h), temperature), y, q)

    if len(chunks) == 1:
        return TokenSignals(*chunk(hidden, targets, teacher_hidden))
    parts = []
    for j in chunks:
        q = teacher_hidden[j] if teacher_hidden is not None else None
        parts.append(checkpoint(chunk, hidden[j], targets[j], q, use_reentrant=False))
    return _joined(parts)


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
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[TokenSignals, Tensor | None]:
    """Forward and backward of a loss that adds up over tokens, chunk by chunk: no chunk's logits are computed twice or kept.

    loss: the signals of a chunk and the chunk (a slice of the M tokens) -> its scalar loss. The head's parameters get their
    gradients here; returned are the signals, detached, and the gradient of the hidden states (M, d), for
    `hidden.backward(gradient)`; None if no chunk's loss has one. Otherwise as `token_signals`.
    """
    signals = _Chunk(temperature, divergence, teacher_hidden, teacher_head)
    detached, gradient, parts = hidden.detach(), None, []
    weight, bias = _Accumulator(head.weight), _Accumulator(head.bias)
    for j in _chunks(len(hidden), head, chunk_elements):
        with torch.no_grad():
            product = head.product(detached[j])
        product.requires_grad_()
        q = teacher_hidden[j] if teacher_hidden is not None else None
        x = TokenSignals(*signals(head.logprobs(product, temperature), targets[j], q))
        value = loss(x, j)
        if value.requires_grad:
            (g,) = torch.autograd.grad(value, product)  # (C, V)
            gradient = torch.zeros_like(detached) if gradient is None else gradient
            gradient[j] = g @ head.weight.detach()
            weight.add_product(g, detached[j])
            bias.add_rows(g)
        parts.append([None if column is None else column.detach() for column in (x.logp, x.entropy, x.div, x.logq)])
    weight.finish()
    bias.finish()
    return _joined(parts), gradient


class _Accumulator:
    """The gradient of one parameter of the head, added up over the chunks in float32 (or wider) and in place."""

    def __init__(self, parameter: Tensor | None):
        self.parameter = parameter if parameter is not None and parameter.requires_grad else None
        self.total: Tensor | None = None

    def _open(self) -> bool:
        """Whether there is something to add to."""
        if self.parameter is not None and self.total is None:
            dtype = torch.promote_types(self.parameter.dtype, torch.float32)
            self.total = torch.zeros_like(self.parameter, dtype=dtype)
        return self.total is not None

    @torch.no_grad()
    def add_product(self, g: Tensor, hidden: Tensor) -> None:
        """Add g^T hidden: (C, V) and (C, d) -> (V, d)."""
        if not self._open():
            return
        if g.dtype == self.total.dtype:
            self.total.addmm_(g.T, hidden)
        else:
            self.total += g.T @ hidden

    @torch.no_grad()
    def add_rows(self, g: Tensor) -> None:
        """Add the sum over the tokens of g (C, V)."""
        if self._open():
            self.total += g.sum(0, dtype=self.total.dtype)

    def finish(self) -> None:
        """Hand the sum to the parameter as a backward pass would: `.grad`, and hooks on its accumulation."""
        if self.total is not None:
            self.parameter.backward(self.total.to(self.parameter.dtype))


@dataclass(frozen=True)
class _Chunk:
    """(log-probs (C, V), targets, teacher's hidden or None) of a chunk -> logp, entropy, div, logq."""

    temperature: float
    divergence: Divergence | None
    teacher_hidden: InitVar[Tensor | None]
    teacher_head: Head | None

    def __post_init__(self, teacher_hidden):
        if self.divergence is not None and (teacher_hidden is None or self.teacher_head is None):
            raise ValueError(f"divergence {self.divergence!r} needs teacher_hidden and teacher_head")

    def __call__(self, logp, targets, teacher_hidden):
        with torch.no_grad():
            entropy = -(logp.exp() * logp).sum(-1)
        div = logq = None
        if teacher_hidden is not None:
            with torch.no_grad():
                logq = self.teacher_head.logprobs(self.teacher_head.product(teacher_hidden), self.temperature)
            div = self.divergence(logp, logq) if self.divergence is not None else None
            logq = logq.gather(1, targets[:, None])[:, 0]
        return logp.gather(1, targets[:, None])[:, 0], entropy, div, logq


def _chunks(tokens: int, head: Head, elements: int) -> list[slice]:
    size = max(1, elements // head.weight.shape[0])
    return [slice(i, min(i + size, tokens)) for i in range(0, tokens, size)]


def _joined(parts: list) -> TokenSignals:
    columns = zip(*parts, strict=True)
    return TokenSignals(*(torch.cat(column) if column[0] is not None else None for column in columns))

"""From hidden states to per-token signals without holding [tokens, vocabulary] for more than one chunk of tokens.

Names: M response tokens, d hidden size, V vocabulary. Everything after the lm-head's product is at least float32.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def logprobs(self, hidden: Tensor, temperature: float) -> Tensor:
        """hidden (C, d) -> log softmax(logits / temperature), float32 or wider (C, V)."""
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
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
    if divergence is not None and (teacher_hidden is None or teacher_head is None):
        raise ValueError(f"divergence {divergence!r} needs teacher_hidden and teacher_head")

    def chunk(h, y, q):
        logp = head.logprobs(h, temperature)
        with torch.no_grad():
            entropy = -(logp.exp() * logp).sum(-1)
        div = logq = None
        if q is not None:
            with torch.no_grad():
                logq = teacher_head.logprobs(q, temperature)
            div = divergence(logp, logq) if divergence is not None else None
            logq = logq.gather(1, y[:, None])[:, 0]
        return logp.gather(1, y[:, None])[:, 0], entropy, div, logq

    tokens = max(1, chunk_elements // head.weight.shape[0])
    if len(hidden) <= tokens:
        return TokenSignals(*chunk(hidden, targets, teacher_hidden))
    parts = []
    for i in range(0, len(hidden), tokens):
        j = slice(i, i + tokens)
        q = teacher_hidden[j] if teacher_hidden is not None else None
        parts.append(checkpoint(chunk, hidden[j], targets[j], q, use_reentrant=False))
    columns = zip(*parts, strict=True)
    return TokenSignals(*(torch.cat(column) if column[0] is not None else None for column in columns))

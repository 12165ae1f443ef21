"""Divergences over the vocabulary. p is the student, q the (detached) teacher; V entries on the last axis.

gJSD_b(p, q) = b KL(q || m) + (1 - b) KL(p || m) with m = (1 - b) p + b q, for 0 < b < 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a config is read without loading torch
    from torch import Tensor

TINY = 1e-12  # least probability of the tail bucket


def reverse_kl(logp: Tensor, logq: Tensor) -> Tensor:
    """Compute KL(p || q) by entry: p(a) (log p(a) - log q(a)), Eq. (3.2): log-probs (..., V) -> nats (..., V)."""
    return logp.exp() * (logp - logq)


def forward_kl(logp: Tensor, logq: Tensor) -> Tensor:
    """Compute KL(q || p) by entry: log-probs (..., V) -> nats (..., V)."""
    return logq.exp() * (logq - logp)


def gjsd(logp: Tensor, logq: Tensor, b: float) -> Tensor:
    """Return the generalised Jensen-Shannon divergence by entry: log-probs (..., V) -> nats (..., V)."""
    logm = (logp + math.log1p(-b)).logaddexp(logq + math.log(b))
    return b * forward_kl(logm, logq) + (1 - b) * forward_kl(logm, logp)


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Which divergence, and how it is taken. Called with log-probs of student and teacher, (..., V) each -> (...)."""

    kind: Literal["reverse_kl", "forward_kl", "gjsd"] = "reverse_kl"
    b: float = 0.5  # of gjsd
    temperature: float = 1.0  # divides both logits once more
    top_k: int | None = None  # over the student's k most likely entries only (their terms of the sum, not renormalised)
    tail: bool = False  # with top_k: all other entries as one more
    clamp: float | None = None  # most that one entry contributes
    clamp_total: float | None = None  # most that the sum counts

    def __post_init__(self):
        if self.kind not in ("reverse_kl", "forward_kl", "gjsd"):
            raise ValueError(f"divergence: got {self.kind!r}, expected reverse_kl, forward_kl or gjsd")
        if self.kind == "gjsd" and not 0 < self.b < 1:
            raise ValueError(f"gjsd needs 0 < b < 1, got {self.b}; its limits are forward_kl (b=0) and reverse_kl (b=1)")

    def __call__(self, logp: Tensor, logq: Tensor) -> Tensor:
        """Return the divergence, differentiable in logp."""
        if self.temperature != 1.0:
            logp, logq = ((x / self.temperature).log_softmax(-1) for x in (logp, logq))
        if self.top_k is not None and self.top_k < logp.shape[-1]:
            logp, logq = _restrict(logp, logq, self.top_k, self.tail)
        if self.kind == "gjsd":
            entries = gjsd(logp, logq, self.b)
        else:
            entries = (reverse_kl if self.kind == "reverse_kl" else forward_kl)(logp, logq)
        if self.clamp is not None:
            entries = entries.clamp(max=self.clamp)
        total = entries.sum(-1)
        return total if self.clamp_total is None else total.clamp(max=self.clamp_total)

    @property
    def has_closed_slope(self) -> bool:
        """Whether `value_and_slope` knows it."""
        return self.top_k is None

    @property
    def uses_q(self) -> bool:
        """Whether `value_and_slope` reads q beside log q."""
        return self.kind != "reverse_kl"

    def value_and_slope(self, p: Tensor, logp: Tensor, q: Tensor | None, logq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the divergence and its derivative without autograd, from (..., V) each at the divergence's own
        temperature.

        -> value (...), w (..., V), s (...): d value / d logits = (w - s p) / temperature with s = sum w. An entry f(log p)
        depends on its own log p alone, so w = f' where the clamps leave it a derivative, up to a multiple of p, which
        cancels. `logq` is overwritten. Raises ValueError with top_k.
        """
        if not self.has_closed_slope:
            raise ValueError(f"{self}: no closed form with top_k; call the divergence and use autograd")
        entries, w = self._entries_and_slopes(p, logp, q, logq)
        if self.clamp is not None:
            w = w.masked_fill(entries > self.clamp, 0)
            entries = entries.clamp(max=self.clamp)
        value, s = entries.sum(-1), w.sum(-1)
        if self.clamp_total is not None:
            moves = value <= self.clamp_total
            value, w, s = value.clamp(max=self.clamp_total), w.mul_(moves[..., None]), s * moves
        return value, w, s

    def _entries_and_slopes(self, p, logp, q, logq) -> tuple[Tensor, Tensor]:
        """Return the entries of the sum, and their derivatives in their own log p."""
        if self.kind == "reverse_kl":
            import torch  # here: a config is read without loading it

            entries = torch.sub(logp, logq, out=logq).mul_(p)
            return entries, entries if self.clamp is None else entries + p  # the multiple of p cancels unless clamped
        if self.kind == "forward_kl":
            return logq.sub_(logp).mul_(q), -q
        logm = (logp + math.log1p(-self.b)).logaddexp(logq + math.log(self.b))
        w = (logp - logm).mul_(p).mul_(1 - self.b)  # what m's own derivative adds cancels
        return logq.sub_(logm).mul_(q).mul_(self.b).add_(w), w


def _restrict(logp: Tensor, logq: Tensor, k: int, tail: bool) -> tuple[Tensor, Tensor]:
    """Keep the student's k most likely entries, (..., k); with `tail` (..., k + 1), the last being all the others."""
    top = logp.detach().topk(k, -1).indices
    parts = [x.gather(-1, top) for x in (logp, logq)]
    if tail:
        import torch  # here: a config is read without loading it

        rest = [(1 - x.exp().sum(-1, keepdim=True)).clamp(min=TINY).log() for x in parts]
        parts = [torch.cat([x, r], -1) for x, r in zip(parts, rest, strict=True)]
    return parts[0], parts[1]

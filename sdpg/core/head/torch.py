"""A chunk of logits -> its tokens' signals, and its gradient once each signal's coefficient is known: plain torch.

Names: C tokens, V vocabulary; z (C, V) what the lm-head's product gave, u = cap(z) / temperature, p = softmax(u), all in
float32 or wider. Each function here takes (z, the teacher's z or None, targets (C,), reading, differentiable) and returns the
signals (logp, entropy, div, logq), (C,) each or None, and a function, to be called once, (coefficients, rows) ->

    the gradient (C', V) in z[rows] of the sum over these rows of c_logp logp + c_entropy H + c_div D,

where a coefficient is (C',), or None for 0 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdpg.algorithms.divergences import Divergence

LEAST = -1e30  # stands for log 0, so that 0 log 0 is 0

Coefficients = tuple[Tensor | None, Tensor | None, Tensor | None]  # of logp, entropy, div
Rows = Tensor | slice  # of a chunk


@dataclass(frozen=True)
class Reading:
    """How logits are read: one temperature for student and teacher, each one's soft cap, the divergence."""

    temperature: float = 1.0
    softcap: float | None = None
    teacher_softcap: float | None = None
    divergence: Divergence | None = None


def scaled(z: Tensor, softcap: float | None, temperature: float) -> Tensor:
    """Return cap * tanh(z / cap) / temperature in float32 or wider, (C, V); `z` itself where that changes nothing."""
    u = z.to(torch.promote_types(z.dtype, torch.float32))
    if softcap is not None:
        u = softcap * torch.tanh(u / softcap)
    return u if temperature == 1.0 else u / temperature


def probabilities(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax and log-softmax over the last axis with one exponential per entry; log 0 is LEAST."""
    p = torch.softmax(u, -1)
    logp = (u - u.amax(-1, keepdim=True)).add_(p.amax(-1, keepdim=True).log())
    return p, logp.clamp_(min=LEAST)


def log_probabilities(u: Tensor) -> Tensor:
    """Return the second of `probabilities`."""
    return torch.log_softmax(u, -1).clamp_(min=LEAST)


def closed_form(z: Tensor, z_teacher: Tensor | None, y: Tensor, how: Reading, differentiable: bool):
    """Read without a graph over the vocabulary: the softmax's Jacobian is written out (see the module's docstring).

    d logp / du = onehot(y) - p, dH / du = -p (log p + H), dD / du = (w - s p) / T with the divergence's temperature T.
    """
    p, logp = probabilities(scaled(z, how.softcap, how.temperature))
    entropy = -(p * logp).sum(-1)
    div = logq_y = distilled = None
    if z_teacher is not None:
        v, d = scaled(z_teacher, how.teacher_softcap, how.temperature), how.divergence
        q, logq = probabilities(v) if d is not None and d.uses_q else (None, log_probabilities(v))
        logq_y = _at(logq, y)
        if d is not None:
            div, *distilled = _divergence(d, p, logp, q, logq)

    def gradient(c: Coefficients, rows: Rows) -> Tensor:
        c_logp, c_entropy, c_div = c if how.temperature == 1 else (None if x is None else x / how.temperature for x in c)
        p_, g, of_p = p[rows], None, []  # of_p adds up to what multiplies p
        if c_div is not None:
            T = how.divergence.temperature
            w, s, p_T = (x[rows] for x in distilled)
            g = w.mul_((c_div if T == 1 else c_div / T)[:, None])
            if T == 1:
                of_p.append(c_div * s)
            else:
                g.addcmul_(p_T, (c_div * s)[:, None], value=-1 / T)
        if c_entropy is not None:
            part = (logp[rows] * p_).mul_(-c_entropy[:, None])
            g = part if g is None else g.add_(part)
            of_p.append(c_entropy * entropy[rows])
        if c_logp is not None:
            of_p.append(c_logp)
        if of_p:
            of_p = sum(of_p[1:], of_p[0])[:, None]
            g = p_ * -of_p if g is None else g.addcmul_(p_, of_p, value=-1)
        if c_logp is not None:
            g.scatter_add_(1, y[rows, None], c_logp[:, None])
        return g if how.softcap is None else g.mul_(1 - torch.tanh(z[rows].to(g.dtype) / how.softcap).square_())

    return (_at(logp, y), entropy, div, logq_y), gradient if differentiable else None


def by_autograd(z: Tensor, z_teacher: Tensor | None, y: Tensor, how: Reading, differentiable: bool):
    """Read for divergences without a closed slope (top_k, tail): the same through a graph over the chunk's logits."""
    logq = None
    if z_teacher is not None:
        logq = log_probabilities(scaled(z_teacher, how.teacher_softcap, how.temperature))
    with torch.set_grad_enabled(differentiable):
        z = z.detach().requires_grad_(differentiable)
        logp = torch.log_softmax(scaled(z, how.softcap, how.temperature), -1).clamp(min=LEAST)
        entropy = -(logp.exp() * logp).sum(-1)
        div = how.divergence(logp, logq) if how.divergence is not None else None
        signals = [_at(logp, y), entropy, div]

    def gradient(c: Coefficients, rows: Rows) -> Tensor:
        given = [(x, k) for x, k in zip(signals, c, strict=True) if k is not None]
        upstream = [k if isinstance(rows, slice) else k.new_zeros(len(y)).index_put_((rows,), k) for _, k in given]
        (g,) = torch.autograd.grad([x for x, _ in given], z, upstream)
        return g[rows]

    detached = [x if x is None else x.detach() for x in signals]
    return (*detached, None if logq is None else _at(logq, y)), gradient if differentiable else None


def _divergence(divergence: Divergence, p, logp, q, logq) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return value (C,), w (C, V), s (C,) and p (C, V) at the divergence's own temperature."""
    if divergence.temperature != 1.0:
        (p, logp), (q, logq) = (probabilities(x / divergence.temperature) for x in (logp, logq))
    return *divergence.value_and_slope(p, logp, q, logq), p


def _at(values: Tensor, y: Tensor) -> Tensor:
    return values.gather(1, y[:, None])[:, 0]

"""The head's signals straight from their equations, everything materialised in float64; inputs for its tests."""

from __future__ import annotations

import torch

from sdpg.core.head.api import Head

M, D, D_TEACHER, V = 13, 6, 4, 17


def inputs(dtype=torch.float64, seed=0, scale=1.0):
    """Hidden states and heads of a student and of a teacher of another size, targets, upstream gradients of 3 signals."""
    g = torch.Generator().manual_seed(seed)
    make = lambda *shape: (scale * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)  # noqa: E731
    return {
        "hidden": make(M, D).requires_grad_(),
        "weight": make(V, D).requires_grad_(),
        "bias": make(V).requires_grad_(),
        "teacher": make(M, D_TEACHER).requires_grad_(),
        "teacher_weight": make(V, D_TEACHER).requires_grad_(),
        "teacher_bias": make(V),
        "targets": torch.randint(0, V, (M,), generator=g),
        "upstream": torch.randn(3, M, generator=g, dtype=torch.float64),
    }


def arguments(x, *, temperature=1.0, softcap=None, teacher_softcap=None, divergence=None):
    """(hidden, head, targets) and the keywords of `token_signals` for `inputs`."""
    positional = (x["hidden"], Head(x["weight"], x["bias"], softcap), x["targets"])
    teacher_head = Head(x["teacher_weight"], x["teacher_bias"], teacher_softcap)
    teacher = {"teacher_hidden": x["teacher"], "teacher_head": teacher_head, "divergence": divergence}
    return positional, {"temperature": temperature, **(teacher if divergence is not None else {})}


def logits(x, *, softcap=None, teacher_softcap=None, **_):
    """Student's and teacher's, (M, V) float64, after their soft caps."""
    out = []
    for prefix, hidden, cap in (("", "hidden", softcap), ("teacher_", "teacher", teacher_softcap)):
        z = x[hidden].double() @ x[f"{prefix}weight"].double().T + x[f"{prefix}bias"].double()
        out.append(cap * torch.tanh(z / cap) if cap else z)
    return out


def signals_of(u, v, y, *, temperature=1.0, divergence=None, **_):
    """logp, entropy, div, logq from capped logits (M, V), with a graph to u; what has probability 0 counts for nothing."""
    log = lambda z, T: torch.log_softmax(z / T, -1).clamp(min=-1e30)  # noqa: E731
    rows = torch.arange(len(y))
    logp, logq = log(u, temperature), log(v, temperature)
    entropy = -(logp.exp() * logp).sum(-1)
    div = None if divergence is None else divergence_of(log, u, v, temperature, divergence)
    return logp[rows, y], entropy, div, logq[rows, y].detach()


def divergence_of(log, u, v, temperature, d):
    """KL(p||q), KL(q||p), or b KL(q||m) + (1-b) KL(p||m) with m = (1-b) p + b q, with every option of `Divergence`."""
    T = temperature * d.temperature
    logp, logq = log(u, T), log(v, T).detach()
    if d.top_k is not None:
        keep = torch.zeros_like(u, dtype=torch.bool)
        for row, order in zip(keep, logp.detach().argsort(-1, descending=True), strict=True):
            row[order[: d.top_k]] = True
        p, q = (z.exp()[keep].view(len(u), -1) for z in (logp, logq))
        if d.tail:
            p, q = (torch.cat([z, 1 - z.sum(-1, keepdim=True)], -1) for z in (p, q))
        logp, logq = p.log(), q.log()
    p, q = logp.exp(), logq.exp()
    logm = ((1 - d.b) * p + d.b * q).clamp(min=1e-300).log()
    entries = {
        "reverse_kl": lambda: p * (logp - logq),
        "forward_kl": lambda: q * (logq - logp),
        "gjsd": lambda: d.b * q * (logq - logm) + (1 - d.b) * p * (logp - logm),
    }[d.kind]()
    total = entries.clamp(max=d.clamp).sum(-1) if d.clamp is not None else entries.sum(-1)
    return total if d.clamp_total is None else total.clamp(max=d.clamp_total)


def expected(x, **options):
    """Signals of `inputs` by the above."""
    return signals_of(*logits(x, **options), x["targets"], **options)


def weighted(signals, upstream):
    """sum over signals and tokens of upstream gradient times signal."""
    return sum((c * s).sum() for c, s in zip(upstream, signals, strict=False) if s is not None)

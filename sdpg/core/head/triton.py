"""Triton kernels of the fused head: a chunk of logits is read without a temporary of its size, and its gradient replaces it.

Names as in torch.py: z (C, V) logits of the student, t those of the teacher, u = cap(z) * scale with scale = 1 /
temperature, p = softmax(u), q the teacher's; scale_T is the scale at the divergence's own temperature T. One program takes one
row, in blocks of B entries, in float32. Takes every `Divergence` without top_k, and float32, bf16 and fp16 logits.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdpg.core.head.torch import Coefficients, Reading, Rows

KINDS = {"reverse_kl": 1, "forward_kl": 2, "gjsd": 3}
REVERSE, FORWARD = tl.constexpr(1), tl.constexpr(2)
LEAST = tl.constexpr(-1e30)  # stands for log 0, so that 0 log 0 is 0
# Rows of the statistics (11, C): of p and q log-prob of the target; entropy; maximum of u and log sum e^(u - maximum), which
# are kept apart because their sum would round large logits, of p, and of p and q at T; divergence and its sum of slopes.
LOGP, LOGQ, ENTROPY, MAX, LOG_SUM, MAX_T, LOG_SUM_T, MAX_QT, LOG_SUM_QT, DIV, SLOPES = map(tl.constexpr, range(11))
MOST_BLOCK = 4096


@triton.jit
def _tanh(x):
    e = tl.exp(-2 * tl.abs(x))
    return tl.where(x < 0, -1.0, 1.0) * (1 - e) / (1 + e)


@triton.jit
def _scaled(z, at, V, cap, scale, CAP: tl.constexpr):
    """Compute cap * tanh(z / cap) * scale of a block in float32; LEAST for -inf and outside the row."""
    u = tl.load(z + at, mask=at < V, other=-float("inf")).to(tl.float32)
    if CAP:
        u = tl.where(at < V, cap * _tanh(u / cap), LEAST)
    return tl.maximum(u * scale, LEAST)


@triton.jit
def _sums(z, V, cap, scale, B: tl.constexpr, CAP: tl.constexpr):
    """Sweep a row once: m = max u, log S with S = sum e^(u - m), and U / S with U = sum (u - m) e^(u - m)."""
    m = -1e30
    S = 0.0
    U = 0.0
    for start in range(0, V, B):
        at = start + tl.arange(0, B)
        u = _scaled(z, at, V, cap, scale, CAP)
        top = tl.maximum(m, tl.max(u, 0))
        e = tl.where(at < V, tl.exp(u - top), 0.0)
        keep = tl.exp(m - top)
        U = keep * (U + (m - top) * S) + tl.sum(tl.where(e > 0, (u - top) * e, 0.0), 0)
        S = keep * S + tl.sum(e, 0)
        m = top
    return m, tl.log(S), U / S


@triton.jit
def _entries(logp, logq, b, log_b, log_1b, clamp, KIND: tl.constexpr, CLAMP: tl.constexpr):
    """Compute entries of the divergence, and w, their derivatives in log p (see `Divergence.value_and_slope`)."""
    p = tl.exp(logp)
    q = tl.exp(logq)
    if KIND == REVERSE:
        entry = p * (logp - logq)
        w = entry
        if CLAMP:
            w = entry + p
    elif KIND == FORWARD:
        entry = q * (logq - logp)
        w = -q
    else:
        x = logp + log_1b
        y = logq + log_b
        top = tl.maximum(x, y)
        logm = top + tl.log(tl.exp(x - top) + tl.exp(y - top))
        w = (1 - b) * p * (logp - logm)
        entry = b * q * (logq - logm) + w
    if CLAMP:
        w = tl.where(entry > clamp, 0.0, w)
        entry = tl.minimum(entry, clamp)
    return entry, w


@triton.jit
def _read(
    z, t, y, out, C, V, cap, cap_t, scale, scale_T, b, log_b, log_1b, clamp,
    B: tl.constexpr, TEACHER: tl.constexpr, KIND: tl.constexpr, OWN_T: tl.constexpr,
    CAP: tl.constexpr, CAP_TEACHER: tl.constexpr, CLAMP: tl.constexpr,
):  # fmt: skip
    """Compute statistics of one row: the sums in one sweep of each of z and t, the divergence, which needs them, in
    another.
    """
    row = tl.program_id(0)
    z += row.to(tl.int64) * V
    t += row.to(tl.int64) * V
    out += row
    target = tl.load(y + row)
    m, log_S, mean = _sums(z, V, cap, scale, B, CAP)
    tl.store(out + LOGP * C, _scaled(z, target, V, cap, scale, CAP) - m - log_S)
    tl.store(out + ENTROPY * C, log_S - mean)
    tl.store(out + MAX * C, m)
    tl.store(out + LOG_SUM * C, log_S)
    if TEACHER:
        mq, log_Sq, _ = _sums(t, V, cap_t, scale, B, CAP_TEACHER)
        tl.store(out + LOGQ * C, _scaled(t, target, V, cap_t, scale, CAP_TEACHER) - mq - log_Sq)
        if KIND > 0:
            if OWN_T:
                m, log_S, _ = _sums(z, V, cap, scale_T, B, CAP)
                mq, log_Sq, _ = _sums(t, V, cap_t, scale_T, B, CAP_TEACHER)
            div = 0.0
            slopes = 0.0
            for start in range(0, V, B):
                at = start + tl.arange(0, B)
                logp = tl.maximum(_scaled(z, at, V, cap, scale_T, CAP) - m - log_S, LEAST)
                logq = tl.maximum(_scaled(t, at, V, cap_t, scale_T, CAP_TEACHER) - mq - log_Sq, LEAST)
                entry, w = _entries(logp, logq, b, log_b, log_1b, clamp, KIND, CLAMP)
                div += tl.sum(tl.where(at < V, entry, 0.0), 0)
                slopes += tl.sum(tl.where(at < V, w, 0.0), 0)
            tl.store(out + DIV * C, div)
            tl.store(out + SLOPES * C, slopes)
            tl.store(out + MAX_T * C, m)
            tl.store(out + LOG_SUM_T * C, log_S)
            tl.store(out + MAX_QT * C, mq)
            tl.store(out + LOG_SUM_QT * C, log_Sq)


@triton.jit
def _write_gradient(
    z, t, y, stats, c, C, V, cap, cap_t, scale, scale_T, b, log_b, log_1b, clamp,
    B: tl.constexpr, KIND: tl.constexpr, CAP: tl.constexpr, CAP_TEACHER: tl.constexpr, CLAMP: tl.constexpr,
):  # fmt: skip
    """Write c[0] d logp + c[1] d entropy + c[2] d div over d z of one row, over z; c (3, C), c[2] being divided by T
    already.
    """
    row = tl.program_id(0)
    z += row.to(tl.int64) * V
    t += row.to(tl.int64) * V
    stats += row
    target = tl.load(y + row)
    c_logp = tl.load(c + row)
    c_entropy = tl.load(c + C + row)
    c_div = tl.load(c + 2 * C + row)
    entropy = tl.load(stats + ENTROPY * C)
    m = tl.load(stats + MAX * C)
    log_S = tl.load(stats + LOG_SUM * C)
    for start in range(0, V, B):
        at = start + tl.arange(0, B)
        u = _scaled(z, at, V, cap, scale, CAP)
        logp = tl.maximum(u - m - log_S, LEAST)
        p = tl.exp(logp)
        g = c_logp * (tl.where(at == target, 1.0, 0.0) - p) - c_entropy * p * (logp + entropy)
        if KIND > 0:
            m_T = tl.load(stats + MAX_T * C)
            log_S_T = tl.load(stats + LOG_SUM_T * C)
            logq = _scaled(t, at, V, cap_t, scale_T, CAP_TEACHER)
            logq = tl.maximum(logq - tl.load(stats + MAX_QT * C) - tl.load(stats + LOG_SUM_QT * C), LEAST)
            logp = tl.maximum(_scaled(z, at, V, cap, scale_T, CAP) - m_T - log_S_T, LEAST)
            _, w = _entries(logp, logq, b, log_b, log_1b, clamp, KIND, CLAMP)
            g += c_div * (w - tl.load(stats + SLOPES * C) * tl.exp(logp))
        if CAP:
            r = tl.where(at < V, u / (scale * cap), 0.0)  # tanh(z / cap)
            g *= 1 - r * r
        tl.store(z + at, (g * scale).to(z.dtype.element_ty), mask=at < V)


def fused(z: Tensor, z_teacher: Tensor | None, y: Tensor, how: Reading, differentiable: bool):
    """Read as `closed_form` in torch.py does; the gradient overwrites z, where it takes all rows."""
    numbers, switches = _settings(how, z.shape[1])
    d = how.divergence
    stats = torch.empty(11, len(z), dtype=torch.float32, device=z.device)
    t = z if z_teacher is None else z_teacher
    own_T = d is not None and d.temperature != 1.0
    _launch(_read, z, t, y, stats, len(z), *numbers, **switches, TEACHER=z_teacher is not None, OWN_T=own_T)
    value = stats[DIV.value] if d is not None else None
    div = value if d is None or d.clamp_total is None else value.clamp(max=d.clamp_total)
    logq = stats[LOGQ.value] if z_teacher is not None else None

    def gradient(c: Coefficients, rows: Rows) -> Tensor:
        g = z[rows]
        c_div = c[2]
        if c_div is not None:
            c_div = c_div / d.temperature
            if d.clamp_total is not None:
                c_div = c_div * (value[rows] <= d.clamp_total)
        zeros = torch.zeros(len(g), dtype=torch.float32, device=z.device)
        table = torch.stack([zeros if x is None else x for x in (c[0], c[1], c_div)])
        kind = switches | {"KIND": 0 if c_div is None else switches["KIND"]}
        _launch(_write_gradient, g, t[rows], y[rows], stats[:, rows].contiguous(), table, len(g), *numbers, **kind)
        return g

    # Copies: the loss may change a signal's `requires_grad`, and all rows of a tensor share it.
    return (stats[LOGP.value].clone(), stats[ENTROPY.value].clone(), _copy(div), _copy(logq)), (
        gradient if differentiable else None
    )


def _copy(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()


def _settings(how: Reading, V: int) -> tuple[tuple, dict]:
    """Return the numbers that both kernels take after C, and what they are compiled for."""
    d = how.divergence
    T, b, clamp = (1.0, 0.5, None) if d is None else (d.temperature, d.b, d.clamp)
    scale = 1.0 / how.temperature
    caps = (how.softcap or 1.0, how.teacher_softcap or 1.0)
    numbers = (V, *caps, scale, scale / T, b, math.log(b), math.log1p(-b), 0.0 if clamp is None else clamp)
    block = min(MOST_BLOCK, triton.next_power_of_2(V))
    return numbers, {
        "B": block,
        "KIND": 0 if d is None else KINDS[d.kind],
        "CAP": how.softcap is not None,
        "CAP_TEACHER": how.teacher_softcap is not None,
        "CLAMP": clamp is not None,
        "num_warps": max(1, min(16, block // 256)),
    }


def _launch(kernel, z: Tensor, t: Tensor, y: Tensor, *arguments, **switches) -> None:
    if not (z.is_contiguous() and t.is_contiguous() and y.is_contiguous()):
        raise ValueError(f"{kernel.__name__}: rows of logits and targets must lie one after another")
    if len(z):
        kernel[(len(z),)](z, t, y, *arguments, **switches)

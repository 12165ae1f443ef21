"""The Triton kernels through Triton's interpreter, against float64; run by test_head_triton.py in a separate process.

TRITON_INTERPRET=1 has to be set before Triton is imported first. The rows are not a multiple of the block.
"""

import os
import re

import pytest
import torch

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head import torch as head_torch
from sdpg.core.head import triton as head_triton
from sdpg.core.head.api import token_signals, token_signals_backward
from tests.core.head_oracle import V, arguments, expected, inputs, logits, signals_of, weighted

assert os.environ.get("TRITON_INTERPRET") == "1"
head_triton.MOST_BLOCK = 8  # of V = 17 entries: three blocks, the last with one

CASES = {
    "no teacher": {"softcap": 2.0, "temperature": 0.7},
    "reverse": {"divergence": Divergence(kind="reverse_kl"), "temperature": 0.7},
    "forward": {"divergence": Divergence(kind="forward_kl"), "temperature": 1.3, "softcap": 2.0},
    "gjsd, T": {"divergence": Divergence(kind="gjsd", b=0.3, temperature=1.5), "softcap": 3.0, "teacher_softcap": 1.5},
    "reverse, T, clamp": {"divergence": Divergence(kind="reverse_kl", clamp=0.05, temperature=2.0), "temperature": 0.9},
    "forward, both clamps": {"divergence": Divergence(kind="forward_kl", clamp=0.2, clamp_total=0.5)},
    "gjsd, clamp": {"divergence": Divergence(kind="gjsd", clamp=0.02)},
}


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels that ran."""
    names = []
    launch = head_triton._launch
    monkeypatch.setattr(head_triton, "_launch", lambda k, *a, **b: (names.append(k.fn.__name__), launch(k, *a, **b)))
    return names


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_pass(case, launches):
    x = inputs(torch.float32)
    positional, how = arguments(x, **case)
    u = x["upstream"] * (torch.arange(len(x["targets"])) % 3 != 1)  # so that some rows are left out
    loss = lambda s, j=slice(None): weighted(s, u[:, j]) + (u[1, j] * s[0] * s[1]).sum()  # noqa: E731
    true = expected(x, **case)
    leaves = [x["hidden"], x["weight"], x["bias"]]
    want = torch.autograd.grad(loss(true[:3]), leaves)
    ours, gradient = token_signals_backward(
        *positional, lambda s, j: loss((s.logp, s.entropy, s.div), j), **how, chunk_elements=5 * V, kernel="triton"
    )
    assert launches == ["_read", "_write_gradient"] * 3
    for a, b in zip((ours.logp, ours.entropy, ours.div), true, strict=False):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a.double(), b.detach(), rtol=1e-5, atol=1e-5)
    if "divergence" in case:
        torch.testing.assert_close(ours.logq.double(), true[3], rtol=1e-5, atol=1e-5)
    for a, b in zip((gradient, x["weight"].grad, x["bias"].grad), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_two_passes(launches):
    x = inputs(torch.float32)
    positional, how = arguments(x, **CASES["gjsd, T"])
    ours = token_signals(*positional, **how, kernel="triton")
    leaves = [x["hidden"], x["weight"], x["bias"]]
    got = torch.autograd.grad(weighted((ours.logp, ours.entropy, ours.div), x["upstream"]), leaves)
    want = torch.autograd.grad(weighted(expected(x, **CASES["gjsd, T"]), x["upstream"]), leaves)
    assert launches == ["_read", "_read", "_write_gradient"]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "gjsd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_minus_infinity_and_large_ones(kind, dtype):
    """On a chunk of logits, of either precision; bf16 is read exactly, and only the gradient is rounded to it."""
    x = inputs(scale=20.0)
    u, v = (z.detach().to(dtype) for z in logits(x))
    u[:, 3:5] = v[:, 3:5] = -torch.inf
    y = torch.where((x["targets"] == 3) | (x["targets"] == 4), 0, x["targets"])
    how = head_torch.Reading(divergence=Divergence(kind=kind))
    leaf = u.double().requires_grad_()
    true = signals_of(leaf, v.double(), y, divergence=how.divergence)
    (want,) = torch.autograd.grad(weighted(true, x["upstream"]), leaf)
    got, gradient = head_triton.fused(u, v, y, how, True)
    for a, b in zip(got, true, strict=True):
        torch.testing.assert_close(a.double(), b.detach(), rtol=1e-5, atol=1e-4)
    g = gradient(tuple(c.float() for c in x["upstream"]), slice(None))
    assert g.dtype == dtype and g.data_ptr() == u.data_ptr()
    tolerance = 1e-4 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(g.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("V", [1, 8, 31])
def test_the_two_kernels_and_plain_torch_agree_whatever_the_blocks(V):
    """A row that is one entry, exactly one block, nearly four."""
    g = torch.Generator().manual_seed(0)
    z, t = (3 * torch.randn(3, V, generator=g) for _ in range(2))
    y, c = torch.randint(0, V, (3,), generator=g), tuple(torch.randn(3, 3, generator=g))
    how = head_torch.Reading(0.8, 5.0, 4.0, Divergence(kind="gjsd", temperature=0.5))
    plain, plain_gradient = head_torch.closed_form(z.clone(), t.clone(), y, how, True)
    fused, fused_gradient = head_triton.fused(z.clone(), t.clone(), y, how, True)
    for a, b in zip((*plain, plain_gradient(c, slice(None))), (*fused, fused_gradient(c, slice(None))), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_what_it_does_not_take_is_refused():
    x = inputs(torch.float32)
    positional, how = arguments(x, divergence=Divergence(top_k=3))
    with pytest.raises(ValueError, match=re.escape("kernel='triton'")):
        token_signals(*positional, **how, kernel="triton")

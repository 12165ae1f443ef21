"""The chunked head against a version that materialises everything in float64."""

import pytest
import torch

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head import Head, token_signals, token_signals_backward

M, D, V = 13, 6, 17


def inputs(dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    return {
        "hidden": make(M, D).requires_grad_(),
        "weight": make(V, D).requires_grad_(),
        "bias": make(V).requires_grad_(),
        "teacher": make(M, D).requires_grad_(),
        "targets": torch.randint(0, V, (M,), generator=g),
        "upstream": make(2, M),
    }


def materialised(x, *, temperature, softcap, divergence):
    """log p of the target, entropy and divergence straight from their definitions."""

    def logprobs(hidden):
        logits = (hidden.double() @ x["weight"].double().T + x["bias"].double()).double()
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        return torch.log_softmax(logits / temperature, -1)

    p, q = logprobs(x["hidden"]), logprobs(x["teacher"]).detach()
    kl = lambda a, b: (a.exp() * (a - b)).sum(-1)  # noqa: E731
    m = (0.5 * p.exp() + 0.5 * q.exp()).log()
    div = {"reverse_kl": kl(p, q), "forward_kl": kl(q, p), "gjsd": 0.5 * kl(q, m) + 0.5 * kl(p, m)}[divergence]
    return p[torch.arange(M), x["targets"]], -(p.exp() * p).sum(-1), div


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "gjsd"])
@pytest.mark.parametrize("chunk_elements", [2**20, 3 * V, 1])
@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (0.7, None), (1.3, 2.0)])
def test_values_and_gradients_for_any_upstream_gradient(divergence, chunk_elements, temperature, softcap):
    x = inputs()
    head = Head(x["weight"], x["bias"], softcap)
    how = {"temperature": temperature, "divergence": Divergence(kind=divergence), "chunk_elements": chunk_elements}
    ours = token_signals(x["hidden"], head, x["targets"], teacher_hidden=x["teacher"], teacher_head=head, **how)
    logp, entropy, div = ours.logp, ours.entropy, ours.div
    true = materialised(x, temperature=temperature, softcap=softcap, divergence=divergence)
    for ours, expected in zip((logp, entropy, div), true, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    assert not entropy.requires_grad
    leaves = [x["hidden"], x["weight"], x["bias"]]
    gradients = [
        torch.autograd.grad((a * x["upstream"][0]).sum() + (b * x["upstream"][1]).sum(), leaves)
        for a, b in ((logp, div), (true[0], true[2]))
    ]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_no_gradient_reaches_the_teacher():
    x = inputs()
    head = Head(x["weight"])
    ours = token_signals(
        x["hidden"], head, x["targets"], divergence=Divergence(), teacher_hidden=x["teacher"], teacher_head=head
    )
    assert torch.autograd.grad(ours.div.sum(), x["teacher"], allow_unused=True) == (None,)
    assert not ours.logq.requires_grad


@pytest.mark.parametrize("chunk_elements", [2**20, 3 * V])
def test_the_teachers_log_prob_of_the_target_also_without_a_divergence(chunk_elements):
    x = inputs()
    head = Head(x["weight"])
    how = {"teacher_hidden": x["teacher"], "teacher_head": head, "chunk_elements": chunk_elements}
    ours = token_signals(x["hidden"], head, x["targets"], **how)
    expected = torch.log_softmax(x["teacher"] @ x["weight"].T, -1)[torch.arange(M), x["targets"]]
    torch.testing.assert_close(ours.logq, expected.detach())
    assert ours.div is None


def test_bf16_hidden_states_are_measured_in_float32():
    x = inputs(torch.bfloat16)
    ours = token_signals(x["hidden"], Head(x["weight"]), x["targets"])
    assert ours.logp.dtype == ours.entropy.dtype == torch.float32


def test_a_divergence_without_a_teacher_is_refused():
    x = inputs()
    with pytest.raises(ValueError, match="needs teacher_hidden"):
        token_signals(x["hidden"], Head(x["weight"]), x["targets"], divergence=Divergence())


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "gjsd"])
@pytest.mark.parametrize("chunk_elements", [2**20, 3 * V, 1])
def test_the_backward_in_chunks_is_that_of_the_whole(divergence, chunk_elements):
    """Gradients and signals of a loss with arbitrary upstream gradients per token, against float64 autograd over all tokens."""
    x = inputs()
    head = Head(x["weight"], x["bias"], 2.0)
    upstream = x["upstream"]
    how = {"temperature": 0.7, "divergence": Divergence(kind=divergence), "chunk_elements": chunk_elements}
    ours, gradient = token_signals_backward(
        x["hidden"],
        head,
        x["targets"],
        lambda s, j: (upstream[0, j] * s.logp.exp()).sum() + (upstream[1, j] * s.div**2).sum(),
        teacher_hidden=x["teacher"],
        teacher_head=head,
        **how,
    )
    logp, entropy, div = materialised(x, temperature=0.7, softcap=2.0, divergence=divergence)
    for got, expected in zip((ours.logp, ours.entropy, ours.div), (logp, entropy, div), strict=True):
        assert not got.requires_grad
        torch.testing.assert_close(got, expected.detach(), rtol=1e-10, atol=1e-12)
    loss = (upstream[0] * logp.exp()).sum() + (upstream[1] * div**2).sum()
    expected = torch.autograd.grad(loss, [x["hidden"], x["weight"], x["bias"]])
    for got, want in zip((gradient, x["weight"].grad, x["bias"].grad), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert x["teacher"].grad is None


def test_a_loss_without_gradient_has_none():
    x = inputs()
    _, gradient = token_signals_backward(
        x["hidden"], Head(x["weight"]), x["targets"], lambda s, j: 0 * s.entropy.sum(), chunk_elements=2 * V
    )
    assert gradient is None
    assert x["weight"].grad is None

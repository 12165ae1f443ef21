"""Advantages, divergences, anchors, schedule, clipping and reduction against the equations they come from."""

import math

import numpy as np
import pytest
import torch

from sdpg.algorithms.advantages import group_normalised
from sdpg.algorithms.anchors import ANCHORS, k3
from sdpg.algorithms.divergences import Divergence
from sdpg.algorithms.reduce import token_weights
from sdpg.algorithms.schedules import trapezoid
from sdpg.algorithms.surrogates import clipped


def random_logp(*shape, seed=0):
    return torch.log_softmax(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), -1)


def test_advantages_are_equation_2_1():
    rewards = [[1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    expected = [[(r - np.mean(g)) / (np.std(g, ddof=1) + 1e-6) for r in g] for g in rewards]
    torch.testing.assert_close(group_normalised(torch.tensor(rewards)), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_advantages_of_a_group_with_equal_rewards_are_exactly_zero(reward):
    assert (group_normalised(torch.full((2, 7), reward)) == 0).all()


def test_advantages_need_a_group():
    with pytest.raises(ValueError, match=r"G >= 2.*\(3, 1\)"):
        group_normalised(torch.zeros(3, 1))


def kl(a, b):
    return (a * np.log(a / b)).sum(-1)


def test_divergences_equal_their_sums():
    logp, logq = random_logp(3, 6, seed=1), random_logp(3, 6, seed=2)
    p, q = logp.exp().numpy(), logq.exp().numpy()
    np.testing.assert_allclose(Divergence(kind="reverse_kl")(logp, logq), kl(p, q), rtol=1e-12)
    np.testing.assert_allclose(Divergence(kind="forward_kl")(logp, logq), kl(q, p), rtol=1e-12)
    for b in (0.1, 0.5, 0.9):
        m = (1 - b) * p + b * q
        expected = b * kl(q, m) + (1 - b) * kl(p, m)
        np.testing.assert_allclose(Divergence(kind="gjsd", b=b)(logp, logq), expected, rtol=1e-12)


def test_gjsd_is_bounded_symmetric_at_one_half_and_refuses_its_limits():
    logp, logq = random_logp(4, 9, seed=3), random_logp(4, 9, seed=4)
    half = Divergence(kind="gjsd", b=0.5)
    torch.testing.assert_close(half(logp, logq), half(logq, logp))
    assert (half(logp * 1.0, logq) <= math.log(2)).all()
    with pytest.raises(ValueError, match="0 < b < 1"):
        Divergence(kind="gjsd", b=1.0)
    with pytest.raises(ValueError, match="got 'kl'"):
        Divergence(kind="kl")


def test_a_temperature_softens_both():
    logits_p, logits_q = random_logp(3, 6, seed=1), random_logp(3, 6, seed=2)
    p, q = (torch.softmax(x / 1.1, -1).numpy() for x in (logits_p, logits_q))
    np.testing.assert_allclose(Divergence(temperature=1.1)(logits_p, logits_q), kl(p, q), rtol=1e-12)


def test_top_k_takes_the_students_entries_and_the_tail_is_one_more():
    logp, logq = random_logp(3, 6, seed=1), random_logp(3, 6, seed=2)
    p, q = logp.exp().numpy(), logq.exp().numpy()
    partial, buckets = [], []
    for a, b in zip(p, q, strict=True):
        top = np.argsort(-a)[:2]
        partial.append(sum(a[i] * np.log(a[i] / b[i]) for i in top))
        buckets.append(kl(np.append(a[top], 1 - a[top].sum()), np.append(b[top], 1 - b[top].sum())))
    np.testing.assert_allclose(Divergence(top_k=2)(logp, logq), partial, rtol=1e-12)
    np.testing.assert_allclose(Divergence(top_k=2, tail=True)(logp, logq), buckets, rtol=1e-9)
    for k in (6, 100):  # nothing is left for a tail
        torch.testing.assert_close(Divergence(top_k=k, tail=True)(logp, logq), Divergence()(logp, logq))


def test_clamp_total_is_of_the_sum():
    logp, logq = random_logp(3, 6, seed=1), 5 * random_logp(3, 6, seed=2)
    exact = Divergence()(logp, logq)
    limit = exact.median().item()
    torch.testing.assert_close(Divergence(clamp_total=limit)(logp, logq), exact.clamp(max=limit))


def test_clamp_is_by_entry_before_the_sum():
    logp, logq = random_logp(3, 6, seed=1), random_logp(3, 6, seed=2)
    p, q = logp.exp().numpy(), logq.exp().numpy()
    expected = np.minimum(q * np.log(q / p), 0.05).sum(-1)
    np.testing.assert_allclose(Divergence(kind="forward_kl", clamp=0.05)(logp, logq), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("ufkl", lambda p, r: (r * (r / p).log() - r + p).sum()),
        ("urkl", lambda p, r: (p * (p / r).log() - p + r).sum()),
        ("fkl", lambda p, r: (r * (r / p).log()).sum()),
        ("rkl", lambda p, r: (p * (p / r).log()).sum()),
    ],
)
def test_expected_gradient_of_each_anchor_is_the_gradient_of_its_divergence(name, divergence):
    """Section 3.4, A.2: E over a ~ SG[p] of grad surrogate(log w(a)) = grad D, by enumerating the vocabulary."""
    logits = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(5), requires_grad=True)
    ref = random_logp(6, seed=6)
    logp = torch.log_softmax(logits, -1)
    expected_loss = (logp.detach().exp() * ANCHORS[name](logp - ref)).sum()
    (ours,) = torch.autograd.grad(expected_loss, logits, retain_graph=True)
    (true,) = torch.autograd.grad(divergence(logp.exp(), ref.exp()), logits)
    torch.testing.assert_close(ours, true, rtol=1e-10, atol=1e-12)
    assert true.abs().max() > 1e-3


def test_k3_is_an_unbiased_value_of_the_kl():
    logp, ref = random_logp(7, seed=7), random_logp(7, seed=8)
    torch.testing.assert_close((logp.exp() * k3(logp - ref)).sum(), Divergence()(logp, ref))


def test_proposition_3_1_the_distillation_gradient_is_a_policy_gradient():
    logits = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(9), requires_grad=True)
    logp, logq = torch.log_softmax(logits, -1), random_logp(8, seed=10)
    D = Divergence()(logp, logq)
    A = (D - (logp - logq)).detach()
    (direct,) = torch.autograd.grad(D, logits, retain_graph=True)
    (policy,) = torch.autograd.grad(-(logp.detach().exp() * A * logp).sum(), logits)
    torch.testing.assert_close(direct, policy, rtol=1e-10, atol=1e-12)
    assert abs((logp.detach().exp() * A).sum().item()) < 1e-14


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 50), (25, 0.5), (50, 1.0), (225, 0.5), (399, 1 / 350), (400, 0.0)])
def test_beta_schedule_of_the_paper(k, share):
    assert trapezoid(k, peak=1e-3, T=400, T_warm=50, T_decay=350) == pytest.approx(1e-3 * share)


def test_schedule_without_ramps_is_constant():
    assert {trapezoid(k, peak=0.3, T=10, T_warm=0, T_decay=0) for k in range(1, 11)} == {0.3}


@pytest.mark.parametrize("A", [2.0, -2.0])
@pytest.mark.parametrize("rho", [0.1, 0.79, 0.81, 1.0, 1.19, 1.21, 1.29, 5.0, 50.0])
def test_clipped_surrogate_is_a_3(A, rho):
    inner = max(-A * rho, -A * min(max(rho, 0.8), 1.28))
    expected = min(inner, -A * 10.0) if A < 0 else inner
    ours = clipped(torch.tensor(rho), torch.tensor(A), low=0.2, high=0.28, dual=10.0)
    assert ours.item() == pytest.approx(expected, rel=1e-6)
    assert clipped(torch.tensor(rho), torch.tensor(A), low=0.2, high=0.28).item() == pytest.approx(inner, rel=1e-6)


def test_token_weights_sum_to_one_and_follow_their_definition():
    length = torch.tensor([[3, 5], [1, 7]])
    group = token_weights(length, "group", prompts=2, tokens=16)
    torch.testing.assert_close(group, torch.tensor([[1 / 16, 1 / 16], [1 / 16, 1 / 16]]))
    length = torch.tensor([[3, 5], [1, 1]])
    group = token_weights(length, "group", prompts=2, tokens=10)
    torch.testing.assert_close(group, torch.tensor([[1 / 16, 1 / 16], [1 / 4, 1 / 4]]))
    batch = token_weights(length, "batch", prompts=2, tokens=10)
    sequence = token_weights(length, "sequence", prompts=2, tokens=10)
    torch.testing.assert_close(sequence, torch.tensor([[1 / 12, 1 / 20], [1 / 4, 1 / 4]]))
    constant = token_weights(length, "constant", prompts=2, tokens=10, max_tokens=8)
    torch.testing.assert_close(constant, torch.full((2, 2), 1 / 32))
    for w in (group, batch, sequence):
        assert (w * length).sum().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="choose group, batch, sequence, constant or micro-batch"):
        token_weights(length, "mean", prompts=2, tokens=10)

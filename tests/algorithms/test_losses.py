"""Every method's loss, by value and by gradient with respect to the logits, against plain float64 loops over the equation.

The reference walks over responses and tokens in Python and calls none of the project's code; `distribution` is its only
helper. Shapes: N = 2 prompts, G = 3 responses of 1 to 4 tokens, V = 5 entries.
"""

import math

import pytest
import torch

import baselines
from sdpg.algorithms.base import Signals
from sdpg.algorithms.divergences import DIVERGENCES
from sdpg.algorithms.reduce import token_weights

N, G, V = 2, 3, 5
LENGTHS = [[4, 1, 2], [3, 3, 1]]
REWARDS = {
    "mixed": [[1, 0, 0], [0, 1, 1]],
    "one group equal": [[1, 1, 1], [0, 1, 0]],
    "all equal": [[0, 0, 0], [1, 1, 1]],
}
K = 30


class World:
    """Random logits of student (leaf), teacher, reference and old policy for every token, and the sampled tokens."""

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        shape = (N * G, 4, V)
        self.student = torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
        self.teacher, self.ref, self.old = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(3))
        self.old = self.student.detach() + 0.4 * self.old
        self.token = torch.randint(0, V, (N * G, 4), generator=g)
        self.length = [n for group in LENGTHS for n in group]


def distribution(logits, b, t):
    return torch.log_softmax(logits[b, t], -1)


def advantage(rewards, i):
    group = rewards[i // G]
    mean = sum(group) / G
    std = math.sqrt(sum((r - mean) ** 2 for r in group) / (G - 1))
    return 0.0 if std == 0 else (group[i % G] - mean) / (std + 1e-6)


def reference_loss(world, rewards, per_token, reduction="group"):
    """Sum over tokens of weight x per_token(A, log-probs of the vocabulary and of the token), section 2 and Eq. (3.1)."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(N * G):
        n = i // G
        weight = 1 / (N * sum(LENGTHS[n])) if reduction == "group" else 1 / sum(world.length)
        for t in range(world.length[i]):
            y = int(world.token[i, t])
            p, q, r, o = (distribution(x, i, t) for x in (world.student, world.teacher, world.ref, world.old))
            total = total + weight * per_token(advantage(rewards, i), p, q.detach(), r[y], o[y], y)
    return total


def project_loss(world, rewards, algorithm, k=K, *, old=False, reduction="group"):
    """The same through the project's method, signals and reduction (one micro-batch of all responses)."""
    logp_all, logq_all = torch.log_softmax(world.student, -1), torch.log_softmax(world.teacher, -1)
    y = world.token[..., None]
    mask = torch.zeros(N * G, 4, dtype=torch.float64)
    for i, n in enumerate(world.length):
        mask[i, :n] = 1
    A = algorithm.advantages(torch.tensor(rewards, dtype=torch.float64)).reshape(-1, 1)
    needs = algorithm.needs(k)
    logp = logp_all.gather(-1, y)[..., 0] * mask
    div = None
    if needs.teacher is not None:
        gate = (A > 0) if needs.gate == "positive" else torch.ones_like(A)
        div = DIVERGENCES[needs.divergence](logp_all, logq_all) * mask * gate
    s = Signals(
        logp=logp,
        logp_old=torch.log_softmax(world.old, -1).gather(-1, y)[..., 0] * mask if old else logp.detach(),
        entropy=torch.zeros_like(mask),
        mask=mask,
        logp_ref=torch.log_softmax(world.ref, -1).gather(-1, y)[..., 0] * mask if needs.reference else None,
        div=div,
    )
    length = torch.tensor(LENGTHS)
    w = token_weights(length, reduction, prompts=N, tokens=int(length.sum())).reshape(-1, 1).double()
    return sum((w * mask * term).sum() for term in algorithm.token_loss(s, A, k).values())


def anchor(name, logw):
    return {
        "ufkl": torch.exp(-logw) + logw,
        "urkl": logw**2 / 2,
        "fkl": torch.exp(-logw),
        "rkl": (logw + 1) ** 2 / 2,
    }[name]


def beta(k, peak, T=100, warm=20, decay=50):
    return peak * min(1, k / warm) * min(1, (T - k) / decay)


def compare(world, rewards, algorithm, per_token, **how):
    reduction = how.get("reduction", "group")
    ours = project_loss(world, rewards, algorithm, **how)
    true = reference_loss(world, rewards, per_token, reduction)
    assert ours.item() == pytest.approx(true.item(), rel=1e-6, abs=1e-9)
    gradient = [torch.autograd.grad(x, world.student)[0] if x.requires_grad else torch.zeros(1) for x in (ours, true)]
    scale = gradient[1].abs().max().item()
    assert (gradient[0] - gradient[1]).abs().max().item() <= 1e-6 * scale + 1e-12
    return scale


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("name", ["ufkl", "urkl", "fkl", "rkl"])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("reduction", ["group", "batch"])
def test_sdpg_on_policy_is_equation_3_1(rewards, name, gate, reduction):
    b = beta(K, 0.7)
    algorithm = baselines.make("sdpg", T=100, T_warm=20, T_decay=50, beta_base=0.7, alpha=0.3, anchor=name, gate=gate)

    def per_token(A, p, q, r, o, y):
        kl = (p.exp() * (p - q)).sum() if A > 0 or not gate else 0.0
        return -A * p[y] + b * kl + 0.3 * anchor(name, p[y] - r)

    scale = compare(World(), rewards, algorithm, per_token, reduction=reduction)
    assert scale > 1e-3


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
def test_sdpg_off_policy_is_a_3(rewards):
    algorithm = baselines.make(
        "sdpg", T=100, T_warm=20, T_decay=50, beta_base=0.7, alpha=0.3, anchor="urkl", off_policy=True, clip_dual=1.5
    )

    def per_token(A, p, q, r, o, y):
        rho = torch.exp(p[y] - o)
        loss = torch.maximum(-A * rho, -A * rho.clamp(0.8, 1.28))
        if A < 0:
            loss = torch.minimum(loss, torch.tensor(-A * 1.5, dtype=torch.float64))
        kl = (p.exp() * (p - q)).sum() if A > 0 else 0.0
        return loss + rho.detach() * (beta(K, 0.7) * kl + 0.3 * (p[y] - r) ** 2 / 2)

    compare(World(1), rewards, algorithm, per_token, old=True)


def test_at_rho_one_the_off_policy_form_has_the_gradient_of_the_on_policy_one():
    world, rewards = World(2), REWARDS["mixed"]
    fields = {"T": 100, "T_warm": 20, "T_decay": 50, "beta_base": 0.5, "alpha": 0.2}
    on = project_loss(world, rewards, baselines.make("sdpg", **fields))
    off = project_loss(world, rewards, baselines.make("sdpg", off_policy=True, **fields))
    torch.testing.assert_close(*(torch.autograd.grad(x, world.student)[0] for x in (on, off)))


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("old", [True, False])
def test_grpo_is_the_clipped_surrogate_with_a_k3_penalty(rewards, old):
    def per_token(A, p, q, r, o, y):
        rho = torch.exp(p[y] - (o if old else p[y].detach()))
        w = torch.exp(p[y] - r)
        return -torch.minimum(rho * A, rho.clamp(0.8, 1.2) * A) + 0.05 * (1 / w - 1 + torch.log(w))

    compare(World(3), rewards, baselines.make("grpo", kl_coef=0.05), per_token, old=old)


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
def test_opcd_is_the_reverse_kl_on_every_response_whatever_the_rewards(rewards):
    compare(World(4), rewards, baselines.make("opcd"), lambda A, p, q, r, o, y: (p.exp() * (p - q)).sum())


@pytest.mark.parametrize(("name", "zero"), [("sdpg", "alpha"), ("sdpg", "beta_base"), ("grpo", "kl_coef")])
def test_a_weight_of_zero_is_bit_equal_to_leaving_the_term_out(name, zero):
    world, rewards = World(5), REWARDS["mixed"]
    fields = {"T": 100, "T_warm": 20, "T_decay": 50} if name == "sdpg" else {}
    algorithm = baselines.make(name, **fields, **{zero: 0.0})
    needs = algorithm.needs(K)
    assert needs.reference == (zero == "beta_base")
    assert (needs.teacher is None) == (name == "grpo" or zero == "beta_base")
    terms = algorithm.__class__(**{**fields, zero: 0.5})
    (with_zero,) = torch.autograd.grad(project_loss(world, rewards, algorithm), world.student)

    class LeftOut:
        advantages, needs = staticmethod(terms.advantages), staticmethod(terms.needs)
        term = {"alpha": "anchor", "kl_coef": "anchor", "beta_base": "distillation"}[zero]

        @staticmethod
        def token_loss(s, A, k):
            loss = terms.token_loss(s, A, k)
            assert LeftOut.term in loss
            return {key: value for key, value in loss.items() if key != LeftOut.term}

    (without,) = torch.autograd.grad(project_loss(world, rewards, LeftOut), world.student)
    assert torch.equal(with_zero, without)


def test_on_policy_ufkl_without_distillation_has_the_gradient_of_grpo_with_k3():
    world, rewards = World(6), REWARDS["mixed"]
    sdpg = project_loss(world, rewards, baselines.make("sdpg", beta_base=0.0, alpha=0.1, anchor="ufkl"))
    grpo = project_loss(world, rewards, baselines.make("grpo", kl_coef=0.1))
    torch.testing.assert_close(*(torch.autograd.grad(x, world.student)[0] for x in (sdpg, grpo)))

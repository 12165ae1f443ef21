"""Every method's loss, by value and by gradient with respect to the logits, against plain float64 loops over the equation.

The reference walks over responses and tokens in Python and calls none of the project's code; `distribution` is its only
helper. Shapes: N = 2 prompts, G = 3 responses of 1 to 4 tokens, V = 5 entries.
"""

import math

import pytest
import torch

import baselines
from sdpg.algorithms.base import Signals
from sdpg.algorithms.reduce import token_weights

N, G, V = 2, 3, 5
LENGTHS = [[4, 1, 2], [3, 3, 1]]
REWARDS = {"mixed": [[1, 0, 0], [0, 1, 1]], "one group equal": [[1, 1, 1], [0, 1, 0]], "all equal": [[0, 0, 0], [1, 1, 1]]}
K = 30


class World:
    """Random logits of student (leaf), teacher, reference and old policy for every token, and the sampled tokens."""

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        shape = (N * G, 4, V)
        self.student = torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
        self.teacher, self.ref, self.old = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(3))
        self.old = self.student.detach() + 0.4 * self.old
        self.rollout = self.old + 0.1 * torch.randn(shape, generator=g, dtype=torch.float64)
        self.token = torch.randint(0, V, (N * G, 4), generator=g)
        self.length = [n for group in LENGTHS for n in group]


def distribution(logits, b, t):
    return torch.log_softmax(logits[b, t], -1)


def advantage(rewards, i, normalise=True):
    group = rewards[i // G]
    mean = sum(group) / G
    if not normalise:
        return group[i % G] - mean
    std = math.sqrt(sum((r - mean) ** 2 for r in group) / (G - 1))
    return 0.0 if std == 0 else (group[i % G] - mean) / (std + 1e-6)


class Token:
    """What the equations speak of at one token: log-probs of the vocabulary (p, q) and of the sampled token."""

    def __init__(self, world, i, t):
        y = self.y = int(world.token[i, t])
        self.p, self.q = distribution(world.student, i, t), distribution(world.teacher, i, t).detach()
        self.logp, self.logq = self.p[y], self.q[y]
        self.ref, self.old, self.rollout = (distribution(x, i, t)[y] for x in (world.ref, world.old, world.rollout))
        self.last = t == world.length[i] - 1
        self.response = i

    def kl(self, a, b):
        return (a.exp() * (a - b)).sum()


def reference_loss(world, rewards, per_token, reduction="group", std=True):
    """Sum over tokens of weight x per_token(A, token), section 2 and Eq. (3.1)."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(N * G):
        n = i // G
        for t in range(world.length[i]):
            weight = {
                "group": 1 / (N * sum(LENGTHS[n])),
                "batch": 1 / sum(world.length),
                "sequence": 1 / (N * G * world.length[i]),
                "constant": 1 / (N * G * 4),
            }[reduction]
            total = total + weight * per_token(advantage(rewards, i, std), Token(world, i, t))
    return total


def project_loss(world, rewards, algorithm, k=K, *, old=False, reduction="group", has_teacher=None):
    """The same through the project's method, signals and reduction (one micro-batch of all responses)."""
    logp_all, logq_all = torch.log_softmax(world.student, -1), torch.log_softmax(world.teacher, -1)
    y = world.token[..., None]
    mask = torch.zeros(N * G, 4, dtype=torch.float64)
    for i, n in enumerate(world.length):
        mask[i, :n] = 1
    A = algorithm.advantages(torch.tensor(rewards, dtype=torch.float64)).reshape(-1, 1)
    needs = algorithm.needs(k)

    def of_token(logits):
        return torch.log_softmax(logits, -1).gather(-1, y)[..., 0] * mask

    logp = of_token(world.student)
    gate = {"all": torch.ones_like(A), "positive": A > 0, "nonzero": A != 0}[needs.gate]
    if has_teacher is not None:
        gate = gate * torch.tensor(has_teacher).reshape(-1, 1)
    stop = torch.zeros_like(mask)
    for i, n in enumerate(world.length):
        stop[i, n - 1] = 1
    s = Signals(
        logp=logp,
        logp_old=of_token(world.old) if old else logp.detach(),
        logp_rollout=of_token(world.rollout),
        entropy=torch.zeros_like(mask),
        mask=mask,
        stop=stop,
        logp_ref=of_token(world.ref) if needs.reference else None,
        div=needs.divergence(logp_all, logq_all) * mask * gate if needs.divergence else None,
        logq=of_token(world.teacher) * gate if needs.teacher_logp else None,
    )
    length = torch.tensor(LENGTHS)
    w = token_weights(length, reduction, prompts=N, tokens=int(length.sum()), max_tokens=4).reshape(-1, 1).double()
    return sum((w * mask * term).sum() for term in algorithm.token_loss(s, A, k).values())


def anchor(name, logw):
    return {"ufkl": torch.exp(-logw) + logw, "urkl": logw**2 / 2, "fkl": torch.exp(-logw), "rkl": (logw + 1) ** 2 / 2}[name]


def beta(k, peak, T=100, warm=20, decay=50):
    return peak * min(1, k / warm) * min(1, (T - k) / decay)


def compare(world, rewards, algorithm, per_token, std=True, **how):
    ours = project_loss(world, rewards, algorithm, **how)
    true = reference_loss(world, rewards, per_token, how.get("reduction", "group"), std)
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

    def per_token(A, x):
        kl = x.kl(x.p, x.q) if A > 0 or not gate else 0.0
        return -A * x.logp + b * kl + 0.3 * anchor(name, x.logp - x.ref)

    scale = compare(World(), rewards, algorithm, per_token, reduction=reduction)
    assert scale > 1e-3


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("sg_rho", [True, False])
def test_sdpg_off_policy_is_a_3(rewards, sg_rho):
    schedule = {"T": 100, "T_warm": 20, "T_decay": 50, "beta_base": 0.7}
    clipping = {"off_policy": True, "clip_dual": 1.5, "sg_rho": sg_rho}
    algorithm = baselines.make("sdpg", alpha=0.3, anchor="urkl", **schedule, **clipping)

    def per_token(A, x):
        rho = torch.exp(x.logp - x.old)
        loss = torch.maximum(-A * rho, -A * rho.clamp(0.8, 1.28))
        if A < 0:
            loss = torch.minimum(loss, torch.tensor(-A * 1.5, dtype=torch.float64))
        kl = x.kl(x.p, x.q) if A > 0 else 0.0
        return loss + (rho.detach() if sg_rho else 1.0) * (beta(K, 0.7) * kl + 0.3 * (x.logp - x.ref) ** 2 / 2)

    compare(World(1), rewards, algorithm, per_token, old=True)


def test_at_rho_one_the_off_policy_form_has_the_gradient_of_the_on_policy_one():
    world, rewards = World(2), REWARDS["mixed"]
    fields = {"T": 100, "T_warm": 20, "T_decay": 50, "beta_base": 0.5, "alpha": 0.2}
    on = project_loss(world, rewards, baselines.make("sdpg", **fields))
    off = project_loss(world, rewards, baselines.make("sdpg", off_policy=True, **fields))
    torch.testing.assert_close(*(torch.autograd.grad(x, world.student)[0] for x in (on, off)))


def test_options_of_any_term_truncated_importance_sampling_and_stop_token_exclusion():
    algorithm = baselines.make("sdpg", T=100, T_warm=0, T_decay=0, beta_base=0.7, alpha=0.0, tis_cap=1.05, exclude_stop=True)

    def per_token(A, x):
        weight = torch.exp(x.old - x.rollout).clamp(max=1.05)
        kl = x.kl(x.p, x.q) if A > 0 and not x.last else 0.0
        return -A * weight * x.logp + 0.7 * kl

    compare(World(7), REWARDS["mixed"], algorithm, per_token, old=True)


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("old", [True, False])
def test_grpo_is_the_clipped_surrogate_with_a_k3_penalty(rewards, old):
    def per_token(A, x):
        rho = torch.exp(x.logp - (x.old if old else x.logp.detach()))
        w = torch.exp(x.logp - x.ref)
        return -torch.minimum(rho * A, rho.clamp(0.8, 1.2) * A) + 0.05 * (1 / w - 1 + torch.log(w))

    compare(World(3), rewards, baselines.make("grpo", kl_coef=0.05), per_token, old=old)


def test_dapo_dr_grpo_and_gspo_are_settings_of_grpo():
    world, rewards = World(8), REWARDS["mixed"]

    def dapo(A, x):
        rho = torch.exp(x.logp - x.old)
        return -torch.minimum(rho * A, rho.clamp(0.8, 1.28) * A)

    compare(world, rewards, baselines.make("grpo", kl_coef=0.0, clip_high=0.28), dapo, old=True, reduction="batch")

    def dr_grpo(A, x):
        rho = torch.exp(x.logp - x.old)
        return -torch.minimum(rho * A, rho.clamp(0.8, 1.2) * A)

    algorithm = baselines.make("grpo", kl_coef=0.0, normalise_std=False)
    compare(world, rewards, algorithm, dr_grpo, std=False, old=True, reduction="constant")

    def gspo(A, x):
        tokens = [Token(world, x.response, t) for t in range(world.length[x.response])]
        ratio = torch.exp(sum(y.logp - y.old for y in tokens) / len(tokens))
        return -torch.minimum(ratio * A, ratio.clamp(0.97, 1.04) * A)

    algorithm = baselines.make("grpo", kl_coef=0.0, ratio="sequence", clip_low=0.03, clip_high=0.04)
    compare(world, rewards, algorithm, gspo, old=True, reduction="sequence")


def test_grpo_with_imitation_of_its_positive_responses():
    def per_token(A, x):
        return -A * torch.exp(x.logp - x.logp.detach()) - (0.2 * x.logp if A > 0 else 0.0)

    compare(World(9), REWARDS["mixed"], baselines.make("grpo", kl_coef=0.0, imitation=0.2), per_token)


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize(("lam", "decay", "now"), [(0.5, None, 0.5), (0.8, 60, 0.4)])
def test_rlsd_re_weights_the_advantage_token_by_token(rewards, lam, decay, now):
    def per_token(A, x):
        u = torch.exp(math.copysign(1, A) * (x.logq - x.logp)).detach() if A else torch.tensor(1.0)
        hat = A * ((1 - now) + now * u.clamp(0.8, 1.2))
        rho, w = torch.exp(x.logp - x.old), torch.exp(x.logp - x.ref)
        return -torch.minimum(rho * hat, rho.clamp(0.8, 1.2) * hat) + 0.05 * (1 / w - 1 + torch.log(w))

    algorithm = baselines.make("rlsd", lam=lam, lam_decay=decay, kl_coef=0.05)
    compare(World(10), rewards, algorithm, per_token, old=True)


def test_rlsd_with_lambda_zero_is_grpo_also_after_its_decay():
    world, rewards = World(11), REWARDS["mixed"]
    grpo = project_loss(world, rewards, baselines.make("grpo"), old=True)
    for algorithm in (baselines.make("rlsd", lam=0.0), baselines.make("rlsd", lam_decay=K)):
        assert algorithm.needs(K).teacher is None
        rlsd = project_loss(world, rewards, algorithm, old=True)
        assert torch.equal(*(torch.autograd.grad(x, world.student, retain_graph=True)[0] for x in (rlsd, grpo)))


@pytest.mark.parametrize("rewards", REWARDS.values(), ids=REWARDS)
def test_opcd_is_the_reverse_kl_on_every_response_whatever_the_rewards(rewards):
    compare(World(4), rewards, baselines.make("opcd"), lambda A, x: x.kl(x.p, x.q))


def test_opcd_in_its_original_form_takes_the_students_top_entries_and_a_fixed_teacher():
    def per_token(A, x):
        top = x.p.topk(2).indices
        return (x.p[top].exp() * (x.p[top] - x.q[top])).sum()

    algorithm = baselines.make("opcd", top_k=2, teacher="frozen")
    assert algorithm.needs(1).teacher == "frozen"
    compare(World(12), REWARDS["mixed"], algorithm, per_token)


def test_sdpg_with_every_gate_open_and_nothing_else_is_opcd():
    world, rewards = World(13), REWARDS["mixed"]
    sdpg = baselines.make("sdpg", beta_base=1.0, T_warm=0, T_decay=0, alpha=0.0, gate=False)
    equal = [[1.0] * G] * N  # no advantage, so no outcome term
    ours, opcd = project_loss(world, equal, sdpg), project_loss(world, rewards, baselines.make("opcd"))
    torch.testing.assert_close(*(torch.autograd.grad(x, world.student)[0] for x in (ours, opcd)))


@pytest.mark.parametrize("clamp", [None, 0.05])
@pytest.mark.parametrize("kind", ["gjsd", "forward_kl"])
def test_opsd_is_a_softened_divergence_with_clamped_entries(kind, clamp):
    def per_token(A, x):
        p, q = (torch.log_softmax(y / 1.1, -1) for y in (x.p, x.q))
        m = (0.5 * p.exp() + 0.5 * q.exp()).log()
        halves = 0.5 * q.exp() * (q - m) + 0.5 * p.exp() * (p - m)
        entries = halves if kind == "gjsd" else q.exp() * (q - p)
        return (entries if clamp is None else entries.clamp(max=clamp)).sum()

    algorithm = baselines.make("opsd", kind=kind, clamp=clamp)
    assert algorithm.needs(1).teacher == "frozen"
    compare(World(14), REWARDS["mixed"], algorithm, per_token)


def test_sdpo_has_a_tail_bucket_a_capped_weight_and_masks_responses_without_sibling():
    has_teacher = [0, 1, 1, 1, 0, 1]

    def per_token(A, x):
        if not has_teacher[x.response]:
            return 0.0 * x.logp
        top = x.p.topk(2).indices
        p, q = (torch.cat([y[top], (1 - y[top].exp().sum()).log()[None]]) for y in (x.p, x.q))
        m = (0.5 * p.exp() + 0.5 * q.exp()).log()
        weight = torch.exp(x.logp - x.old).detach().clamp(max=1.1)
        return weight * (0.5 * q.exp() * (q - m) + 0.5 * p.exp() * (p - m)).sum()

    algorithm = baselines.make("sdpo", top_k=2, is_cap=1.1)
    needs = algorithm.needs(1)
    assert (needs.teacher, needs.ema_rate, needs.context) == ("ema", 0.05, "sibling")
    compare(World(15), REWARDS["mixed"], algorithm, per_token, old=True, has_teacher=has_teacher)


def test_sdft_is_the_forward_kl_to_an_average_teacher():
    algorithm = baselines.make("sdft")
    assert (algorithm.needs(1).teacher, algorithm.needs(1).ema_rate) == ("ema", 0.01)
    compare(World(16), REWARDS["mixed"], algorithm, lambda A, x: x.kl(x.q, x.p))


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

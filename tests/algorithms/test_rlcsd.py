"""RLCSD by value and gradient against plain float64 loops over its equations (arXiv 2606.11709, Eq. 7-15).

The loops call nothing of the project. N = 2 prompts, G = 3 responses of 1 to 4 tokens, V = 5 entries, 0 to 3 wrong hints.
"""

import math

import pytest
import torch

import baselines
from sdpg.algorithms.base import Needs, Signals
from sdpg.algorithms.reduce import token_weights

N, G, T, V, K = 2, 3, 4, 5, 3
LENGTHS = [4, 1, 2, 3, 3, 1]
REWARDS = [[1, 0, 0], [0, 1, 1]]
HINTS = [3, 2, 1, 0, 3, 2]  # wrong hints of each response; the fourth has no contrast
PAPER = {"lam": 0.5, "tau": 1.3, "delta": 0.02, "eta": 0.5}


class World:
    def __init__(self, seed=0, spread=1.0):
        g = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, T, V, generator=g, dtype=torch.float64)  # noqa: E731
        self.student = draw(N * G).requires_grad_()
        self.old, self.ref = self.student.detach() + 0.4 * draw(N * G), draw(N * G)
        self.right, self.wrong = spread * draw(N * G), spread * draw(K, N * G)
        self.token = torch.randint(0, V, (N * G, T), generator=g)


def log_prob(logits, y):
    """log softmax at y, written out."""
    return logits[y] - torch.log(sum(torch.exp(x) for x in logits))


def advantage(i):
    group = REWARDS[i // G]
    mean = sum(group) / G
    return (group[i % G] - mean) / (math.sqrt(sum((r - mean) ** 2 for r in group) / (G - 1)) + 1e-6)


def surrogate(rho, A, low=0.2, high=0.2):
    return -min(rho * A, rho.clamp(1 - low, 1 + high) * A, key=lambda x: x.item())


def oracle(world, *, lam, tau, delta, eta, old, r_max=2.0, skip=True, kl=0.0):
    """Mean over responses of: mean over the other tokens with A + eta * mean over the selected ones with A'. -> loss, kinds."""
    total, kinds = 0.0, []
    for i, length in enumerate(LENGTHS):
        A, plain, selected, penalty = advantage(i), [], [], 0.0
        for t in range(length):
            y = int(world.token[i, t])
            logp = log_prob(world.student[i, t], y)
            rho = torch.exp(logp - (log_prob(world.old[i, t], y) if old else logp.detach()))
            r = 0.0
            if HINTS[i]:
                q_wrong = sum(math.exp(log_prob(world.wrong[k, i, t], y)) for k in range(HINTS[i])) / HINTS[i]
                e = float(log_prob(world.right[i, t], y)) - math.log(q_wrong)
                r = min(max(lam * math.tanh(e / tau), -r_max), r_max)
            if abs(r) > delta:
                kept = max(A + r, 0.0) if A > 0 else min(A + r, 0.0)
                selected.append(surrogate(rho, kept))
            else:
                plain.append(surrogate(rho, A))
            kinds.append((HINTS[i], abs(r) > delta, (A + r) * A < 0))
            logw = logp - log_prob(world.ref[i, t], y)
            penalty = penalty + (torch.exp(-logw) - 1 + logw) / length
        loss = sum(plain) / max(1, len(plain)) + eta * sum(selected) / max(1, len(selected))
        total = total + (loss if HINTS[i] or not skip else 0.0 * loss) + kl * penalty
    return total / (N * G), kinds


def ours(world, algorithm, *, old):
    """The same through the project's method and reduction, from log-probs that the core would give it."""
    mask = torch.tensor([[float(t < n) for t in range(T)] for n in LENGTHS], dtype=torch.float64)
    of = lambda logits: torch.log_softmax(logits, -1).gather(-1, world.token[..., None])[..., 0] * mask  # noqa: E731
    there = torch.tensor([float(n > 0) for n in HINTS])[:, None] * mask
    wrong = torch.stack(
        [torch.stack([of(world.wrong[k])[i] for k in range(max(1, n))]).logsumexp(0) for i, n in enumerate(HINTS)]
    )
    wrong = (wrong - torch.tensor([math.log(max(1, n)) for n in HINTS])[:, None]) * there
    logp = of(world.student)
    s = Signals(
        logp=logp,
        logp_old=of(world.old) if old else logp.detach(),
        logp_rollout=logp.detach(),
        entropy=torch.zeros_like(mask),
        mask=mask,
        stop=torch.zeros_like(mask),
        logp_ref=of(world.ref) if algorithm.needs(1).reference else None,
        logq=of(world.right) * there,
        logq_wrong=wrong,
        contrasted=there,
    )
    length = torch.tensor(LENGTHS).view(N, G)
    w = token_weights(length, "sequence", prompts=N, tokens=sum(LENGTHS)).reshape(-1, 1).double()
    A = algorithm.advantages(torch.tensor(REWARDS, dtype=torch.float64)).reshape(-1, 1)
    return sum((w * mask * term).sum() for term in algorithm.token_loss(s, A, 1).values())


def same(a, b, leaf):
    assert a.item() == pytest.approx(b.item(), rel=1e-6, abs=1e-8)  # the weights are float32
    ga, gb = (torch.autograd.grad(x, leaf)[0] for x in (a, b))
    assert (ga - gb).abs().max() <= 1e-6 * gb.abs().max() and gb.abs().max() > 1e-3


@pytest.mark.parametrize("old", [False, True], ids=["one update", "clipped"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"tau": 0.02, "eta": 1.0}, {"lam": 4.0, "r_max": 1.5}, {"delta": 0.2}, {"delta": 0.2, "eta": 0.0}],
    ids=["paper", "released", "strong", "few selected", "others alone"],
)
@pytest.mark.parametrize("skip", [True, False], ids=["skip", "grpo"])
def test_rlcsd_is_its_equations(old, fields, skip):
    world = World(1)
    algorithm = baselines.make("rlcsd", **fields, without_contrast="skip" if skip else "grpo")
    given = PAPER | {key: value for key, value in fields.items() if key != "r_max"}
    true, kinds = oracle(world, **given, r_max=fields.get("r_max", 2.0), old=old, skip=skip)
    same(ours(world, algorithm, old=old), true, world.student)
    assert any(not selected for _, selected, _ in kinds) and any(selected for _, selected, _ in kinds)
    assert any(turned for *_, turned in kinds) == (fields.get("lam", 0.5) > 1)  # where the clamp keeps the sign of A


def test_rlcsd_defaults_are_the_papers():
    fields = baselines.make("rlcsd")
    assert {name: getattr(fields, name) for name in PAPER} == PAPER
    assert (fields.clip_low, fields.clip_high, fields.r_max, fields.kl_coef) == (0.2, 0.2, 2.0, 0.0)


def test_rlcsd_with_its_kl_penalty():
    world = World(2)
    true, _ = oracle(world, **PAPER, old=True, kl=0.1)
    same(ours(world, baselines.make("rlcsd", kl_coef=0.1), old=True), true, world.student)


def test_without_any_difference_between_the_hints_rlcsd_is_grpo():
    world = World(3)
    world.wrong = world.right.expand(K, *world.right.shape)
    grpo = baselines.make("grpo", kl_coef=0.0)
    same(ours(world, baselines.make("rlcsd", without_contrast="grpo"), old=True), ours(world, grpo, old=True), world.student)


def test_wrong_hints_need_the_right_one():
    with pytest.raises(ValueError, match="wrong_hints=2 are read beside the right one: they need teacher_logp=True"):
        Needs(wrong_hints=2)

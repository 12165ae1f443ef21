"""OPSA by value and gradient against plain float64 loops over its equations (arXiv 2608.31046)."""

import math

import pytest
import torch

import baselines
from sdpg.algorithms.base import Signals

LENGTHS = [7, 1, 5, 3, 4, 2]  # M = 22 tokens: a fifth is four
T, V, M = 7, 6, sum(LENGTHS)


class World:
    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        draw = lambda: torch.randn(len(LENGTHS), T, V, generator=g, dtype=torch.float64)  # noqa: E731
        self.student = (2 * draw()).requires_grad_()
        self.old = self.student.detach() + 0.3 * draw()
        self.token = torch.randint(0, V, (len(LENGTHS), T), generator=g)


def oracle(world, advantage, *, fraction=0.2, old):
    """Mean over responses of the mean over their selected tokens of -min(rho A, clip(rho) A) -> loss, A of the selected."""
    tokens = []
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            p = torch.softmax((world.old if old else world.student)[i, t].detach(), -1).tolist()
            y = int(world.token[i, t])
            tokens.append((math.log(p[y]), -sum(x * math.log(x) for x in p), i, t, y))
    selected = sorted(tokens)[: max(1, math.floor(fraction * M))]
    H = [entropy for _, entropy, *_ in selected]
    total, given = 0.0, []
    for before, entropy, i, t, y in selected:
        A = advantage((entropy - min(H)) / (max(H) - min(H)) if max(H) > min(H) else 1.0)
        rho = torch.exp(torch.log_softmax(world.student[i, t], -1)[y] - before)
        loss = -min(rho * A, rho.clamp(0.8, 1.2) * A, key=lambda x: x.item())
        total = total + loss / sum(1 for *_, j, _, _ in selected if j == i) / len(LENGTHS)
        given.append(A)
    return total, given


def ours(world, algorithm, *, old):
    """The same through the project's method; the weights are those of `sequence` over the tokens that count."""
    mask = torch.tensor([[float(t < n) for t in range(T)] for n in LENGTHS], dtype=torch.float64)
    logp = torch.log_softmax(world.student, -1).gather(-1, world.token[..., None])[..., 0]
    then = torch.log_softmax(world.old if old else world.student.detach(), -1)
    logp_old = then.gather(-1, world.token[..., None])[..., 0]
    real = mask.bool()
    A = torch.zeros_like(mask)
    A[real] = algorithm.token_advantages(logp_old[real], -(then.exp() * then).sum(-1)[real])
    zero = torch.zeros_like(mask)
    s = Signals(logp=logp * mask, logp_old=logp_old * mask, logp_rollout=zero, entropy=zero, mask=mask, stop=zero, A_t=A)
    w = 1 / (len(LENGTHS) * A.count_nonzero(1).clamp(min=1)).double()
    return (w[:, None] * mask * algorithm.token_loss(s, torch.zeros(len(LENGTHS), 1), 1)["outcome"]).sum(), A[A != 0]


@pytest.mark.parametrize("old", [False, True], ids=["one update", "clipped"])
@pytest.mark.parametrize(
    ("fields", "advantage"),
    [
        ({}, lambda r: -0.5 - r / 2),
        ({"advantage": "constant"}, lambda r: -0.5),
        ({"advantage": "constant", "constant": -2.0, "fraction": 0.5}, lambda r: -2.0),
        ({"weakest": -0.1, "strongest": -3.0, "fraction": 1.0}, lambda r: -0.1 - 2.9 * r),
        ({"fraction": 0.01}, lambda r: -1.0),  # one token at least; a spread of 0 is the strongest
    ],
    ids=["paper", "control", "control on half", "all tokens", "one token"],
)
def test_opsa_is_its_equations(fields, advantage, old):
    world, algorithm = World(1), baselines.make("opsa", **fields)
    true, given = oracle(world, advantage, fraction=fields.get("fraction", 0.2), old=old)
    loss, A = ours(world, algorithm, old=old)
    assert sorted(A.tolist()) == pytest.approx(sorted(given), rel=1e-6)
    assert loss.item() == pytest.approx(true.item(), rel=1e-6)
    a, b = (torch.autograd.grad(x, world.student)[0] for x in (loss, true))
    assert (a - b).abs().max() <= 1e-6 * b.abs().max() and b.abs().max() > 1e-3


def test_ties_are_broken_by_place_and_equal_entropies_are_the_strongest():
    A = baselines.make("opsa", fraction=0.5).token_advantages(torch.full((5,), -1.0), torch.full((5,), 2.0))
    assert A.tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0]


def test_opsa_asks_for_no_teacher_no_reference_no_reward_and_no_group():
    algorithm = baselines.make("opsa")
    needs = algorithm.needs(1)
    assert (needs.teacher, needs.reference, needs.token_advantages, algorithm.needs_group) == (None, False, True, False)
    assert algorithm.advantages(torch.tensor([[0.0], [1.0]])).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"constant": 0.0}, "constant: got 0.0"),
        ({"constant": 0.5}, "constant: got 0.5"),
        ({"fraction": 0}, "fraction: got 0"),
        ({"advantage": "entropie"}, "advantage: got 'entropie'"),
        ({"strongest": -0.2}, "strongest=-0.2 must not be above weakest=-0.5"),
    ],
)
def test_opsa_refuses_what_is_no_negative_advantage(fields, message):
    with pytest.raises(ValueError, match=message):
        baselines.make("opsa", **fields)

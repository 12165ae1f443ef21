"""The fused head against a version that materialises everything in float64: values and gradients."""

import pytest
import torch

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head.api import Head, token_signals, token_signals_backward
from tests.core.head_oracle import M, V, arguments, expected, inputs, logits, signals_of, weighted

CASES = {
    "no teacher": {},
    "reverse": {"divergence": Divergence(kind="reverse_kl"), "temperature": 0.7},
    "forward": {"divergence": Divergence(kind="forward_kl"), "temperature": 1.3, "softcap": 2.0},
    "gjsd": {"divergence": Divergence(kind="gjsd", b=0.3), "softcap": 3.0, "teacher_softcap": 1.5},
    "reverse, T": {"divergence": Divergence(kind="reverse_kl", temperature=2.0), "temperature": 0.8},
    "forward, T": {"divergence": Divergence(kind="forward_kl", temperature=0.5)},
    "gjsd, T": {"divergence": Divergence(kind="gjsd", b=0.8, temperature=1.5), "softcap": 2.0},
    "reverse, clamp": {"divergence": Divergence(kind="reverse_kl", clamp=0.05)},
    "forward, clamp": {"divergence": Divergence(kind="forward_kl", clamp=0.05, temperature=1.5), "temperature": 0.9},
    "gjsd, clamp": {"divergence": Divergence(kind="gjsd", clamp=0.02)},
    "reverse, clamp_total": {"divergence": Divergence(kind="reverse_kl", clamp_total=2.0)},
    "gjsd, both clamps": {"divergence": Divergence(kind="gjsd", clamp=0.05, clamp_total=0.15), "softcap": 4.0},
    "top_k": {"divergence": Divergence(kind="reverse_kl", top_k=4), "temperature": 0.9},
    "top_k, tail": {"divergence": Divergence(kind="gjsd", top_k=5, tail=True), "softcap": 3.0},
}
CHUNKS = {"one token": 1, "odd": 5 * V, "all": None}


def leaves(x):
    return [x["hidden"], x["weight"], x["bias"]]


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_passes_give_the_signals_and_their_gradients(case, chunk):
    x = inputs()
    positional, how = arguments(x, **case)
    ours = token_signals(*positional, **how, chunk_elements=chunk)
    true = expected(x, **case)
    got = (ours.logp, ours.entropy, ours.div)
    for a, b in zip(got, true, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    if "divergence" in case:
        torch.testing.assert_close(ours.logq, true[3], rtol=1e-10, atol=1e-12)
    a, b = (torch.autograd.grad(weighted(s, x["upstream"]), leaves(x)) for s in (got, true))
    for ours, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_pass_gives_the_gradients_of_a_loss_of_the_signals(case, chunk, monkeypatch):
    """Nonlinear in every signal, in tiles of two tokens; half of the tokens have no gradient, and some start with one."""
    monkeypatch.setattr("sdpg.core.head.api.TILE_ELEMENTS", {"cpu": 2 * V})
    x = inputs()
    positional, how = arguments(x, **case)
    u = x["upstream"] * (torch.arange(M) % 3 != 1)

    def loss(s, j=slice(None)):
        total = (u[0, j] * s[0].exp() + u[1, j] * s[1] ** 2).sum()
        return total if s[2] is None else total + (u[2, j] * s[2] ** 2 * s[1]).sum()

    true = expected(x, **case)
    want = torch.autograd.grad(loss(true), leaves(x))
    x["bias"].grad = torch.ones(V, dtype=torch.float64)
    ours, gradient = token_signals_backward(
        *positional, lambda s, j: loss((s.logp, s.entropy, s.div), j), **how, chunk_elements=chunk
    )
    for a, b in zip((ours.logp, ours.entropy, ours.div), true, strict=False):
        assert a is None or not a.requires_grad
        torch.testing.assert_close(a, b if b is None else b.detach(), rtol=1e-10, atol=1e-12)
    for got, b in zip((gradient, x["weight"].grad, x["bias"].grad - 1), want, strict=True):
        torch.testing.assert_close(got, b, rtol=1e-9, atol=1e-11)
    assert x["teacher"].grad is x["teacher_weight"].grad is None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradcheck(case):
    x = inputs(seed=3)

    def signals(hidden, weight, bias):
        positional, how = arguments(x | {"hidden": hidden, "weight": weight, "bias": bias}, **case)
        s = token_signals(*positional, **how, chunk_elements=5 * V)
        return tuple(v for v in (s.logp, s.entropy, s.div) if v is not None)

    assert torch.autograd.gradcheck(signals, leaves(x), fast_mode=True)


@pytest.mark.parametrize("case", ["no teacher", "reverse", "gjsd, clamp"])
def test_the_gradient_of_one_signal_alone(case):
    """A loss that uses one signal has the gradient of that signal, whatever the others are."""
    x = inputs()
    case = CASES[case]
    for i in range(3 if "divergence" in case else 2):
        positional, how = arguments(x, **case)
        ours = token_signals(*positional, **how)
        got = torch.autograd.grad(((ours.logp, ours.entropy, ours.div)[i] * x["upstream"][i]).sum(), leaves(x))
        want = torch.autograd.grad((expected(x, **case)[i] * x["upstream"][i]).sum(), leaves(x))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "gjsd"])
def test_tied_heads_have_one_weight_that_serves_as_teacher_too(kind):
    """Student and live teacher share the head: its gradient is the student's alone."""
    x = inputs()
    x |= {"teacher": inputs(seed=1)["hidden"], "teacher_weight": x["weight"], "teacher_bias": x["bias"]}
    case = {"divergence": Divergence(kind=kind)}
    positional, how = arguments(x, **case)
    ours = token_signals(*positional, **how, chunk_elements=4 * V)
    got = torch.autograd.grad((ours.div * x["upstream"][2]).sum(), leaves(x))
    u, v = logits(x)
    want = torch.autograd.grad((signals_of(u, v.detach(), x["targets"], **case)[2] * x["upstream"][2]).sum(), leaves(x))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "gjsd"])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_logits_of_minus_infinity_and_large_ones(kind, softcap):
    """A vocabulary padded by a bias of -inf, and logits of some 1000: finite signals and gradients, as in float64."""
    x = inputs(torch.float32, scale=20.0)
    with torch.no_grad():
        for name in ("bias", "teacher_bias"):
            x[name][3:5] = -torch.inf
    x["targets"] = torch.where((x["targets"] == 3) | (x["targets"] == 4), 0, x["targets"])
    case = {"divergence": Divergence(kind=kind), "softcap": softcap, "teacher_softcap": softcap}
    positional, how = arguments(x, **case)
    ours = token_signals(*positional, **how)
    got = [ours.logp, ours.entropy, ours.div]
    u, v = logits(x, **case)
    true = signals_of(u, v, x["targets"], **case)
    for a, b in zip(got, true, strict=False):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)
    gradient = torch.autograd.grad(weighted(got, x["upstream"].float()), [x["hidden"], x["weight"]])
    assert all(g.isfinite().all() for g in gradient)


@pytest.mark.parametrize("case", ["no teacher", "reverse", "forward", "gjsd", "top_k, tail"])
def test_bf16_inputs_are_measured_in_float32_and_gradients_agree_within_bf16(case):
    x = inputs(torch.bfloat16)
    true_x = {k: v.detach().double().requires_grad_() if v.is_floating_point() else v for k, v in x.items()}
    u = x["upstream"]
    results = []
    for inputs_, dtype in ((x, torch.float32), (true_x, torch.float64)):
        positional, how = arguments(inputs_, **CASES[case])
        ours, gradient = token_signals_backward(
            *positional, lambda s, j: weighted((s.logp, s.entropy, s.div), u[:, j]), **how, chunk_elements=4 * V
        )
        assert {s.dtype for s in (ours.logp, ours.entropy, ours.div, ours.logq) if s is not None} == {dtype}
        results.append([ours.logp, ours.entropy, gradient, inputs_["weight"].grad, inputs_["bias"].grad])
    for ours, true in zip(*results, strict=True):
        assert (ours.double() - true).norm() < 1.5e-2 * true.norm()


def test_the_heads_gradient_adds_up_in_float32_under_bf16():
    """2,048 equal tokens, one a chunk: in bf16 the sum would stop growing after 256 of them."""
    tokens = 2048
    hidden = torch.ones(tokens, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(tokens, dtype=torch.long)
    token_signals_backward(hidden, Head(weight), targets, lambda s, j: s.logp.sum(), chunk_elements=2)
    assert weight.grad[:, 0].tolist() == [tokens / 2, -tokens / 2]  # d logp = onehot - p, p = (1/2, 1/2)


def test_no_gradient_reaches_the_teacher():
    x = inputs()
    positional, how = arguments(x, **CASES["reverse"])
    ours = token_signals(*positional, **how)
    teacher = [x["teacher"], x["teacher_weight"]]
    assert torch.autograd.grad(ours.div.sum(), teacher, allow_unused=True) == (None, None)
    assert not ours.logq.requires_grad


@pytest.mark.parametrize("chunk", [None, 3 * V])
def test_the_teachers_log_prob_of_the_target_also_without_a_divergence(chunk):
    x = inputs()
    positional, how = arguments(x, divergence=Divergence())
    ours = token_signals(*positional, **how | {"divergence": None}, chunk_elements=chunk)
    torch.testing.assert_close(ours.logq, expected(x)[3], rtol=1e-10, atol=1e-12)
    assert ours.div is None


def test_no_tokens_have_no_signals():
    x = inputs()
    positional, how = arguments(x | {k: x[k][:0] for k in ("hidden", "teacher", "targets")}, **CASES["gjsd"])
    assert token_signals(*positional, **how).div.shape == (0,)
    ours, gradient = token_signals_backward(*positional, lambda s, j: s.div.sum(), **how)
    assert ours.logp.shape == (0,) and gradient is None


def test_a_divergence_without_a_teacher_is_refused():
    x = inputs()
    with pytest.raises(ValueError, match="needs teacher_hidden"):
        token_signals(x["hidden"], Head(x["weight"]), x["targets"], divergence=Divergence())


def test_triton_is_refused_where_it_cannot_be():
    x = inputs()
    with pytest.raises(ValueError, match=r"kernel='triton'.*float64"):
        token_signals(x["hidden"], Head(x["weight"]), x["targets"], kernel="triton")
    with pytest.raises(ValueError, match="kernel: got 'cuda', expected one of auto, torch, triton"):
        token_signals(x["hidden"], Head(x["weight"]), x["targets"], kernel="cuda")


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_a_scale_of_the_logits_is_that_of_the_weights(scale):
    """Granite and Cohere: logits times a number, student's and teacher's; value and gradient against scaled weights."""
    torch.manual_seed(0)
    hidden, weight, seen = (torch.randn(n, 6, dtype=torch.float64) for n in (9, 13, 9))
    targets, options = torch.randint(13, (9,)), {"temperature": 1.3, "divergence": Divergence()}
    found = []
    for s, W in ((scale, weight), (1.0, scale * weight)):
        h, W = hidden.clone().requires_grad_(), W.clone().requires_grad_()
        head = Head(W, scale=s)
        out = token_signals(h, head, targets, teacher_hidden=seen, teacher_head=head, **options)
        (out.logp - 0.3 * out.entropy + 0.7 * out.div).sum().backward()
        found.append((out.logp, out.entropy, out.div, out.logq, h.grad, W.grad * (1.0 if s != 1.0 else scale)))
    for ours, other in zip(*found, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="logits are scaled by 1.0, and a student's by"):
        token_signals(hidden, Head(weight, scale=scale), targets, teacher_hidden=seen, teacher_head=Head(weight), **options)

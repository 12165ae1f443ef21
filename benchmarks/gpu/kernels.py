"""Part a: the head's kernels and the variable-length attention against float64 and the CPU path.

The oracle is that of the unit tests (tests/core/head_oracle.py), everything materialised in float64. Names: M tokens, V
vocabulary; u, v the logits of student and teacher.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.session import LeftOut, Outcome, Session, relative, worst
from sdpg.algorithms.divergences import Divergence
from sdpg.core.head.api import Head, token_signals, token_signals_backward
from sdpg.core.head.torch import Reading

ORACLE = Path(__file__).resolve().parents[2] / "tests" / "core" / "head_oracle.py"
KINDS = ("reverse_kl", "forward_kl", "gjsd")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of the kernels on given logits: values in nats, gradients relative to the largest entry. bf16 is read exactly, and only the
# gradient is rounded to it (8 bits).
KERNEL = {"fp32": (1e-4, 1e-4), "bf16": (1e-4, 1e-2)}
# Of the whole head in bf16 the logits are rounded as well.
HEAD = {"fp32": (1e-4, 1e-4), "bf16": (5e-2, 5e-2)}
HIDDEN = {"fp32": 5e-4, "bf16": 5e-2}


def run(session: Session) -> None:
    """Run all checks of the part."""
    for precision in DTYPES:
        for kind in (None, *KINDS):
            work = partial(kernel_on_logits, session, precision, kind)
            session.check(f"kernel, {kind or 'no teacher'}, {precision}", _within(KERNEL[precision]), work)
    for precision in DTYPES:
        for kind in (None, *KINDS):
            work = partial(whole_head, session, precision, kind)
            session.check(f"head, {kind or 'no teacher'}, {precision}", _within(HEAD[precision]), work)
    work = partial(whole_head, session, "fp32", "gjsd", top_k=True)
    session.check("head, top_k (plain torch), fp32", _within(HEAD["fp32"]), work)
    session.check("head in two passes, fp32", _within(HEAD["fp32"]), partial(two_passes, session))
    session.check("sum of the head's gradient, bf16", "1e-5 if added in float32, else 1e-2", partial(accumulation, session))
    session.check("variable-length attention, bf16", "values and gradients within 2e-2", partial(attention, session))
    for precision in DTYPES:
        work = partial(packed_model, session, precision)
        session.check(f"packed model, {precision}", f"within {HIDDEN[precision]:g} of padded rows in float64", work)


def _within(tolerances: tuple[float, float]) -> str:
    return f"values within {tolerances[0]:g} (1 + |value|), gradients within {tolerances[1]:g} of the largest"


def oracle():
    """Return the unit tests' oracle as a module of its own, so that its sizes may be changed."""
    spec = importlib.util.spec_from_file_location("head_oracle", ORACLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def triton_head(session: Session):
    """Return the module of kernels, if they can run here. Raises LeftOut."""
    if importlib.util.find_spec("triton") is None:
        raise LeftOut("Triton is not installed")
    from sdpg.core.head import triton

    if session.dry:
        triton.MOST_BLOCK = 16  # so that a row has several blocks
    return triton


def divergences(kind: str | None, *, clamped: bool, few: bool) -> list[Divergence | None]:
    """Return a kind of divergence with each of its options, or the first and the last; without a kind none at all."""
    if kind is None:
        return [None]
    plain = Divergence(kind=kind, b=0.3)
    options = [plain, replace(plain, temperature=1.5)]
    if clamped:
        options += [replace(plain, clamp=0.02), replace(plain, clamp=0.05, temperature=2.0, clamp_total=0.5)]
    return options[:: len(options) - 1] if few else options


def compare(got, true, gradients, tolerances: tuple[float, float], what: str) -> list[tuple[float, float, str]]:
    """Return (error of values, of gradients, `what`), over their tolerances: pairs of tensors, None where both have none."""
    values = [0.0]
    for a, b in zip(got, true, strict=True):
        assert (a is None) == (b is None), f"{what}: one of the two has no such signal"
        if a is not None:
            a, b = a.detach().double().cpu(), b.detach().double().cpu()
            values.append(((a - b).abs() / (1 + b.abs())).max().item())
    error = worst((value, "") for value in values)[0]
    slope = worst((relative(a, b), "") for a, b in gradients)[0]
    return [(error / tolerances[0], slope / tolerances[1], what)]


def outcome(errors: list[tuple[float, float, str]], tolerances: tuple[float, float]) -> Outcome:
    """Return the worst of all cases in words."""
    value, case = worst((e[0], e[2]) for e in errors)
    slope, other = worst((e[1], e[2]) for e in errors)
    ok = value <= 1 and slope <= 1
    text = f"values {value * tolerances[0]:.1e}, gradients {slope * tolerances[1]:.1e}, {len(errors)} cases"
    text += "" if ok else f"; worst: {case if not value <= 1 else other}"
    return Outcome(text, ok, {"values": value * tolerances[0], "gradients": slope * tolerances[1], "cases": len(errors)})


def kernel_on_logits(session: Session, precision: str, kind: str | None) -> Outcome:
    """Check `fused` on given logits of Qwen3's vocabulary, and of sizes that no block divides, some of them -inf."""
    triton, o, errors = triton_head(session), oracle(), []
    sizes = [(2, 37)] if session.dry else [(48, 151936), (5, 5003), (1, 1)]
    for M, V in sizes:
        g = torch.Generator().manual_seed(V)
        u, v = (3 * torch.randn(M, V, generator=g).to(session.device, DTYPES[precision]) for _ in range(2))
        y, upstream = torch.randint(0, V, (M,), generator=g), torch.randn(3, M, generator=g, dtype=torch.float64)
        y, upstream = y.to(session.device), upstream.to(session.device)
        if V > 8:
            u[:, 3:5] = v[:, 3:5] = -torch.inf
            y[(y == 3) | (y == 4)] = 0
        for divergence in divergences(kind, clamped=True, few=session.dry):
            for temperature, cap, cap_t in ((1.0, None, None), (0.7, 4.0, 5.0)):
                z, t = u.clone(), None if kind is None else v.clone()
                leaf = u.double().requires_grad_()
                capped = lambda x, cap: x if cap is None else cap * torch.tanh(x / cap)  # noqa: E731
                options = {"temperature": temperature, "divergence": divergence}
                true = list(o.signals_of(capped(leaf, cap), capped(v.double(), cap_t), y, **options))
                true[3] = None if kind is None else true[3]
                how = Reading(temperature, cap, cap_t, divergence)
                (want,) = torch.autograd.grad(o.weighted(true[:3], upstream), leaf)
                got, gradient = triton.fused(z, t, y, how, True)
                c = [x.float() for x in upstream]
                slopes = gradient((c[0], c[1], None if divergence is None else c[2]), slice(None))
                errors += compare(got, true, [(slopes, want)], KERNEL[precision], f"{M} x {V}, {how}")
    return outcome(errors, KERNEL[precision])


def head_inputs(session: Session, precision: str, bias: bool):
    """Return the oracle, its inputs rounded to a precision on the CPU in float64, and the same on the device."""
    o = oracle()
    o.M, o.D, o.D_TEACHER, o.V = (4, 8, 6, 37) if session.dry else (200, 64, 48, 5003)
    x = o.inputs(torch.float64, scale=0.35)
    for name in ("bias", "teacher_bias"):
        x[name] = (x[name] * bias).detach().requires_grad_(x[name].requires_grad)
    rounded = {k: v.detach().to(DTYPES[precision]) if v.is_floating_point() and k != "upstream" else v for k, v in x.items()}
    leaves = ("hidden", "weight", "bias")
    exact = {k: v.double().requires_grad_(k in leaves) if v.is_floating_point() else v for k, v in rounded.items()}
    there = {k: v.to(session.device).requires_grad_(k in leaves) for k, v in rounded.items()}
    return o, exact, there


def head_cases(kind: str | None, precision: str, *, few: bool, top_k: bool = False) -> list[dict]:
    """Return ways to read. In bf16 without clamps: an entry that rounding moves over a clamp has no gradient any more."""
    found = divergences(kind, clamped=precision == "fp32", few=few)
    if top_k:
        found = [Divergence(kind=kind, top_k=5, tail=tail) for tail in (False, True)]
    return [
        {"divergence": d, "temperature": T, "softcap": cap, "teacher_softcap": cap_t, "bias": bias}
        for d in found
        for T, cap, cap_t, bias in ((1.0, None, None, False), (0.7, 3.0, 2.0, True))
    ]


def whole_head(session: Session, precision: str, kind: str | None, top_k: bool = False) -> Outcome:
    """Check `token_signals_backward` in several chunks: signals, and gradients of hidden states, weight and bias."""
    errors, kernel = [], "auto" if top_k else "triton"
    if not top_k:
        triton_head(session)
    for case in head_cases(kind, precision, few=session.dry, top_k=top_k):
        o, exact, there = head_inputs(session, precision, case["bias"])
        options = {key: value for key, value in case.items() if key != "bias"}
        u = exact["upstream"] * (torch.arange(o.M) % 3 != 1)  # so that some rows are left out
        here = u.to(session.device)
        true = list(o.expected(exact, **options))
        leaves = [exact[k] for k in ("hidden", "weight", "bias")]
        want = torch.autograd.grad(o.weighted(true[:3], u) + (u[1] * true[0] * true[1]).sum(), leaves)
        positional, how = o.arguments(there, **options)
        if not case["bias"]:
            positional = (positional[0], Head(there["weight"], None, options["softcap"]), positional[2])
        loss = lambda s, j, o=o, here=here: (  # noqa: E731
            o.weighted((s.logp, s.entropy, s.div), here[:, j]) + (here[1, j] * s.logp * s.entropy).sum()
        )
        got, hidden = token_signals_backward(*positional, loss, **how, chunk_elements=o.V * (o.M // 2), kernel=kernel)
        gradients = [(hidden, want[0]), (there["weight"].grad, want[1])]
        gradients += [(there["bias"].grad, want[2])] if case["bias"] else []
        true[3] = None if kind is None else true[3]
        errors += compare((got.logp, got.entropy, got.div, got.logq), true, gradients, HEAD[precision], str(case))
    return outcome(errors, HEAD[precision])


def two_passes(session: Session) -> Outcome:
    """Check `token_signals`, the form for losses that couple tokens."""
    triton_head(session)
    errors = []
    for case in head_cases("reverse_kl", "fp32", few=session.dry):
        o, exact, there = head_inputs(session, "fp32", bias=case["bias"])
        options = {key: value for key, value in case.items() if key != "bias"}
        true = o.expected(exact, **options)
        want = torch.autograd.grad(o.weighted(true[:3], exact["upstream"]), [exact["hidden"], exact["weight"]])
        positional, how = o.arguments(there, **options)
        got = token_signals(*positional, **how, kernel="triton")
        loss = o.weighted((got.logp, got.entropy, got.div), there["upstream"])
        gradients = zip(torch.autograd.grad(loss, [there["hidden"], there["weight"]]), want, strict=True)
        errors += compare((got.logp, got.entropy, got.div, got.logq), true, gradients, HEAD["fp32"], str(case))
    return outcome(errors, HEAD["fp32"])


def accumulation(session: Session) -> Outcome:
    """Check that the head's gradient in bf16 adds up over chunks as the core thinks that torch can."""
    from sdpg.core.head.weights import Accumulator, way_to_add

    parameter = torch.zeros(64, 32, dtype=torch.bfloat16, device=session.device, requires_grad=True)
    g, h = (torch.randn(4000, n, device=session.device).bfloat16() for n in (64, 32))
    sums = Accumulator(parameter)
    for j in range(0, 4000, 500):
        sums.add_product(g[j : j + 500], h[j : j + 500])
    error, way = relative(sums.total, g.double().T @ h.double()), way_to_add(g, sums.total)
    return Outcome(f"{error:.1e}, {way}", error <= (1e-2 if way == "rounded" else 1e-5), {"error": error, "way": way})


def layout(session: Session, device) -> tuple:
    """Return prompts and responses of several lengths, as a packed sequence on a device, beside the lists."""
    from sdpg.core.packing import Packed

    r = torch.Generator().manual_seed(1)
    scale = 1 if session.dry else 6
    draw = lambda n: torch.randint(2, 200, (n,), generator=r).tolist()  # noqa: E731
    prompts = [draw(n * scale) for n in (3, 7, 5)]
    prompts = [prompts[i] for i in (0, 0, 0, 1, 1, 2)]
    responses = [draw(n * scale + 1) for n in (9, 2, 8, 1, 6, 3)]
    return prompts, responses, Packed.of(prompts, responses, device)


def attention(session: Session) -> Outcome:
    """Check the attention of packed sequences in bf16 (on CUDA one call of `varlen_attn`) against float64 on the CPU."""
    from sdpg.core.packing import packed_attention

    errors = []
    for heads, keys, size in ((4, 2, 32), (4, 4, 64), (16, 8, 128)):
        *_, there = layout(session, session.device)
        *_, here = layout(session, torch.device("cpu"))
        S = there.ids.shape[1]
        g = torch.Generator().manual_seed(heads)
        tensors = [torch.randn(1, n, S, size, generator=g).bfloat16() for n in (heads, keys, keys)]
        upstream = torch.randn(1, S, heads, size, generator=g).bfloat16()
        results = []
        for packed, device, dtype in ((there, session.device, torch.bfloat16), (here, "cpu", torch.float64)):
            leaves = [x.to(device, dtype).requires_grad_() for x in tensors]
            out, _ = packed_attention(torch.nn.Module(), *leaves, None, scaling=size**-0.5, packed=packed)
            results.append((out, *torch.autograd.grad(out, leaves, upstream.to(device, dtype))))
        errors += [(relative(a, b), f"{heads} heads, {keys} of keys") for a, b in zip(*results, strict=True)]
    value, case = worst(errors)
    return Outcome(f"{value:.1e}; worst: {case}", value <= 2e-2, {"error": value})


def packed_model(session: Session, precision: str) -> Outcome:
    """Check a tiny model's hidden states, and gradients of its weights, against float64 on padded rows on the CPU."""
    from benchmarks.gpu.tiny import build, tiny_config
    from sdpg.core.packing import Padded

    prompts, responses, packed = layout(session, session.device)
    true = build(tiny_config(), dtype=torch.float64, device=torch.device("cpu"), packed=False)
    if precision == "bf16":
        for p in true.parameters():
            p.data = p.data.bfloat16().double()
    model = build(tiny_config(), dtype=DTYPES[precision], device=session.device)
    model.load_state_dict(true.state_dict())
    want = Padded.of(prompts, responses, torch.device("cpu")).hidden(true)
    got = packed.hidden(model)
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(0))
    want.backward(upstream.double())
    got.backward(upstream.to(got))
    pairs = [(relative(got, want), "hidden states")]
    for (name, p), q in zip(model.named_parameters(), true.parameters(), strict=True):
        pairs.append((relative(p.grad, q.grad), f"gradient of {name}"))
    value, case = worst(pairs)
    return Outcome(f"{value:.1e}; worst: {case}", value <= HIDDEN[precision], {"error": value})

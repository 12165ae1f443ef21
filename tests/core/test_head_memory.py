"""What the fused head does not do: keep logits of all tokens, multiply rows that do not matter, compute unused products."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head import weights
from sdpg.core.head.api import Head, Options, token_signals, token_signals_backward
from tests.core.head_oracle import D, M, V, arguments, inputs

DIVERGENCES = [Divergence(kind=k) for k in ("reverse_kl", "forward_kl", "gjsd")]
PRODUCTS = ("mm", "addmm", "addmm_")


class Watch(TorchDispatchMode):
    """Records the storage of every operation's outputs, and the shapes of the matrix products' operands."""

    def __init__(self):
        super().__init__()
        self.largest, self.products = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes() // x.element_size())
        name = function._schema.name.removeprefix("aten::")
        if name in PRODUCTS:
            a, b = [x for x in args if isinstance(x, torch.Tensor)][-2:]
            self.products.append((a.shape[0], a.shape[1], b.shape[1]))
        return out


def big(tokens=64, hidden=8, vocabulary=512):
    g = torch.Generator().manual_seed(0)
    h, teacher = (torch.randn(tokens, hidden, generator=g) for _ in range(2))
    weight = torch.randn(vocabulary, hidden, generator=g).requires_grad_()
    return h.requires_grad_(), weight, teacher, torch.randint(0, vocabulary, (tokens,), generator=g)


@pytest.mark.parametrize("divergence", [*DIVERGENCES, Divergence(top_k=20, tail=True)], ids=lambda d: f"{d.kind} {d.top_k}")
@pytest.mark.parametrize("two_pass", [False, True])
def test_nothing_of_size_tokens_by_vocabulary_is_ever_allocated(divergence, two_pass):
    """Forward and backward; the largest tensor is a chunk's, an eighth of all logits (the weight is of the same size)."""
    h, weight, teacher, y = big()
    head, chunk = Head(weight), 8 * 512
    how = {"divergence": divergence, "teacher_hidden": teacher, "teacher_head": head, "chunk_elements": chunk}
    with Watch() as watch:
        if two_pass:
            s = token_signals(h, head, y, **how)
            (s.logp + s.entropy + s.div).sum().backward()
        else:
            _, gradient = token_signals_backward(h, head, y, lambda s, j: (s.logp + s.entropy + s.div).sum(), **how)
            h.backward(gradient)
    assert weight.grad is not None and h.grad is not None
    assert watch.largest == chunk == weight.numel() < len(y) * len(weight)


def test_chunks_on_a_gpu_are_large_and_plain_torch_reads_them_in_tiles():
    """Of a vocabulary of 152k: the weight's traffic is 591 / rows of the products' time at an H100's peak rates."""
    rows, tile = Options().sizes(151_936, torch.device("cuda"), tiled=False)
    assert rows == tile == 3533
    assert Options().sizes(151_936, torch.device("cuda"), tiled=True) == (3533, 441)
    assert Options().sizes(151_936, torch.device("cpu"), tiled=True) == (110, 3)
    assert Options(chunk_elements=2**20).sizes(2**10, torch.device("cuda"), tiled=True) == (1024, 1024)


def test_the_watch_sees_what_a_materialising_head_allocates():
    h, weight, _, y = big()
    with Watch() as watch:
        torch.log_softmax(h @ weight.T, -1).gather(1, y[:, None]).sum().backward()
    assert watch.largest == len(y) * len(weight)


@pytest.mark.parametrize("tile", [2, 100])
def test_tokens_without_a_coefficient_are_in_no_product_of_the_backward(tile, monkeypatch):
    """Of 13 tokens in chunks of 5, tokens 1, 2, 7 and all of the last chunk have none: 3, 4 and 0 rows are multiplied."""
    monkeypatch.setattr("sdpg.core.head.api.TILE_ELEMENTS", {"cpu": tile * V})
    x = inputs()
    positional, how = arguments(x, divergence=Divergence())
    on = torch.ones(M, dtype=torch.float64)
    on[[1, 2, 7, 10, 11, 12]] = 0
    with Watch() as watch:
        _, gradient = token_signals_backward(
            *positional, lambda s, j: (on[j] * (s.logp + s.div)).sum(), **how, chunk_elements=5 * V
        )
    backward = [shape for shape in watch.products if shape[2] == D]
    assert backward == [(3, V, D), (V, 3, D), (4, V, D), (V, 4, D)]
    assert (gradient[on == 0] == 0).all() and (gradient[on == 1] != 0).any(1).all()


def test_two_passes_compute_logits_again_for_the_tokens_that_have_a_gradient_only():
    x = inputs()
    positional, how = arguments(x, divergence=Divergence())
    s = token_signals(*positional, **how)
    with Watch() as watch:
        s.logp[:4].sum().backward()  # no gradient for the divergence: no teacher either
    assert watch.products == [(4, D, V), (4, V, D), (V, 4, D)]


def test_one_product_for_the_logits_of_each_model():
    x = inputs()
    positional, how = arguments(x, divergence=Divergence())
    with Watch() as watch:
        token_signals_backward(*positional, lambda s, j: s.div.sum(), **how)
    assert [shape for shape in watch.products if shape[2] == V] == [(M, D, V), (M, x["teacher"].shape[1], V)]


def test_a_loss_without_gradient_has_none():
    x = inputs()
    for loss in (lambda s, j: 0 * s.entropy.sum(), lambda s, j: s.logp.detach().sum()):
        _, gradient = token_signals_backward(x["hidden"], Head(x["weight"]), x["targets"], loss, chunk_elements=2 * V)
        assert gradient is None
        assert x["weight"].grad is None


@pytest.mark.parametrize("hook", [None, "register_hook", "register_post_accumulate_grad_hook"])
def test_the_heads_gradient_is_added_to_what_is_there_and_hooks_see_it(hook):
    x = inputs()
    weight, seen = x["weight"], []
    run = lambda: token_signals_backward(x["hidden"], Head(weight), x["targets"], lambda s, j: s.logp.sum())  # noqa: E731
    run()
    once = weight.grad.clone()
    if hook:
        getattr(weight, hook)(lambda g: seen.append(g.clone() if g is not weight else g.grad.clone()))
    run()
    torch.testing.assert_close(weight.grad, 2 * once)
    assert len(seen) == bool(hook)


def products(dtype):
    """g (C, V) and hidden (C, d) of two chunks, which round differently in bf16 and in float32."""
    g = torch.Generator().manual_seed(0)
    return [[torch.randn(40, n, generator=g).to(dtype) for n in (12, 6)] for _ in range(2)]


def add(dtype):
    total = weights.Accumulator(torch.zeros(12, 6).requires_grad_())
    for g, hidden in products(dtype):
        total.add_product(g, hidden)
    return total.result()


def test_products_of_one_dtype_are_added_in_place():
    assert weights.way_to_add(torch.zeros(2, 3), torch.zeros(3, 4)) == "in place"
    assert weights.way_to_add(torch.zeros(2, 3).double(), torch.zeros(3, 4).double()) == "in place"
    torch.testing.assert_close(add(torch.float32), sum(g.T @ hidden for g, hidden in products(torch.float32)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_that_torch_cannot_widen_are_rounded_before_they_are_added(monkeypatch, dtype):
    monkeypatch.setattr(weights, "_widens", lambda device, dtype: False)
    assert weights.way_to_add(torch.zeros(2, 3, dtype=dtype), torch.zeros(3, 4)) == "rounded"
    assert torch.equal(add(dtype), sum((g.T @ hidden).float() for g, hidden in products(dtype)))


def widening_addmm(total, a, b, *, out_dtype, out):
    """What torch.addmm documents where it is given `out_dtype`; torch 2.13 has it on CUDA only."""
    assert a.dtype == b.dtype != out_dtype == out.dtype
    return out.copy_(total + a.to(out_dtype) @ b.to(out_dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_widened_where_torch_can(monkeypatch, dtype):
    weights._widens.cache_clear()
    monkeypatch.setattr(torch, "addmm", widening_addmm)
    try:
        assert weights.way_to_add(torch.zeros(2, 3, dtype=dtype), torch.zeros(3, 4)) == "widened"
        assert weights.way_to_add(torch.zeros(2, 3, dtype=dtype), torch.zeros(3, 4).double()) == "rounded"
        exact = sum(g.double().T @ hidden.double() for g, hidden in products(dtype)).float()
        torch.testing.assert_close(add(dtype), exact, rtol=1e-6, atol=1e-5)
    finally:
        weights._widens.cache_clear()


def rounding_addmm(total, a, b, *, out_dtype, out):
    return out.copy_(total + (a @ b).to(out_dtype))


def refusing_addmm(*args, **kwargs):
    raise NotImplementedError("Could not run 'aten::addmm.dtype_out'")


@pytest.mark.parametrize("addmm", [rounding_addmm, refusing_addmm])
def test_whether_torch_widens_is_tried_on_numbers_that_show_it(monkeypatch, addmm):
    monkeypatch.setattr(torch, "addmm", addmm)
    for dtype in (torch.bfloat16, torch.float16):
        assert not weights._widens.__wrapped__(torch.device("cpu"), dtype)

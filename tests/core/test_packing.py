"""Packed sequences with shared prompts give what padded rows give: hidden states, gradients, whole training steps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

import baselines
from sdpg.core import packing
from sdpg.core.batch import Sample, micro_batches
from sdpg.core.flops import Work, forward_flops, rollout_work
from sdpg.core.models import load_model
from sdpg.core.packing import CannotPack, Packed, Padded, enable_packing, packs
from sdpg.types import Rollout
from tests.core.conftest import VOCAB, make_trainer, train_config

CPU = torch.device("cpu")
SHARED = [[3, 4, 5], [3, 4, 5], [6], [6], [3, 4, 5], [7, 8]]
RESPONSES = [[9, 10, 1], [11], [12, 13, 14, 15], [16, 1], [17, 18, 19, 20, 21], [2]]
CASES = {
    "shared": (SHARED, RESPONSES),
    "all different": ([[3], [4, 5], [6, 7, 8]], RESPONSES[:3]),
    "one prompt": ([[3, 4]] * 4, RESPONSES[:4]),
    "one-token responses": ([[3, 4]] * 3, [[5], [6], [7]]),
    "one response": ([[3, 4, 5]], [[6, 7]]),
}


@pytest.fixture
def model(tiny):
    return load_model(tiny, dtype=torch.float64, device=CPU, packed=False)


def plain(model, prompts, responses):
    """Each response alone: the reference."""
    return torch.cat(
        [
            model.base_model(torch.tensor([[*p, *r]])).last_hidden_state[0, len(p) - 1 : len(p) - 1 + len(r)]
            for p, r in zip(prompts, responses, strict=True)
        ]
    )


@pytest.mark.parametrize("kind", [Packed, Padded])
@pytest.mark.parametrize("case", CASES)
def test_hidden_states_and_gradients_of_each_response_alone(model, case, kind):
    prompts, responses = CASES[case]
    expected = plain(model, prompts, responses)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (expected * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if kind is Packed:
        enable_packing(model)
    found = kind.of(prompts, responses, CPU).hidden(model)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for name, p in model.named_parameters():
        if p.grad is not None:
            gap = (p.grad - gradients[name]).abs().max() / gradients[name].abs().max()
            assert gap < 1e-5, name  # the model's norms round to float32


def test_a_prompt_is_read_once():
    packed = Packed.of(SHARED, RESPONSES, CPU)
    assert packed.ids[0].tolist() == [3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 12, 13, 14, 9, 10, 16]
    assert packed.position_ids[0].tolist() == [0, 1, 2, 0, 0, 1, 3, 4, 5, 6, 1, 2, 3, 3, 4, 1]
    assert packed.before.tolist() == [2, 13, 14, 2, 3, 10, 11, 12, 3, 15, 2, 6, 7, 8, 9, 5]


@pytest.mark.parametrize("case", CASES)
def test_attention_pads_within_segments_of_similar_length_only(case):
    prompts, responses = CASES[case]
    shared = len(set(map(tuple, prompts))) < len(prompts)
    blocks = Packed.of(prompts, responses, CPU).blocks
    for block in blocks[shared:]:  # the first one of a shared layout is that of the prompts
        assert block.own.min() >= packing.SHORTEST * block.own.max()
    read = sum(len(r) - 1 + (0 if shared else len(p)) for p, r in zip(prompts, responses, strict=True))
    assert sum(block.own.sum() for block in blocks[shared:]) == read


def test_work_is_what_is_read(model):
    """Counted by hand: every pair of tokens where the later one sees the earlier."""
    packed = Packed.of(SHARED, RESPONSES, CPU)
    prompts = 6 + 1 + 3
    own = [(2, 3), (0, 3), (3, 1), (1, 1), (4, 3), (0, 2)]  # tokens of a response that are read, of its prompt
    assert packed.work == Work(16, prompts + sum(n * (n + 1) // 2 + n * p for n, p in own), sum(map(len, RESPONSES)))
    groups = {(3, 4, 5): [3, 1, 5], (6,): [4, 2], (7, 8): [1]}
    assert rollout_work([len(p) for p in groups], list(groups.values())) == packed.work


def test_flops_are_those_that_torch_counts(model):
    """Of the linear layers and the lm-head; attention is torch's own formula, which counts padded pairs as well."""
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.arange(12)[None] % VOCAB
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(ids)
    by_operator = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    linear, attention = by_operator["aten.mm"], by_operator["aten.bmm"]
    ours = forward_flops(model, Work(12, 0, 12))
    assert ours == linear
    assert forward_flops(model, Work(0, 12 * 12, 0)) == attention


def _varlen(q, k, v, cu_q, cu_k, max_q, max_k, scale):
    """What torch.nn.attention.varlen.varlen_attn documents: causal, aligned at the last query and key of each segment."""
    assert cu_q.dtype == cu_k.dtype == torch.int32 and q.shape[1] == k.shape[1]
    out = []
    for i in range(len(cu_q) - 1):
        a, b = (x[s[i] : s[i + 1]].transpose(0, 1) for x, s in ((q, cu_q), (k, cu_k)))
        c = v[cu_k[i] : cu_k[i + 1]].transpose(0, 1)
        n, m = a.shape[1], b.shape[1]
        assert n <= max_q and m <= max_k
        mask = torch.ones(n, m, dtype=torch.bool).tril(m - n)
        out.append(torch.nn.functional.scaled_dot_product_attention(a, b, c, attn_mask=mask, scale=scale))
    return torch.cat(out, 1).transpose(0, 1)


def _varlen_of_2_12(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    assert window_size == (-1, 0)
    groups = q.shape[1] // k.shape[1] if enable_gqa else 1
    return _varlen(q, *(x.repeat_interleave(groups, 1) for x in (k, v)), cu_q, cu_k, max_q, max_k, scale)


def _varlen_of_2_11(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    assert window_size == (-1, 0)
    return _varlen(q, k, v, cu_q, cu_k, max_q, max_k, scale)


def _varlen_of_2_10(q, k, v, cu_q, cu_k, max_q, max_k, is_causal=False):
    raise AssertionError("it cannot be given a scale, so it must not be called")


def use_varlen(monkeypatch, kernel):
    """Attend with `kernel` in the place of torch's, which needs a GPU, as if the tensors were on one."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(packing, "_has_varlen", lambda q: True)


@pytest.mark.parametrize("kernel", [_varlen_of_2_12, _varlen_of_2_11])
@pytest.mark.parametrize("case", CASES)
def test_arguments_of_the_variable_length_kernel(monkeypatch, case, kernel):
    use_varlen(monkeypatch, kernel)
    packed = Packed.of(*CASES[case], CPU)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(packed.work.tokens, h, 8, generator=g, dtype=torch.float64) for h in (4, 2, 2))
    expected = torch.cat([block.attend(q, k, v, 0.3) for block in packed.blocks])
    torch.testing.assert_close(packing._varlen(q, k, v, packed, 0.3), expected)


@pytest.mark.parametrize("kernel", [_varlen_of_2_12, _varlen_of_2_11])
def test_the_variable_length_kernel_needs_no_mask(model, monkeypatch, kernel):
    """None is made, with the inputs or later, forwards or backwards; hidden states are those of each response alone."""
    expected = plain(model, SHARED, RESPONSES)
    use_varlen(monkeypatch, kernel)
    monkeypatch.setattr(packing.Block, "mask", property(lambda self: pytest.fail("a mask was made")))
    enable_packing(model)
    found = Packed.of(SHARED, RESPONSES, CPU).hidden(model)
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_inputs_move_without_masks():
    """A mask is made on the device where the block lies, when it is asked for."""
    packed = Packed.of(SHARED, RESPONSES, torch.device("meta"))
    assert not any("mask" in vars(block) for block in packed.blocks)
    assert {x.device.type for block in packed.blocks for x in vars(block).values() if torch.is_tensor(x)} == {"meta"}
    assert packed.blocks[0].mask is None and packed.blocks[1].mask.device.type == "meta"


def test_what_a_mask_lets_through():
    block = Packed.of(SHARED, RESPONSES, CPU).blocks[2]
    assert block.own.tolist() == [2] and block.seen.tolist() == [3]
    assert block.mask.int().tolist() == [[[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]]
    block = packing.Block(np.array([4, 6]), np.array([2, 2]), np.array([0, 1]), np.array([1, 2]))
    assert block.mask[:, 0].int().tolist() == [[[1, 0, 1, 0], [1, 0, 1, 1]], [[1, 1, 1, 0], [1, 1, 1, 1]]]


def test_an_older_variable_length_kernel_is_told_of(tiny, monkeypatch, capsys):
    use_varlen(monkeypatch, _varlen_of_2_10)
    loaded = load_model(tiny, dtype=torch.float32, device=CPU)
    told = capsys.readouterr().err
    assert not packs(loaded) and told.count("\n") == 1
    assert f"padded rows instead of packed sequences: varlen_attn of torch {torch.__version__} does not take scale and" in told
    assert "window_size" in told and "need torch 2.11 or newer" in told


def heads_of(size: int) -> Qwen3Config:
    return Qwen3Config(hidden_size=64, num_attention_heads=2, head_dim=size)


@pytest.mark.parametrize(
    ("config", "capability", "said"),
    [
        (heads_of(20), (9, 0), "heads have 20 entries"),
        (heads_of(512), (9, 0), "heads have 512 entries"),
        (GPT2Config(n_embd=36, n_head=3), (9, 0), "heads have 12 entries"),
        (heads_of(64), (7, 5), "needs compute capability 8.0, this GPU has 7.5"),
    ],
)
def test_what_the_kernel_would_refuse_in_the_middle_of_a_pass_is_refused_before(monkeypatch, config, capability, said):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(CannotPack, match=said):
        packing.check_kernel(torch.device("cuda", 0), torch.bfloat16, config)
    packing.check_kernel(torch.device("cuda", 0), torch.float32, config)  # takes no such kernel


@pytest.mark.parametrize("config", [heads_of(64), heads_of(256), GPT2Config(n_embd=48, n_head=3)])
def test_heads_that_the_kernel_takes(monkeypatch, config):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    packing.check_kernel(torch.device("cuda", 0), torch.bfloat16, config)


def test_no_variable_length_kernel_is_told_of(model, monkeypatch):
    use_varlen(monkeypatch, _varlen_of_2_12)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    with pytest.raises(CannotPack, match=r"has no torch.nn.attention.varlen; .* need torch 2.11 or newer"):
        enable_packing(model)


def test_a_model_that_keeps_packed_to_itself_is_told_of(model, monkeypatch):
    def attend(*args, **kwargs):
        raise TypeError("forward() got an unexpected keyword argument 'packed'")

    monkeypatch.setattr(packing.Packed, "hidden", attend)
    with pytest.raises(CannotPack, match="Qwen3ForCausalLM does not hand `packed` on to its attention: forward"):
        enable_packing(model)
    assert not packs(model)


@pytest.mark.parametrize("name", ["sdpg", "grpo", "sdpo", "gspo", "rlcsd", "opsa"])
def test_training_is_the_same_packed_and_padded(tiny, tmp_path, name):
    fields = {
        "sdpg": {"T": 6, "beta_base": 1.0, "T_warm": 0, "T_decay": 0, "alpha": 0.1},
        "grpo": {"kl_coef": 0.1},
        "sdpo": {},
        "gspo": {"ratio": "sequence"},
    }.get(name, {})
    algorithm = baselines.make("grpo" if name == "gspo" else name, **fields)
    rows, parameters = [], []
    for packed in (True, False):
        trainer = make_trainer(tiny, tmp_path / str(packed), algorithm, train_config(packed=packed))
        assert packs(trainer.models.policy) == packed
        trainer._push(0)
        rows.append([trainer.step(k) for k in (1, 2)])
        parameters.append(torch.cat([p.detach().flatten().clone() for p in trainer.models.policy.parameters()]))
    few = name == "opsa"  # tokens with a gradient: more parameters have one so small that Adam makes steps of its rounding
    assert (parameters[0] - parameters[1]).abs().max() < (1e-4 if few else 2e-5)
    for a, b in zip(*rows, strict=True):
        for key in ("loss", "entropy", "grad_norm", "tokens", "logprob_gap_mean"):
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-6)
    assert rows[0][0]["flops"] < rows[1][0]["flops"]  # the shared prompts


def test_checkpoints_do_not_name_the_attention(tiny, tmp_path):
    model = load_model(tiny, dtype=torch.float32, device=CPU)
    assert packs(model)
    model.save_pretrained(tmp_path)
    assert packing.ATTENTION not in (tmp_path / "config.json").read_text()


def small(cls, **changes):
    config = cls(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **changes)
    return AutoModelForCausalLM.from_config(config).eval()


def test_other_architectures(monkeypatch):
    llama = small(LlamaConfig, intermediate_size=64, num_key_value_heads=1, max_position_embeddings=64)
    gpt2 = small(GPT2Config, n_positions=64, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    for model in (llama, gpt2):
        expected = plain(model, SHARED, RESPONSES)
        enable_packing(model)
        torch.testing.assert_close(Packed.of(SHARED, RESPONSES, CPU).hidden(model), expected, rtol=1e-4, atol=1e-5)


def test_sliding_windows_stay_padded(tmp_path, capsys):
    model = small(
        Qwen3Config, head_dim=16, num_key_value_heads=1, use_sliding_window=True, sliding_window=4, max_window_layers=0
    )
    with pytest.raises(CannotPack, match="sliding_window"):
        enable_packing(model)
    assert not packs(model)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype=torch.float32, device=CPU)
    assert not packs(loaded) and "padded rows instead of packed sequences" in capsys.readouterr().err


def test_another_result_is_noticed(model, monkeypatch):
    monkeypatch.setattr(packing.Block, "attend", lambda self, q, k, v, scale: torch.zeros_like(q[: self.own.sum()]))
    with pytest.raises(CannotPack, match="other hidden states"):
        enable_packing(model)
    assert not packs(model)


def sample(prompt, n, teacher=None):
    return Sample([3] * prompt if isinstance(prompt, int) else prompt, teacher, Rollout([4] * n, [0.0] * n, "stop", 0))


@pytest.mark.parametrize("packed", [True, False])
def test_micro_batches_hold_every_response_once_within_the_budget(packed):
    g = torch.Generator().manual_seed(1)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=g))  # noqa: E731
    samples = [s for p in range(9) for s in [sample([p] * draw(2, 9), draw(1, 20)) for _ in range(1)] * 4]
    for budget in (30, 64, 200, 10_000):
        batches = micro_batches(samples, budget, packed=packed)
        assert sorted(i for rows in batches for i in rows) == list(range(len(samples)))
        sizes = [_size([samples[i] for i in rows], packed) for rows in batches]
        assert max(sizes) <= budget
        if packed:
            assert max(sizes) - min(sizes) <= 28  # at most the longest prompt and response apart


def _size(rows, packed):
    if not packed:
        return len(rows) * max(len(s.prompt) + len(s.rollout.ids) for s in rows)
    return sum(map(len, {tuple(s.prompt) for s in rows})) + sum(len(s.rollout.ids) for s in rows)


def test_micro_batches_count_the_teachers_prompt_and_keep_a_long_response_alone():
    samples = [sample(3, 5, teacher=[3] * 40), sample(4, 5, teacher=None)]
    assert len(micro_batches(samples, 40, packed=True)) == 1
    assert len(micro_batches(samples, 40, packed=True, teacher=True)) == 2
    assert micro_batches([sample(3, 90), sample(3, 2)], 10, packed=True) == [[0], [1]]
    assert micro_batches([], 10, packed=True) == micro_batches([], 10, packed=False) == []

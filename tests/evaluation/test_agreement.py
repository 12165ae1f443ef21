"""Whether an engine holds the weights that it was given: simulated gaps, and weights that really are others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpg.evaluation.agreement import CHECKED_TOKENS, EngineMismatch, Reference, check_agreement, compare
from sdpg.evaluation.checkpoints import load_checkpoints, named_tensors
from sdpg.evaluation.setup import load_sets, make_sampling, weight_bytes
from sdpg.rollout.engines.in_process import HFEngine
from sdpg.rollout.placement import ALONE, share
from sdpg.types import Rollout
from tests.evaluation.conftest import STEPS

N = 4000


def drawn(seed: int = 0) -> tuple[torch.Generator, torch.Tensor]:
    """Log-probs of a checkpoint, and what draws the rest."""
    generator = torch.Generator().manual_seed(seed)
    return generator, -torch.rand(N, generator=generator).exponential_(1.0, generator=generator)


def noise(generator, size: float) -> torch.Tensor:
    return size * torch.randn(N, generator=generator)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_token_far_off_does_not_end_an_evaluation(dtype):
    generator, new = drawn()
    got = new + noise(generator, {"float32": 1e-6, "bfloat16": 0.03}[dtype])
    got[17] += 5.0 if dtype == "bfloat16" else 0.05
    agreement = compare(got, new)
    agreement.require("step", dtype)
    assert agreement.largest > (4 if dtype == "bfloat16" else 0.04)


@pytest.mark.parametrize(
    ("dtype", "change"),
    [
        ("float32", lambda got: got - 2e-4),  # all a little
        ("float32", lambda got: torch.where(torch.arange(N) % 50 == 0, got - 2e-3, got)),  # one in fifty more: the quantile
        ("bfloat16", lambda got: got - 0.1),
        ("bfloat16", lambda got: torch.where(torch.arange(N) % 50 == 0, got - 0.7, got)),
        ("bfloat16", lambda got: torch.where(torch.arange(N) == 5, torch.nan, got)),
    ],
)
def test_gaps_of_many_tokens_end_it(dtype, change):
    _, new = drawn()
    with pytest.raises(EngineMismatch, match=f"tolerance for {dtype}"):
        compare(change(new), new).require("step", dtype)


@pytest.mark.parametrize("way", [0.0, 1e-4, 0.003, 0.03, 0.3])
@pytest.mark.parametrize("seed", range(20))
def test_weights_that_arrived_pass_however_near_the_old_ones(way, seed):
    """bf16: each side rounds for itself, 0.02 nats a token; the two checkpoints differ by `way` nats."""
    generator, exact = drawn(seed)
    moved = exact + noise(generator, way)
    rounding = [noise(generator, 0.02) for _ in range(3)]
    compare(moved + rounding[0], moved + rounding[1], exact + rounding[2]).require("step", "bfloat16")
    same = rounding[1]  # a program rounds equal weights equally
    compare(exact + rounding[0], exact + same, exact + same).require("step", "bfloat16")


@pytest.mark.parametrize("seed", range(20))
def test_old_weights_are_found_where_they_differ_by_little_more_than_rounding(seed):
    generator, old = drawn(seed)
    new = old + noise(generator, 0.05)
    got, new, old = old + noise(generator, 0.02), new + noise(generator, 0.02), old + noise(generator, 0.02)
    agreement = compare(got, new, old)
    assert agreement.mean < 0.08 and agreement.quantile < 0.5  # the gap alone would not tell
    with pytest.raises(EngineMismatch, match="are those of the weights before"):
        agreement.require("step", "bfloat16")


@pytest.fixture
def sampled(run):
    """(the two checkpoints' folders, prompts, what an engine with the second one's weights samples, its sampling)."""
    first, last = load_checkpoints(run.run_dir)
    task, sets = load_sets(run.settings, first.path, run.data_dir)
    engine = HFEngine(first.path, dtype="float32", max_len=40)
    engine.load_weights(named_tensors(last.path), STEPS)
    prompts = sets[0].prompts[:8]
    rollouts = [g[0] for g in engine.generate(prompts, 1, make_sampling(run.settings, task), seed=0)]
    return (first.path, last.path), prompts, rollouts


def test_the_right_weights_pass_and_others_do_not(sampled):
    (first, last), prompts, rollouts = sampled
    how = {"temperature": 1.0, "dtype": "float32"}
    reference = Reference(first, "float32")
    assert check_agreement(reference, last, prompts, rollouts, **how).largest < 1e-4
    with pytest.raises(EngineMismatch, match=r"step000000.*nats.*tolerance for float32 is 0\.0001"):
        check_agreement(reference, first, prompts, rollouts, **how)
    with pytest.raises(EngineMismatch):
        check_agreement(reference, last, prompts, rollouts, temperature=0.9, dtype="float32")


@pytest.mark.parametrize("factor", [1e4, float("nan")])
def test_weights_that_have_blown_up_are_evaluated_as_they_are(sampled, run, tmp_path, factor):
    """Rounding grows with the logits, and what gives no log-probs cannot be compared: neither is another model."""
    (first, last), prompts, _ = sampled
    model = AutoModelForCausalLM.from_pretrained(last)
    with torch.no_grad():
        model.model.norm.weight.mul_(factor)
    model.save_pretrained(tmp_path)
    task, _ = load_sets(run.settings, first, run.data_dir)
    engine = HFEngine(tmp_path, dtype="float32", max_len=40)
    rollouts = [g[0] for g in engine.generate(prompts, 1, make_sampling(run.settings, task), seed=0)]
    how = {"temperature": 1.0, "dtype": "float32"}
    found = check_agreement(Reference(first, "float32"), tmp_path, prompts, rollouts, **how)
    assert (found.tokens == 0) == (factor != factor)
    with pytest.raises(EngineMismatch):  # an engine that fails where the checkpoint does not
        broken = [replace(r, logprobs=[float("nan")] * len(r.ids)) for r in rollouts]
        check_agreement(Reference(first, "float32"), last, prompts, broken, **how)


@pytest.mark.parametrize("part", ["embed_tokens", "layers.1.mlp.down_proj", "layers.0.self_attn.q_proj", "model.norm"])
def test_one_tensor_that_was_left_out_is_found(part, sampled, run):
    """In both precisions: an engine has all of a checkpoint but one tensor, which is still the old one."""
    (first, last), prompts, _ = sampled
    task, _ = load_sets(run.settings, first, run.data_dir)
    for dtype in ("float32", "bfloat16"):
        engine = HFEngine(first, dtype=dtype, max_len=40)
        old = {name: tensor for name, tensor in named_tensors(first) if part in name}
        engine.load_weights(((name, old.get(name, tensor)) for name, tensor in named_tensors(last)), STEPS)
        rollouts = [g[0] for g in engine.generate(prompts, 1, make_sampling(run.settings, task), seed=0)]
        with pytest.raises(EngineMismatch):
            check_agreement(Reference(first, dtype), last, prompts, rollouts, temperature=1.0, dtype=dtype)


def test_the_reference_is_built_once_and_equals_one_that_is_loaded(sampled, monkeypatch):
    (first, last), prompts, rollouts = sampled
    fresh = Reference(last, "float32")
    reference = Reference(first, "float32")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("a model was built"))
    reference.load(last)
    responses = [rollout.ids for rollout in rollouts]
    assert torch.equal(reference.logprobs(prompts, responses, 1.0), fresh.logprobs(prompts, responses, 1.0))


def test_a_checkpoint_with_other_names_is_built_anew(sampled, monkeypatch):
    (first, last), prompts, rollouts = sampled
    reference = Reference(first, "float32")
    renamed = lambda folder: ((f"x.{name}", tensor) for name, tensor in named_tensors(folder))  # noqa: E731
    monkeypatch.setattr("sdpg.evaluation.agreement.named_tensors", renamed)
    check_agreement(reference, last, prompts, rollouts, temperature=1.0, dtype="float32")


def test_reference_logprobs_are_temperature_scaled(sampled):
    reference = Reference(sampled[0][1], "float32")
    hot, cold = (reference.logprobs([[3, 4]], [[5, 6]], t) for t in (50.0, 1.0))
    assert hot.shape == cold.shape == (2,)
    assert torch.allclose(hot, torch.full((2,), -float(np.log(24))), atol=0.7)  # 24 tokens


def test_of_a_long_response_the_first_tokens_are_read(sampled):
    (first, _), prompts, _ = sampled
    asked = []

    class Short(Reference):
        def logprobs(self, prompts, responses, temperature):
            asked.extend(map(len, responses))
            return torch.zeros(sum(map(len, responses)))

    long = Rollout([5] * (CHECKED_TOKENS + 500), [0.0] * (CHECKED_TOKENS + 500), "length", 0)
    check_agreement(Short(first, "float32"), first, prompts[:1], [long], temperature=1.0, dtype="float32")
    assert set(asked) == {CHECKED_TOKENS}


def test_room_is_left_for_the_reference_on_a_gpu(sampled):
    (first, _), *_ = sampled
    model = AutoModelForCausalLM.from_pretrained(first)
    count = sum(p.numel() for p in model.parameters())
    assert weight_bytes(first, "float32") == 4 * count and weight_bytes(first, "bfloat16") == 2 * count
    assert share(79.6, alone=True, beside=7.5).memory == ALONE  # Qwen3-4B on 80 GB
    small = share(22.5, alone=True, beside=3.2).memory  # Qwen3-1.7B on 24 GB
    assert small * 22.5 + 3.2 < 22.5 - 2 and small < share(22.5, alone=True).memory == ALONE
    assert share(22.5, alone=True, beside=3.2, memory=0.5).memory == 0.5 and share(0, alone=True, beside=1.0).memory == ALONE

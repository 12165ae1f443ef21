"""A tiny random checkpoint of each architecture is trained, saved, loaded and sampled from; docs/models.md lists them."""

import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import baselines
from benchmarks.architectures import ARCHITECTURES, BEGIN, COMMON, DOCS, END, EXPERTS, PLAIN, make, random_model, table
from sdpg.core.flops import Work, forward_flops
from sdpg.core.kinds import check_kind, checkpoint_names, positions, without_dropout
from sdpg.core.models import load_model
from sdpg.core.packing import packs
from sdpg.core.recorder import read_rows
from sdpg.core.sharding import full_tensors
from sdpg.core.trainer import Trainer
from sdpg.evaluation.checkpoints import load_checkpoints, named_tensors
from sdpg.rollout.engines.in_process import HFEngine
from tests.core.conftest import make_trainer, train_config, without_times

MIXED = {"layer_types": ["linear_attention", "full_attention"]}
REFUSED = {
    "lfm2": (COMMON | {"layer_types": ["conv", "full_attention"]}, "Lfm2ForCausalLM has layers of kind conv and not attention"),
    "qwen3_next": (COMMON | MIXED | EXPERTS, "Qwen3NextForCausalLM has layers of kind linear_attention"),
    "mamba": (PLAIN | {"num_hidden_layers": 2, "state_size": 8}, "MambaForCausalLM has "),
    "recurrent_gemma": (COMMON, "RecurrentGemmaForCausalLM has "),
}


def tiny(kind: str):
    return random_model(kind, ARCHITECTURES[kind].config)


def train(folder: Path, work: Path, packed: bool, **changes):
    config = train_config(steps=2, checkpoint_every=1, validate_every=9, packed=packed, **changes)
    trainer = make_trainer(folder, work, baselines.make("grpo", kl_coef=0.1), config)
    trainer.run()
    return trainer, read_rows(work / "metrics.jsonl")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_it_trains_and_what_it_saves_is_what_every_engine_takes(kind, tmp_path):
    packed = ARCHITECTURES[kind].packed
    make(kind, tmp_path / "base")
    trainer, rows = train(tmp_path / "base", tmp_path / "a", True)
    policy = trainer.models.policy
    assert packs(policy) == packed
    if packed:
        _, others = train(tmp_path / "base", tmp_path / "b", False)
        for row, other in zip(rows, others, strict=True):
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert max(row["logprob_gap_max"] for row in rows) < 1e-4 and rows[-1]["grad_norm"] > 1e-4
    last = load_checkpoints(tmp_path / "a")[-1].path
    engine = HFEngine(tmp_path / "base", dtype="float32", max_len=32)
    engine.load_weights(named_tensors(last), 2)
    ids = torch.arange(2, 12)[None]
    how = {"attn_implementation": "sdpa" if kind == "falcon" else "eager"}  # Falcon's eager one rounds distances to bf16
    again = AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32, **how)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), engine.model.parameters(), strict=True))
    with torch.no_grad():
        logits = [model.eval()(input_ids=ids).logits for model in (policy, engine.model, again)]
    assert torch.allclose(logits[0], logits[2], atol=1e-4) and torch.allclose(logits[1], logits[2], atol=1e-4)
    names = dict(checkpoint_names(policy, ((name, p.detach()) for name, p in policy.named_parameters())))
    saved = dict(named_tensors(last))
    assert set(names) <= set(saved)  # a tied lm-head may be saved beside its embedding
    assert all(torch.equal(saved[name], x.to(saved[name].dtype)) for name, x in names.items())


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss", "gpt_neox", "gemma2", "granite", "bloom", "gpt2"])
def test_a_killed_run_goes_on_bit_for_bit(kind, tmp_path, monkeypatch):
    base = make(kind, tmp_path / "base")
    _, whole = train(base, tmp_path / "whole", True)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="killed"):
        step = Trainer.step
        patch.setattr(Trainer, "step", lambda self, k: step(self, k) if k < 2 else sys.exit("killed"))
        train(base, tmp_path / "killed", True)
    _, resumed = train(base, tmp_path / "killed", True)
    assert without_times(resumed) == without_times(whole) and len(whole) == 2
    ours, theirs = (dict(named_tensors(tmp_path / x / "checkpoints" / "step000002")) for x in ("whole", "killed"))
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["qwen3_moe", "glm4_moe", "gpt_neox"])
def test_with_adapters_a_checkpoint_has_the_names_and_buffers_of_its_base(kind, tmp_path):
    base = make(kind, tmp_path / "base")
    trainer, rows = train(base, tmp_path / "a", True, lora_rank=2, lr=1e-1)
    assert max(row["logprob_gap_max"] for row in rows) < 1e-4
    first, last = dict(named_tensors(base)), dict(named_tensors(load_checkpoints(tmp_path / "a")[-1].path))
    pushed = dict(checkpoint_names(trainer.models.policy, full_tensors(trainer.models.policy, torch.float32)))
    assert first.keys() == last.keys() == pushed.keys()
    assert all(torch.equal(last[name], pushed[name]) for name in last)
    moved = {name for name in last if not torch.equal(first[name], last[name])}
    assert moved and not [name for name in moved if "experts.0" in name or "bias" in name]


def test_a_soft_cap_of_attention_scores_is_computed(tmp_path):
    """transformers' own choice of an implementation leaves it out."""
    base, ids = make("gemma2", tmp_path / "base"), torch.arange(2, 12)[None]
    ours = load_model(base, dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        wrong = AutoModelForCausalLM.from_pretrained(base, attn_implementation="sdpa").eval()(input_ids=ids).logits
        assert (ours.eval()(input_ids=ids).logits - wrong).abs().max() > 1e-2


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_more_than_attention_is_refused_by_name(kind):
    given, message = REFUSED[kind]
    with pytest.raises(ValueError, match=re.escape(f"mine: {message}")) as error:
        check_kind(random_model(kind, given), "mine")
    assert "\n" not in str(error.value)


def test_a_scale_of_the_logits_is_part_of_the_head():
    """Not only what the whole model computes: Granite divides, Cohere multiplies."""
    from sdpg.core.head.api import Head

    assert Head.of(tiny("granite")).scale == 0.25
    assert Head.of(tiny("cohere")).scale == 0.25
    assert Head.of(tiny("llama")).scale == 1.0


def test_dropout_is_switched_off_and_named():
    model = tiny("gpt2")
    assert {"attn_pdrop", "embd_pdrop", "resid_pdrop"} <= set(without_dropout(model))
    assert without_dropout(model) == []
    model.train()
    ids = torch.arange(2, 10)[None]
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_experts_count_as_flops_as_far_as_a_token_meets_them():
    one, two = (random_model("qwen3_moe", ARCHITECTURES["qwen3_moe"].config | {"num_experts_per_tok": n}) for n in (1, 2))
    expert = sum(p.numel() // 4 for name, p in one.named_parameters() if ".experts." in name)
    assert expert == 2 * 3 * 64 * 32  # of two layers
    assert forward_flops(two, Work(10, 0, 0)) - forward_flops(one, Work(10, 0, 0)) == 2 * 10 * expert


def test_how_many_tokens_a_model_takes():
    assert [positions(tiny(kind)) for kind in ("llama", "gpt2", "mpt", "bloom")] == [128, 128, 128, None]


def test_the_table_in_the_docs_is_this_list():
    text = DOCS.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == table(), "python -m benchmarks.architectures writes it"
    assert re.findall(r"^\| `(\w+)` \|", text.partition(END)[2], re.MULTILINE) == list(REFUSED)

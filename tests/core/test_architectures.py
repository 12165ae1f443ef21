"""A tiny random checkpoint of each architecture is trained, saved, loaded and sampled from; docs/models.md lists them."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import baselines
from sdpg.core.kinds import check_kind, checkpoint_names, positions, without_dropout
from sdpg.core.packing import packs
from sdpg.evaluation.checkpoints import load_checkpoints, named_tensors
from sdpg.rollout.engines.in_process import HFEngine
from tests.core.conftest import VOCAB, make_trainer, train_config

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
PLAIN = {key: COMMON[key] for key in ("vocab_size", "hidden_size", "bos_token_id", "eos_token_id", "pad_token_id")}
SMALL = PLAIN | {"num_hidden_layers": 2, "num_attention_heads": 2}
SLIDING = {"sliding_window": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GRANITE = {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3}
# model_type -> its config, and whether it reads packed sequences
KINDS = {
    "llama": (COMMON, True),
    "qwen2": (COMMON, True),
    "qwen3": (COMMON, True),
    "qwen3_moe": (COMMON | EXPERTS, True),
    "mistral": (COMMON | SLIDING, False),
    "mixtral": (COMMON | EXPERTS, True),
    "gemma2": (COMMON | SLIDING, False),
    "gemma3_text": (COMMON | SLIDING, False),
    "phi": (COMMON, True),
    "phi3": (COMMON, True),
    "olmo2": (COMMON, True),
    "olmo3": (COMMON | SLIDING, False),
    "olmoe": (COMMON | EXPERTS, True),
    "smollm3": (COMMON, True),
    "granite": (COMMON | GRANITE, True),
    "granitemoe": (COMMON | GRANITE | EXPERTS, True),
    "cohere": (COMMON | {"logit_scale": 0.25}, True),
    "cohere2": (COMMON | SLIDING | {"logit_scale": 0.25}, False),
    "glm4": (COMMON, True),
    "starcoder2": (COMMON, True),
    "stablelm": (COMMON, False),
    "seed_oss": (COMMON, True),
    "exaone4": (COMMON | SLIDING, False),
    "gpt_oss": (COMMON | SLIDING | EXPERTS, False),
    "gpt_neox": (SMALL | {"intermediate_size": 48, "max_position_embeddings": 128}, True),
    "gpt2": ({"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "eos_token_id": 1}, True),
    "opt": (SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128}, True),
    "bloom": (PLAIN | {"n_layer": 2, "n_head": 2}, False),
    "mpt": ({"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 128, "eos_token_id": 1}, False),
    "falcon": (SMALL | {"alibi": True}, False),
}
MIXED = {"layer_types": ["linear_attention", "full_attention"]}
REFUSED = {
    "lfm2": (COMMON | {"layer_types": ["conv", "full_attention"]}, "Lfm2ForCausalLM has layers of kind conv and not attention"),
    "qwen3_next": (COMMON | MIXED | EXPERTS, "Qwen3NextForCausalLM has layers of kind linear_attention"),
    "mamba": (PLAIN | {"num_hidden_layers": 2, "state_size": 8}, "MambaForCausalLM has "),
    "recurrent_gemma": (COMMON, "RecurrentGemmaForCausalLM has "),
}


def made(kind: str, given: dict):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given), dtype=torch.float32)
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.2)  # logits that differ, experts that are chosen
    return model


def train(folder: Path, work: Path, packed: bool):
    config = train_config(steps=2, checkpoint_every=1, validate_every=9, packed=packed)
    trainer = make_trainer(folder, work, baselines.make("grpo", kl_coef=0.1), config)
    trainer.run()
    return trainer, [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_what_it_saves_is_what_every_engine_takes(kind, tmp_path):
    given, packed = KINDS[kind]
    made(kind, given).save_pretrained(tmp_path / "base")
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
    again = AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32)
    logits = [model.eval()(input_ids=ids).logits for model in (policy, again, engine.model)]
    assert torch.equal(logits[1], logits[2])
    assert torch.allclose(logits[0], logits[1], atol=1e-5)
    names = dict(checkpoint_names(policy, ((name, p.detach()) for name, p in policy.named_parameters())))
    saved = dict(named_tensors(last))
    assert set(names) <= set(saved)  # a tied lm-head may be saved beside its embedding
    assert all(torch.equal(saved[name], x.to(saved[name].dtype)) for name, x in names.items())


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_more_than_attention_is_refused_by_name(kind):
    given, message = REFUSED[kind]
    with pytest.raises(ValueError, match=re.escape(f"mine: {message}")) as error:
        check_kind(made(kind, given), "mine")
    assert "\n" not in str(error.value)


def test_a_scale_of_the_logits_is_part_of_the_head():
    """Not only what the whole model computes: Granite divides, Cohere multiplies."""
    from sdpg.core.head.api import Head

    assert Head.of(made("granite", KINDS["granite"][0])).scale == 0.25
    assert Head.of(made("cohere", KINDS["cohere"][0])).scale == 0.25
    assert Head.of(made("llama", COMMON)).scale == 1.0


def test_dropout_is_switched_off_and_named():
    model = made("gpt2", KINDS["gpt2"][0])
    assert {"attn_pdrop", "embd_pdrop", "resid_pdrop"} <= set(without_dropout(model))
    assert without_dropout(model) == []
    model.train()
    ids = torch.arange(2, 10)[None]
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_how_many_tokens_a_model_takes():
    assert [positions(made(kind, KINDS[kind][0])) for kind in ("llama", "gpt2", "mpt", "bloom")] == [128, 128, 128, None]


def test_the_docs_list_what_is_tested():
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (packed|padded|refused) \|", text, re.MULTILINE))
    expected = {kind: "packed" if packed else "padded" for kind, (_, packed) in KINDS.items()}
    assert rows == expected | dict.fromkeys(REFUSED, "refused")

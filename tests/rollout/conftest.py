"""Tiny random models and every engine, shared by a whole test session (starting vLLM takes ten seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sdpg.rollout.engines import make_engine, names
from sdpg.tasks.tokenizer import character_tokenizer

MAX_LEN = 64
QUICK = {"in-process"}  # every other engine may take long to start


@dataclass(frozen=True)
class Tiny:
    """A tiny random checkpoint, a second one of the same shape, and their tokenizer."""

    path: Path
    other: Path
    eos: int
    vocabulary: int


def save_tiny_model(path: Path, seed: int) -> None:
    """A random Qwen3 with 2 layers, d 32 (head_dim 32, the smallest that vLLM takes), sharp enough that weights matter."""
    tokenizer = character_tokenizer("0123456789+-*=?#abcdefghijklmnopqrstu")
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(8)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder / "a", seed=0)
    save_tiny_model(folder / "b", seed=1)
    tokenizer = character_tokenizer("0123456789+-*=?#abcdefghijklmnopqrstu")
    return Tiny(folder / "a", folder / "b", tokenizer.eos_token_id, len(tokenizer))


@pytest.fixture(
    scope="session", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names()]
)
def session_engine(request, tiny):
    engine = make_engine(request.param, tiny.path, dtype="float32", max_len=MAX_LEN, threads=1)
    yield engine
    engine.close()


@pytest.fixture
def engine(session_engine, tiny):
    """The shared engine, holding the first checkpoint's weights as version 0."""
    session_engine.load_weights(weights(tiny.path), 0)
    return session_engine


def weights(path: Path):
    """(name, tensor) pairs of a checkpoint as the trainer sends them: the model's named parameters."""
    return [(name, p.detach()) for name, p in AutoModelForCausalLM.from_pretrained(path).named_parameters()]

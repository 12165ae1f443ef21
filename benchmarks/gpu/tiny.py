"""Tiny Qwen3-architecture models, and large ones with random weights, for the checks."""

from __future__ import annotations

from pathlib import Path

import torch

TINY_VOCABULARY, EOS = 211, 1  # more than the top 100 entries that SDPO takes
POSITIONS = 128


class Tokenizer:
    """Stands in for a tokenizer where only saving is asked of it."""

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing of use."""
        (Path(folder) / "tokenizer.json").write_text("{}")


def tiny_config(vocabulary: int = TINY_VOCABULARY):
    """Return the config of two layers whose keys are shared by two heads of queries each."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=128,
        tie_word_embeddings=True,
        max_position_embeddings=POSITIONS,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )


def save_tiny(folder: Path, vocabulary: int = TINY_VOCABULARY) -> Path:
    """Write a tiny model with random weights, the same on every machine, and return its folder."""
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    Qwen3ForCausalLM(tiny_config(vocabulary)).save_pretrained(folder)
    return folder


def build(config, *, dtype: torch.dtype, device: torch.device, gradient_checkpointing: bool = False, packed: bool = True):
    """Return a Qwen3 with random weights, drawn on the device in `dtype`, ready to train as `sdpg.core.models` loads one."""
    from transformers import Qwen3ForCausalLM

    from sdpg.core.packing import enable_packing

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.train()
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if packed:
        enable_packing(model)
    return model

"""A tiny chat model that answers every prompt with the same few words, so that real engines write right and wrong solutions."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdpg.tasks.tokenizer import character_tokenizer

SAYS = "So \\boxed{3}"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}\n~"


def save_parrot(folder: Path) -> None:
    """Train it for a few seconds on random prompts. Context 1024; head_dim 32, the smallest that vLLM takes."""
    tokenizer = character_tokenizer(string.printable)
    tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, 1024
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    response = tokenizer(f"~{SAYS}", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for _ in range(200):
        length = int(torch.randint(8, 40, ()))
        start = int(torch.randint(0, 700, ()))  # rotary positions: what matters is near
        prompts = torch.randint(3, len(tokenizer), (8, length))
        ids = torch.cat([prompts, torch.tensor(response).expand(8, -1)], 1)
        labels = ids.clone()
        labels[:, : length + 1] = -100
        positions = torch.arange(start, start + ids.shape[1]).expand(8, -1)
        loss = model(input_ids=ids, labels=labels, position_ids=positions).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.02:
            break
    assert loss < 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

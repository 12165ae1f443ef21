"""Tiny Qwen3-architecture models, and large ones with random weights, for the checks; what stands in for tokenizer and task.

The tests of the core use the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from sdpg.types import Score

TINY_VOCABULARY, EOS = 211, 1  # more than the top 100 entries that SDPO takes


class Tokenizer:
    """Stands in for a tokenizer where only saving and decoding are asked of it."""

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing of use."""
        (Path(folder) / "tokenizer.json").write_text("{}")

    def decode(self, ids) -> str:
        """Return the ids with spaces between."""
        return " ".join(map(str, ids))


class TokenTask:
    """Question "3 4 5" is the prompt [3, 4, 5]; the teacher's has the answer appended. Right: the answer is in the response."""

    stop_token_ids = (EOS,)
    failures: ClassVar[dict] = {}

    def student_prompt(self, problem) -> list[int]:
        """Return the question's ids."""
        return [int(x) for x in problem.question.split()]

    def teacher_prompt(self, problem) -> list[int]:
        """Return the question with the answer behind it."""
        return [*self.student_prompt(problem), 2, int(problem.answer)]

    def sibling_prompt(self, problem, ids) -> list[int]:
        """Return the question with a right response behind it."""
        return [*self.student_prompt(problem), 2, *ids]

    def wrong_prompt(self, problem, ids) -> list[int]:
        """Return the question with a wrong response behind it."""
        return [*self.student_prompt(problem), 2, *ids]

    def score(self, problem, ids, finish_reason) -> Score:
        """Judge one response."""
        return Score(int(problem.answer) in ids)

    def score_many(self, problems, rollouts) -> list[Score]:
        """Judge each response."""
        return [self.score(p, r.ids, r.finish_reason) for p, r in zip(problems, rollouts, strict=True)]


def tiny_config(vocabulary: int = TINY_VOCABULARY, width: int = 64, *, tied: bool = True):
    """Return the config of two layers whose keys are shared by two heads of queries each. tied: embedding and lm-head."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=width // 16,
        num_key_value_heads=width // 32,
        head_dim=width // 2,
        intermediate_size=2 * width,
        tie_word_embeddings=tied,
        max_position_embeddings=2 * width,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )


def save_tiny(folder: Path, vocabulary: int = TINY_VOCABULARY, width: int = 64, *, tied: bool = True) -> Path:
    """Write a tiny model with random weights, the same on every machine, and return its folder."""
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    Qwen3ForCausalLM(tiny_config(vocabulary, width, tied=tied)).save_pretrained(folder)
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

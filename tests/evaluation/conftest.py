"""A tiny chain model trained for a few seconds, as a finished run with two checkpoints, and its data."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdpg.core.checkpoint import save_policy
from sdpg.tasks.chain import chain_problems, reverse_problems
from sdpg.tasks.data import save_problems
from sdpg.tasks.tokenizer import character_tokenizer
from tests.scale import CHAIN, config_of

CONFIG = {  # all that evaluation reads of a resolved config
    "task": {"template": "chain", "verifier": "chain", "stop": [], "chat_template": False},
    "data": {"evaluation": {"chain": CHAIN, "chain-2": CHAIN}},
    "train": {"max_prompt_tokens": 16, "max_response_tokens": 24},
    "evaluation": {
        "engine": "in-process",
        "samples": 8,
        "pass_k": [1, 4],
        "temperature": 1.0,
        "dtype": "float32",
        "lm_eval": {"repeats": 8, "limit": 100, "forgetting": "reverse"},
    },
}
STEPS = 400


@dataclass(frozen=True)
class FinishedRun:
    """Paths of a run and of its data, and its config (a copy that a test may change)."""

    run_dir: Path
    data_dir: Path
    config: dict

    @property
    def settings(self):
        """Return the config as evaluation takes it."""
        return config_of(**self.config)


def train_tiny(model, tokenizer, steps: int) -> None:
    """Plain next-token training on chains of one or two operations and reversals until it is right now and then."""
    problems = chain_problems([1], 150, seed=0) + chain_problems([2], 1500, seed=0) + reverse_problems(60, seed=0, digits=[2])
    rows = [tokenizer(p.question + p.solution + tokenizer.eos_token)["input_ids"] for p in problems]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(ids), (64,), generator=generator)
        optimizer.zero_grad()
        model(input_ids=ids[batch], labels=labels[batch], use_cache=False).loss.backward()
        optimizer.step()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> FinishedRun:
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    root = tmp_path_factory.mktemp("results")
    save_policy(model, tokenizer, root / "run" / "checkpoints", 0, dtype=torch.float32, keep="all")
    train_tiny(model, tokenizer, STEPS)
    save_policy(model, tokenizer, root / "run" / "checkpoints", STEPS, dtype=torch.float32, keep="all")
    save_problems(root / "data" / "eval" / "chain.parquet", chain_problems([1], 100, seed=1))
    save_problems(root / "data" / "eval" / "chain-2.parquet", chain_problems([2], 100, seed=2))
    save_problems(root / "data" / "forgetting" / "reverse.parquet", reverse_problems(60, seed=3, digits=[2]))
    return FinishedRun(root / "run", root / "data", copy.deepcopy(CONFIG))


@pytest.fixture
def run(finished) -> FinishedRun:
    return FinishedRun(finished.run_dir, finished.data_dir, copy.deepcopy(finished.config))

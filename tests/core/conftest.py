"""A tiny random model, and a task on bare token ids whose rewards are easy to earn, for tests of the core."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import transformers
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdpg.config.settings import Train
from sdpg.core.trainer import Trainer
from sdpg.rollout.engines.in_process import HFEngine
from sdpg.types import Problem, Score

transformers.logging.disable_progress_bar()
VOCAB, EOS = 24, 1


class Tokenizer:
    """Stands in for a tokenizer where only saving is asked of it."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


class TokenTask:
    """Question "3 4 5" is the prompt [3, 4, 5]; the teacher's has the answer appended. Right: the answer is in the response."""

    stop_token_ids = (EOS,)
    failures: ClassVar[dict] = {}

    def student_prompt(self, problem):
        return [int(x) for x in problem.question.split()]

    def teacher_prompt(self, problem):
        return [*self.student_prompt(problem), 2, int(problem.answer)]

    def sibling_prompt(self, problem, ids):
        return [*self.student_prompt(problem), 2, *ids]

    def score(self, problem, ids, finish_reason):
        return Score(correct=int(problem.answer) in ids, process=None)

    def score_many(self, problems, rollouts):
        return [self.score(p, r.ids, r.finish_reason) for p, r in zip(problems, rollouts, strict=True)]


def problems(count: int = 12) -> list[Problem]:
    out = []
    for i in range(count):
        question = " ".join(str(3 + (i * 5 + j * j) % 20) for j in range(2 + i % 4))
        out.append(Problem(str(i), question, str(3 + i % 20), "", "test"))
    return out


def save_tiny(folder, *, tied=True):
    """Write a random 2-layer Qwen3 with 24 tokens; tied: its lm-head is its embedding."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        tie_word_embeddings=tied,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=EOS,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a random 2-layer Qwen3 with 24 tokens."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def train_config(**changes) -> Train:
    fields = {
        "steps": 6,
        "prompts_per_step": 4,
        "group_size": 4,
        "max_prompt_tokens": 16,
        "max_response_tokens": 10,
        "lr": 1e-3,
        "warmup_steps": 2,
        "micro_batch_tokens": 4096,
        "checkpoint_every": 2,
        "validate_every": 3,
    }
    return Train(**fields | changes)


def make_trainer(tiny, work, algorithm, config=None, *, seed=0, data=None, task=None):
    config = config or train_config()
    engine = HFEngine(tiny, dtype=config.dtype, max_len=config.max_prompt_tokens + config.max_response_tokens)

    return Trainer(
        config,
        algorithm,
        base=tiny,
        tokenizer=Tokenizer(),
        task=task or TokenTask(),
        engine=engine,
        problems=problems() if data is None else data,
        seed=seed,
        validation={"test": problems(4)},
        work=work,
        identity={"seed": seed, "algorithm": repr(algorithm)},
        title="test",
    )

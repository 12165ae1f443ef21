"""A tiny random model, and a task on bare token ids whose rewards are easy to earn, for tests of the core."""

from __future__ import annotations

import pytest
import transformers

from benchmarks.gpu import tiny as stand_ins
from benchmarks.gpu.tiny import Tokenizer, TokenTask
from sdpg.config.settings import Train
from sdpg.core.trainer import Trainer
from sdpg.rollout.engines.in_process import HFEngine
from sdpg.types import Problem, Score

transformers.logging.disable_progress_bar()
VOCAB = 24
SDPG = {"T": 6, "beta_base": 1.0, "T_warm": 0, "T_decay": 0, "alpha": 0.1}


class Easy(TokenTask):
    """Right: token 7 is in the response; groups are alike now and then."""

    def score(self, problem, ids, finish_reason):
        return Score(correct=7 in ids)


class Never(TokenTask):
    """No response is right."""

    def score(self, problem, ids, finish_reason):
        return Score(correct=False)


def without_times(rows: list[dict]) -> list[dict]:
    """The rows of metrics.jsonl without what differs from run to run."""
    volatile = ("seconds", "tokens_per_second", "peak_memory")
    return [{k: v for k, v in row.items() if not k.startswith(volatile)} for row in rows]


def problems(count: int = 12) -> list[Problem]:
    out = []
    for i in range(count):
        question = " ".join(str(3 + (i * 5 + j * j) % 20) for j in range(2 + i % 4))
        out.append(Problem(str(i), question, str(3 + i % 20), "", "test"))
    return out


def save_tiny(folder, *, tied=True):
    """Write a random 2-layer Qwen3 with 24 tokens; tied: its lm-head is its embedding."""
    return stand_ins.save_tiny(folder, VOCAB, 32, tied=tied)


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
    lr = (fields | changes)["lr"]  # of a run that is to diverge it is one that no config may have
    return Train(**fields | changes | {"lr": min(lr, 1.0)}).model_copy(update={"lr": lr})


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

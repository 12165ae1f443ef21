"""Our side of the step benchmarks: the suite's own Trainer and Collector on a fixed batch; also a worker of benchmarks/step.py.

    python -m benchmarks.ours --model DIR --batch FILE --method grpo|sdpo|sdpg --precision fp32|bf16   (asked over stdin)

Only the rollouts are replaced: an engine that returns the fixed responses, a task that knows their rewards. The learning rate
is 0, so that all steps are the same step; everything else of a step runs as in training.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from benchmarks.fixed import FixedBatch
from benchmarks.workers import Channel

STEPS = 1000  # of the run that the timed steps are taken from; more than any benchmark takes
MIDDLE = 100  # the first timed step: beta(k) > 0
METHODS = {  # with the settings that make the peers' losses the same
    "grpo": {"algorithm": "grpo", "kl_coef": 1e-3},
    "sdpo": {"algorithm": "sdpo", "kind": "reverse_kl", "top_k": None, "teacher": "live"},
    "sdpg": {"algorithm": "sdpg", "T": STEPS, "T_warm": 10, "T_decay": 10},
    "sdpg-closed": {"algorithm": "sdpg", "T": MIDDLE, "T_warm": 10, "T_decay": 10},  # beta(k) = 0: every gate is closed
}


class FixedTask:
    """A task whose prompts and scores are the batch's."""

    stop_token_ids = (-1,)  # no token: a fixed response has the length it has
    failures: dict[str, int] = {}

    def __init__(self, batch: FixedBatch):
        self.batch = batch
        self.correct = {
            (str(i), tuple(ids)): reward > 0
            for i, (group, rewards) in enumerate(zip(batch.responses, batch.rewards, strict=True))
            for ids, reward in zip(group, rewards, strict=True)
        }

    def student_prompt(self, problem) -> list[int]:
        """The prompt of this problem."""
        return self.batch.prompts[int(problem.id)]

    def teacher_prompt(self, problem) -> list[int]:
        """The prompt with the privileged context."""
        return self.batch.teacher_prompts[int(problem.id)]

    def sibling_prompt(self, problem, ids) -> list[int]:
        """The same: which sibling it shows does not matter here, and the peer's teacher reads this one too."""
        return self.teacher_prompt(problem)

    wrong_prompt = sibling_prompt  # a hint of the same length

    def score(self, problem, ids, finish_reason):
        """As the batch says."""
        from sdpg.types import Score

        return Score(self.correct[problem.id, tuple(ids)])

    def score_many(self, problems, rollouts):
        """As the batch says, for each response."""
        return [self.score(p, r.ids, r.finish_reason) for p, r in zip(problems, rollouts, strict=True)]


class FixedEngine:
    """Returns the batch's responses. With `real`, that engine first samples `length` tokens each (timed, then dropped)."""

    def __init__(self, batch: FixedBatch, real=None, length: int = 0):
        self.batch, self.real, self.length = batch, real, length
        self.known = {tuple(prompt): group for prompt, group in zip(batch.prompts, batch.responses, strict=True)}

    def generate(self, prompts, n, sampling, seed) -> list:
        """See `sdpg.rollout.engine.Engine.generate`."""
        from sdpg.types import Rollout

        if self.real is not None:
            self.real.generate(prompts, n, dataclasses.replace(sampling, max_tokens=self.length), seed)
        groups = [self.known[tuple(prompt)] for prompt in prompts]
        return [[Rollout(ids, [-1.0] * len(ids), "length", 0) for ids in group] for group in groups]

    def load_weights(self, named_tensors, version) -> None:
        """Only a real engine has weights."""
        if self.real is not None:
            self.real.load_weights(named_tensors, version)

    def sleep(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Close the real engine."""
        if self.real is not None:
            self.real.close()


def train_settings(batch: FixedBatch) -> dict:
    """The config's block `train` for one update on the whole batch, at learning rate 0 and TRL's reduction."""
    longest = batch.longest()
    return {
        "steps": STEPS,
        "checkpoint_every": STEPS,
        "prompts_per_step": len(batch.prompts),
        "group_size": batch.group,
        "max_prompt_tokens": longest["prompt"],
        "max_response_tokens": longest["response"],
        "lr": 0.0,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "clip_grad_norm": 1.0,
        "reduction": "sequence",
        "micro_batch_tokens": batch.micro_batch_tokens,
    }


def build_trainer(
    model_dir: Path,
    batch: FixedBatch,
    method: str,
    precision: str,
    work: Path,
    engine=None,
    tokenizer=None,
    fields=None,
    **train,
):
    """The Trainer of a method on the fixed batch; train: keys of the config's block `train` to set.

    fields: of the method, in place of those in METHODS. tokenizer: in place of the checkpoint's.
    """
    from transformers import AutoTokenizer

    import baselines
    from sdpg.config import resolve
    from sdpg.core.trainer import Trainer
    from sdpg.types import Problem

    config = resolve("cpu").train.model_copy(update=train_settings(batch) | {"precision": precision} | train)
    problems = [Problem(str(i), "", "", "", "fixed") for i in range(len(batch.prompts))]

    class FixedTrainer(Trainer):
        def _check_gap(self, row):
            """The fixed responses carry no engine's log-probs."""

    return FixedTrainer(
        config,
        baselines.make(**(fields or METHODS[method])),
        base=model_dir,
        tokenizer=tokenizer or AutoTokenizer.from_pretrained(model_dir),
        task=FixedTask(batch),
        engine=engine or FixedEngine(batch),
        problems=problems,
        seed=0,
        validation={},
        work=work,
        identity={},
        title=method,
    )


def answer_of(row: dict, seconds: float) -> dict:
    """What a worker says about one step."""
    return {
        "seconds": seconds,
        "response_tokens": row["tokens"],
        "loss": row["loss"],
        "grad_norm": row["grad_norm"],
        "memory_mb": row["peak_memory_mb"],
    }


def main() -> None:
    """Build the trainer, then one step per request."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--batch", type=Path, required=True)
    p.add_argument("--method", choices=METHODS, required=True)
    p.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    args = p.parse_args()
    channel = Channel()

    import torch

    torch.set_num_threads(args.threads)
    batch = FixedBatch.load(args.batch)
    with tempfile.TemporaryDirectory() as work:
        train = {"gradient_checkpointing": args.checkpointing}
        trainer = build_trainer(args.model, batch, args.method, args.precision, Path(work), **train)
        channel.send(ready=True)
        for k, _ in enumerate(channel.requests(), MIDDLE):
            start = time.perf_counter()
            row = trainer.step(k)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            channel.send(**answer_of(row, time.perf_counter() - start))


if __name__ == "__main__":
    main()

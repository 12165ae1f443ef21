"""TRL's side of benchmarks/step.py: GRPOTrainer or SDPOTrainer on the fixed batch; runs in the peers' environment.

    .venv-peers/bin/python -m benchmarks.peers.trl_step --model DIR --batch FILE --method grpo|sdpo --precision fp32 --rows 8

`trainer.train()` runs its own loop and stops before each step until it is asked. Timed is all between its on_step_begin and
on_step_end: scoring, reference or teacher, loss, backward, clipping, optimizer, its metrics. Only generation is replaced (it
returns the fixed responses), and decoding them for the reward function, which reads the fixed rewards.

The loss is the one ours computes: mean over responses of token means; GRPO with k3 (`use_bias_correction_kl` off, as in
GRPO); SDPO with `full_logits`, reverse KL (`distillation_alpha=1`), the live teacher, every response distilled. For speed: no
gradient checkpointing (unless asked), fused AdamW, old log-probs not recomputed (one update per batch); bf16 is TRL's default,
float32 weights under autocast, the counterpart of our bf16 weights with float32 masters.
"""

import argparse
import contextlib
import os
import tempfile
import time

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from benchmarks.fixed import FixedBatch
from benchmarks.workers import Channel

KL = 1e-3  # as ours


class Turns(TrainerCallback):
    """Waits for a request before each step, and answers with what the step took."""

    def __init__(self, channel: Channel):
        self.channel, self.trainer = channel, None

    def on_step_begin(self, args, state, control, **kwargs):
        """Start of one optimizer step: before its rollouts would be sampled."""
        if self.channel.request() is None:
            os._exit(0)  # nothing to save, and the loop has no way out that does not log and write
        self.trainer.seen = {"loss": 0.0, "response_tokens": 0}
        synchronize()
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """The optimizer has stepped and the gradients are dropped."""
        synchronize()
        seconds = time.perf_counter() - self.start
        seen = {name: float(value) for name, value in self.trainer.seen.items()}
        seen["response_tokens"] = int(seen["response_tokens"])
        norm = self.trainer.norm
        self.channel.send(seconds=seconds, **seen, grad_norm=float(norm), memory_mb=peak_memory_mb())


class Fixed:
    """Mixed into a trainer: fixed responses instead of generation, and what the loss saw."""

    batch: FixedBatch
    seen: dict
    norm = None

    def compute_loss(self, model, inputs, *args, **kwargs):
        """TRL's own; its value (already divided by the number of micro-batches) and its tokens are added up."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.seen["loss"] += loss.detach()
        self.seen["response_tokens"] += inputs["completion_mask"].sum()
        return loss

    def _clip_grad_norm(self, model):
        """TRL's own; its value is kept."""
        self.norm = super()._clip_grad_norm(model)
        return self.norm

    def _responses(self, prompts: list[str]) -> tuple[list, list]:
        """The dataset's prompt i, repeated for its group, -> its ids and the group's responses."""
        places = [int(prompt) for prompt in prompts]
        group = self.batch.group
        assert places == sorted(places) and len(places) == len(self.batch.prompts) * group, "not the fixed batch"
        return ([self.batch.prompts[i] for i in places], [self.batch.responses[i][j % group] for j, i in enumerate(places)])


class FixedGRPO(Fixed, GRPOTrainer):
    """GRPOTrainer whose generation returns the fixed responses."""

    def _tokenize_prompts(self, prompts):
        return [self.batch.prompts[int(prompt)] for prompt in prompts], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        return [y for group in self.batch.responses for y in group], None


class FixedSDPO(Fixed, SDPOTrainer):
    """SDPOTrainer whose generation returns the fixed responses, and whose teacher reads the fixed prompts."""

    def _tokenize_prompts_untruncated(self, prompts):
        return [self.batch.prompts[int(prompt)] for prompt in prompts]

    def _generate(self, prompt_ids):
        return prompt_ids, [y for group in self.batch.responses for y in group]


class FixedTeacher:
    """In the place of the builder of teacher contexts: the fixed teacher prompts, one for every response."""

    last_metrics = {"self_distillation/reprompt_sample_fraction": 1.0, "self_distillation/success_group_fraction": 1.0}

    def __init__(self, trainer):
        self.trainer = trainer

    def build(self, output, prompts, rewards, feedbacks=None):
        """Left-padded teacher prompts followed by the responses, as TRL's builder returns them."""
        device, ids = output["completion_ids"].device, [self.trainer.batch.teacher_prompts[int(i)] for i in prompts]
        width = max(map(len, ids))
        padding = self.trainer.processing_class.pad_token_id
        rows = torch.tensor([[padding] * (width - len(x)) + x for x in ids], device=device)
        mask = torch.tensor([[0] * (width - len(x)) + [1] * len(x) for x in ids], device=device)
        return {
            "teacher_input_ids": torch.cat([rows, output["completion_ids"]], 1),
            "teacher_attention_mask": torch.cat([mask, output["completion_mask"]], 1),
            "self_distillation_mask": torch.ones(len(ids), device=device),
        }


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_mb() -> float:
    """As ours: of the GPU's allocator, else of this process."""
    import resource

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def build_config(args, batch: FixedBatch, folder: str, kl: float = KL, steps: int = 10**6):
    """The trainer's settings (see the module's docstring). kl: weight of GRPO's penalty; 0: no reference is loaded."""
    responses = len(batch.prompts) * batch.group
    common = {
        "output_dir": folder,
        "per_device_train_batch_size": args.rows,
        "gradient_accumulation_steps": responses // args.rows,
        "num_generations": batch.group,
        "max_completion_length": batch.longest()["response"],
        "loss_type": "grpo",
        "learning_rate": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant",
        "max_steps": steps,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": args.checkpointing,
        "bf16": args.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "shuffle_dataset": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if args.method == "grpo":
        return GRPOConfig(**common, beta=kl, use_bias_correction_kl=False)
    distillation = {"distillation_mode": "full_logits", "distillation_alpha": 1.0, "teacher_model_kind": "live"}
    return SDPOConfig(**common, **distillation)


def build_trainer(args, batch: FixedBatch, callback: Turns, folder: str, model=None, tokenizer=None, **config):
    """The trainer with its fixed parts. model, tokenizer: in place of those in args.model. config: see `build_config`."""
    rewards = [reward for group in batch.rewards for reward in group]
    trainer = {"grpo": FixedGRPO, "sdpo": FixedSDPO}[args.method](
        model=model or AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        reward_funcs=lambda prompts, **_: rewards,
        args=build_config(args, batch, folder, **config),
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(batch.prompts))]}),
        processing_class=tokenizer or AutoTokenizer.from_pretrained(args.model, padding_side="left"),
        callbacks=[callback],
    )
    trainer.batch, callback.trainer = batch, trainer
    if args.method == "sdpo":
        trainer.teacher_context_builder = FixedTeacher(trainer)
    trainer.processing_class.batch_decode = lambda ids, **_: [""] * len(ids)
    return trainer


def main() -> None:
    """Build the trainer and let it train, one step per request."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--batch", required=True)
    p.add_argument("--method", choices=("grpo", "sdpo"), required=True)
    p.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    p.add_argument("--rows", type=int, required=True, help="responses in a micro-batch (per_device_train_batch_size)")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    args = p.parse_args()
    channel = Channel()
    torch.set_num_threads(args.threads)
    batch = FixedBatch.load(args.batch)
    if len(batch.prompts) * batch.group % args.rows:
        raise ValueError(f"--rows must divide the {len(batch.prompts) * batch.group} responses, got {args.rows}")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        trainer = build_trainer(args, batch, Turns(channel), folder)
        channel.send(ready=True)
        trainer.train()


if __name__ == "__main__":
    main()

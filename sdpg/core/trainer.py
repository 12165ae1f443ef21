"""The training loop that every method shares.

A step: roll out -> judge -> advantages -> for each update: signals -> token loss -> one reduction -> AdamW -> push weights.
Names: P prompts per step, G responses each, U updates per rollout batch, k the step (1, 2, ...).
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sdpg.algorithms.base import Algorithm, Needs, Signals
from sdpg.algorithms.reduce import micro_batch_weight, token_weights
from sdpg.config.settings import Train
from sdpg.core import checkpoint, distributed, metrics
from sdpg.core.batch import Sample, locate, micro_batches, per_token
from sdpg.core.collector import Batch, Collector
from sdpg.core.flops import forward_flops
from sdpg.core.models import MovingAverage, frozen, load_model
from sdpg.core.optimizer import MasterAdamW
from sdpg.core.packing import packs
from sdpg.core.passes import (
    Models,
    Passes,
    backward,
    by_token,
    gradient_without_advantage,
    inputs,
    policy_logprobs,
    run_passes,
    signals,
)
from sdpg.core.recorder import Clock, Recorder
from sdpg.rollout.engine import Engine
from sdpg.types import Problem

GAP_LIMIT = {"fp32": 0.01, "bf16": 0.25}  # nats per token; rounding gives about 1e-6 and 1e-2


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did after saving its state."""


class Trainer:
    """One run: method x seed. Lives in `work`; `run()` returns when all steps are done there."""

    def __init__(
        self,
        config: Train,
        algorithm: Algorithm,
        *,
        base: Path,
        tokenizer,
        task,
        engine: Engine,
        problems: Sequence[Problem],
        seed: int,
        validation: dict[str, Sequence[Problem]],
        work: Path,
        identity: dict,
        title: str,
    ):
        """Load the models and encode the prompts. Raises ValueError for settings that the number of processes does not fit.

        base: HF checkpoint to start from. task: prompts and verifier (`sdpg.tasks.task.Task`). problems: to train on; seed
        decides their order and every sample. validation: problems by set name, for the accuracy that is watched during
        training. work: folder of the unfinished run. identity: what decides the run's outcome (JSON); a state saved under
        another one is not resumed.
        """
        self.rank, self.world = distributed.start()
        c = self.config = config
        _check(c, algorithm, self.world)
        self.algorithm, self.tokenizer, self.validation = algorithm, tokenizer, validation
        self.work, self.identity, self.title = work, identity, title
        self.device = _device()
        self.models, self.average = self._load(base)
        policy = self.models.policy
        self.optimizer = MasterAdamW(
            policy,
            lr=c.lr * c.lr_multiplier,
            betas=c.betas,
            weight_decay=c.weight_decay,
            warmup_steps=c.warmup_steps,
            clip_norm=c.clip_grad_norm,
        )
        positions = policy.config.max_position_embeddings
        share = {"max_positions": positions, "rank": self.rank, "world": self.world}
        self.collector = Collector(problems, task, engine, c, seed=seed, **share)
        self._stop = False
        self._elementwise = False  # not yet known: see _check_elementwise

    def _load(self, base: Path) -> tuple[Models, MovingAverage | None]:
        """Load the policy, and what else the method asks for in any step: the reference, the moving average."""
        c = self.config
        load = partial(load_model, base, dtype=getattr(torch, c.dtype), device=self.device, packed=c.packed)
        policy = load(gradient_checkpointing=c.gradient_checkpointing)
        needs = [self.algorithm.needs(k) for k in range(1, c.steps + 1)]
        reference = average = None
        if any(n.reference or n.kl_in_reward or n.teacher == "frozen" for n in needs):
            reference = frozen(load())
        if rates := {n.ema_rate for n in needs} - {None}:
            average = MovingAverage(load(), *rates)
        return Models(policy, reference, average.model if average else None), average

    def run(self) -> None:
        """Train from the last saved state (or the start) to the last step; raises `Interrupted` after Ctrl-C or SIGTERM."""
        c = self.config
        done = checkpoint.saved_step(self.work / "state", self.identity)
        if done:
            checkpoint.load_state(self.work / "state", self._stateful())
            if self.rank == 0:
                print(f"{self.title}: going on after step {done} of {c.steps}", file=sys.stderr, flush=True)
        elif self.rank == 0:
            if (self.work / "state").exists():
                why = "the unfinished run found there had another config, code or data; starting afresh"
                print(f"{self.title}: {why}", file=sys.stderr, flush=True)
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True)
            checkpoint.save_policy(self.models.policy, self.tokenizer, self.work / "checkpoints", 0)
        distributed.barrier()
        self._push(done)
        recorder = Recorder(self.work, steps=c.steps, done=done, title=self.title) if self.rank == 0 else None
        try:
            with self._stop_on_signals():
                for k in range(done + 1, c.steps + 1):
                    row = self.step(k)
                    if recorder:
                        recorder.write(row)
                    if any(distributed.gather(self._stop)) and k < c.steps:
                        self._save_state(k)
                        raise Interrupted(f"stopped after step {k} of {c.steps}; run the same command again to go on")
        finally:
            if recorder:
                recorder.close()

    def step(self, k: int) -> dict:
        """Take one training step -> its row of metrics."""
        c = self.config
        clock = Clock(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with clock("step"):
            needs = self.algorithm.needs(k)
            batch = self.collector.collect(k, clock, needs.context)
            self.collector.engine.sleep()  # until the next push
            sums = defaultdict(float)
            old, penalty_NG = self._before_updates(batch, needs, clock, sums)
            A_NG = self.algorithm.advantages(batch.R_NG - penalty_NG)
            sums["flops"] += forward_flops(self.models.policy, batch.work)
            sums.update(metrics.rollout_sums(batch, A_NG))
            norms = [self._update(batch, A_NG, old, u, k, clock, sums) for u in range(c.updates_per_batch)]
            with clock("sync"):
                self._push(k)
        row = self._row(k, sums, norms, clock)
        self._check_gap(row)
        if self.validation and (k % c.validate_every == 0 or k == c.steps):
            with clock("validation"):
                for name, problems in self.validation.items():
                    row[f"validation_{name}_accuracy"] = self.collector.accuracy(problems, k)
        if k % c.checkpoint_every == 0 or k == c.steps:
            with clock("checkpoint"):
                self._save(k)
        for phase in ("validation", "checkpoint"):
            row[f"seconds_{phase}"] = clock.seconds.get(phase, 0.0)
        return row

    def _before_updates(self, batch: Batch, needs: Needs, clock, sums) -> tuple[list[Tensor] | None, Tensor]:
        """Return each response's log-probs before the first update, and what the KL takes from its reward, (N, G).

        None for the log-probs while they are the current policy's own: with one update per batch (rho = 1).
        """
        c, coef = self.config, needs.kl_in_reward
        penalty = torch.zeros(len(batch.samples))
        if c.updates_per_batch == 1 and not coef:
            return None, penalty.view_as(batch.R_NG)
        old: list[Tensor] = [torch.empty(0)] * len(batch.samples)
        policy = self.models.policy
        for rows in self._micro_batches(batch.samples):
            samples = [batch.samples[i] for i in rows]
            with clock("train"):
                read, tokens = inputs(policy, samples), locate(samples, self.device)
                logp = policy_logprobs(policy, read, tokens, c.temperature)
            sums["flops"] += forward_flops(policy, read.work) * (2 if coef else 1)
            if c.updates_per_batch > 1:
                metrics.add_logprob_gap(sums, logp, per_token(samples, tokens)[0], tokens.mask)
            if coef:
                with clock("reference"):
                    logw = logp - policy_logprobs(self.models.reference, read, tokens, c.temperature)
                penalty[rows] = coef * logw.sum(1).cpu()
            for i, line in zip(rows, logp, strict=True):
                old[i] = line[: len(batch.samples[i].rollout.ids)]
        return old if c.updates_per_batch > 1 else None, penalty.view_as(batch.R_NG)

    def _update(self, batch: Batch, A_NG: Tensor, old, u: int, k: int, clock, sums) -> float:
        """Make update u of the step on its share of the prompts -> gradient norm, over all processes."""
        c = self.config
        n = len(A_NG) // c.updates_per_batch
        first = u * n * c.group_size
        samples = batch.samples[first : first + n * c.group_size]
        A = A_NG[u * n : (u + 1) * n].reshape(-1, 1).to(self.device)  # (n*G, 1)
        length = torch.tensor([len(s.rollout.ids) for s in samples]).view(n, c.group_size)
        tokens = sum(distributed.gather(int(length.sum())))
        counts = {"prompts": c.prompts_per_step // c.updates_per_batch, "tokens": tokens}
        w = self._weights(length, **counts).to(self.device)  # (n*G, 1)
        needs = self.algorithm.needs(k)
        for rows, learns in self._micro_batches_of_update(samples, A, k):
            micro = [samples[i] for i in rows]
            if c.reduction == "micro-batch":
                total = counts["prompts"] * c.group_size
                w[rows] = micro_batch_weight(sum(len(x.rollout.ids) for x in micro), len(micro), total_responses=total)
            logp_old = None
            if old is not None:
                logp_old = torch.nn.utils.rnn.pad_sequence([old[first + i] for i in rows], batch_first=True)
            with torch.set_grad_enabled(learns):
                passes = run_passes(self.models, micro, needs, A[rows], c.temperature, logp_old, clock)
                with clock("train"):
                    s, terms = self._backward(passes, A[rows], w[rows], k)
            for name, value in terms.items():
                sums[f"loss_{name}"] += value.item() / c.updates_per_batch
            metrics.add_signals(sums, s)
            sums["flops"] += passes.flops
            if old is None:
                metrics.add_logprob_gap(sums, s.logp, s.logp_rollout, s.mask)
        with clock("optimizer"):
            norm = self.optimizer.step()
            if self.average and u + 1 == c.updates_per_batch:
                self.average.follow(self.optimizer.masters)
        return norm

    def _micro_batches_of_update(self, samples: Sequence[Sample], A: Tensor, k: int) -> Iterator[tuple[list[int], bool]]:
        """Yield micro-batches, and whether they get a backward pass: advantage 0 and no other term means no gradient."""
        teacher = self.algorithm.needs(k).teacher is not None
        idle = torch.zeros_like(A, dtype=torch.bool)
        if self.config.reduction != "micro-batch" and not gradient_without_advantage(self.algorithm, k):
            idle = A == 0
        for learns in (True, False):
            chosen = (idle[:, 0] != learns).nonzero()[:, 0].tolist()
            for rows in self._micro_batches([samples[i] for i in chosen], teacher=teacher):
                yield [chosen[i] for i in rows], learns

    def _micro_batches(self, samples: Sequence[Sample], *, teacher: bool = False) -> list[list[int]]:
        return micro_batches(samples, self.config.micro_batch_tokens, packed=packs(self.models.policy), teacher=teacher)

    def _backward(self, passes: Passes, A_B1: Tensor, w_B1: Tensor, k: int) -> tuple[Signals, dict[str, Tensor]]:
        """Compute loss and gradients of a micro-batch -> its signals, and its loss terms by name."""
        totals: dict[str, Tensor] = {}

        def weighted_sum(s: Signals, A: Tensor, w: Tensor) -> Tensor:
            """Return the weighted sum of all terms; each is added to `totals` by name."""
            terms = self.algorithm.token_loss(s, A, k)
            terms = {name: (w * s.mask * term).sum() for name, term in terms.items()}
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach()
            return sum(terms.values())

        if torch.is_grad_enabled() and not passes.needs.whole_responses:
            if not self._elementwise:
                self._check_elementwise(passes, A_B1, k)
            s = backward(passes, lambda s, rows: weighted_sum(s, A_B1[rows], w_B1[rows]))
            return s, totals
        s = signals(passes)
        value = weighted_sum(s, A_B1, w_B1)
        if value.requires_grad:
            value.backward()
        return s, totals

    @torch.no_grad()
    def _check_elementwise(self, passes: Passes, A_B1: Tensor, k: int) -> None:
        """Check once a run: ValueError if `token_loss` looks at other tokens of a response without saying so in its needs."""
        s = signals(passes)
        whole = self.algorithm.token_loss(s, A_B1, k)
        alone = self.algorithm.token_loss(by_token(s), A_B1.expand_as(s.mask).reshape(-1, 1), k)
        for name, term in whole.items():
            if not torch.allclose(alone[name].view_as(term) * s.mask, term * s.mask, rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f"{type(self.algorithm).__name__}.token_loss: the term {name!r} of a token changes with the other tokens "
                    "of its response; let needs() return whole_responses=True"
                )
        self._elementwise = True

    def _check_gap(self, row: dict) -> None:
        """Raise RuntimeError if the engine sampled with other weights than the trainer's: far more than rounding apart."""
        c, gap = self.config, row["logprob_gap_mean"]
        if not gap < GAP_LIMIT[c.precision]:
            raise RuntimeError(
                f"step {row['step']}: log-probs of the {c.engine} engine are {gap:.3g} nats a token from the trainer's, "
                f"expected less than {GAP_LIMIT[c.precision]} in {c.precision}: the weights pushed into it are not in use, "
                "or it computes another model"
            )

    def _weights(self, length_NG: Tensor, *, prompts: int, tokens: int) -> Tensor:
        """Return (n*G, 1) weight of each response's tokens; under "micro-batch" it is filled in once the split is known."""
        c = self.config
        if c.reduction == "micro-batch":
            return torch.zeros(length_NG.numel(), 1)
        w = token_weights(length_NG, c.reduction, prompts=prompts, tokens=tokens, max_tokens=c.max_response_tokens)
        return w.reshape(-1, 1)

    def _row(self, k: int, sums: dict, norms: list[float], clock) -> dict:
        """Return metrics of the step over all processes (docs/metrics.md)."""
        total = metrics.add_up(distributed.gather(dict(sums)))
        beta = getattr(self.algorithm, "beta", None)
        seconds = clock.seconds["step"]
        return {
            "step": k,
            **metrics.means(total),
            "beta": beta(k) if beta else None,
            "grad_norm": sum(norms) / len(norms),
            "lr": self.optimizer.learning_rate(self.optimizer.updates),
            "tokens": int(total["tokens"]),
            "sampled_tokens": int(total["sampled_tokens"]),
            "tokens_per_second": total["tokens"] / seconds,
            "flops": total["flops"],
            "peak_memory_mb": metrics.peak_memory_mb(self.device),
            "seconds": seconds,
            **{f"seconds_{phase}": clock.seconds.get(phase, 0.0) for phase in metrics.PHASES},
        }

    def _stateful(self) -> list:
        return [self.optimizer, self.average] if self.average else [self.optimizer]

    def _push(self, k: int) -> None:
        self.collector.engine.load_weights(self.models.policy.named_parameters(), version=k)

    def _save(self, k: int) -> None:
        if self.rank == 0:
            checkpoint.save_policy(self.models.policy, self.tokenizer, self.work / "checkpoints", k)
        self._save_state(k)

    def _save_state(self, k: int) -> None:
        if self.rank == 0:
            checkpoint.save_state(self.work / "state", self._stateful(), k, self.identity)
        distributed.barrier()

    @contextmanager
    def _stop_on_signals(self):
        """Finish the present step after Ctrl-C or SIGTERM, save the state, leave. A second signal ends the run at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request(number, frame):
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _check(c: Train, algorithm: Algorithm, world: int) -> None:
    """Raise ValueError for settings that the method, or the number of processes, does not fit."""
    if (c.prompts_per_step // c.updates_per_batch) % world:
        raise ValueError(
            f"train.prompts_per_step={c.prompts_per_step} must be a multiple of train.updates_per_batch="
            f"{c.updates_per_batch} x {world} processes"
        )
    if c.updates_per_batch > 1 and not algorithm.off_policy:
        raise ValueError(
            f"train.updates_per_batch={c.updates_per_batch}, but {type(algorithm).__name__} is on-policy as configured; "
            "set it to 1, or `off_policy: true` where the method has that field"
        )


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")

"""The training loop that every method shares.

A step: roll out -> judge -> advantages -> for each update: signals -> token loss -> one reduction -> AdamW -> push weights.
Names: N prompts per step, G responses each, n prompts of a process in an update, k the step (1, 2, ...).
"""

from __future__ import annotations

import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sdpg.algorithms.base import Algorithm, Needs
from sdpg.algorithms.reduce import micro_batch_weight, token_weights
from sdpg.config.settings import Train
from sdpg.core import checkpoint, distributed, health, kinds, metrics, sharding
from sdpg.core.adapters import Lora, OtherAdapters, WithoutAdapters
from sdpg.core.batch import Sample, micro_batches
from sdpg.core.before import Before, before_updates
from sdpg.core.collapse import Collapse
from sdpg.core.collector import Batch, Collector
from sdpg.core.flops import forward_flops
from sdpg.core.identity import listed
from sdpg.core.models import MovingAverage, device, frozen, load_model
from sdpg.core.objective import Objective, gradient_without_advantage
from sdpg.core.optimizer import MasterAdamW
from sdpg.core.packing import packs
from sdpg.core.passes import DUMMY, Models, run_passes, teacher_passes
from sdpg.core.plan import Piece, Slot, slots
from sdpg.core.recorder import Clock, Recorder, read_rows
from sdpg.core.state import StateFolder
from sdpg.core.stopping import Stopped, Stopper
from sdpg.core.trackers import Tracking
from sdpg.progress import Interrupted
from sdpg.rollout.engine import Engine
from sdpg.types import Problem


class Trainer:
    """One run: method x seed. Lives in `work`; `run()` returns when all steps are done there, or the run has diverged."""

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
        processes_per_engine: int = 1,
        tracking: Tracking = Tracking(),  # noqa: B008  it is frozen
    ):
        """Load the models and encode the prompts. Raises ValueError for settings that the method does not fit.

        base: HF checkpoint to start from. task: prompts and verifier (`sdpg.tasks.task.Task`). problems: to train on; seed
        decides their order and every sample. validation: problems by set name, for the accuracy that is watched during
        training. work: folder of the unfinished run. identity: what decides the run's outcome (JSON, see identity.py); a state
        saved under another one is refused. title: what progress is shown under. processes_per_engine: so many sample together.
        tracking: where its metrics go beside metrics.jsonl.
        """
        self.world = distributed.start()
        c = self.config = config
        _check(c, algorithm)
        self.algorithm, self.tokenizer, self.validation = algorithm, tokenizer, validation
        self.work, self.identity, self.title, self.tracking = work, identity, title, tracking
        self.device, self.dtype = device(), getattr(torch, c.dtype)
        self.models, self.average = self._load(base, seed)
        policy = self.models.policy
        self.optimizer = MasterAdamW(
            policy,
            lr=c.lr * c.lr_multiplier,
            betas=c.betas,
            weight_decay=c.weight_decay,
            warmup_steps=c.warmup_steps,
            clip_norm=c.clip_grad_norm,
        )
        self.stopper = Stopper(leave_sampling=processes_per_engine == 1)
        self.collector = Collector(
            problems,
            task,
            engine,
            c,
            seed=seed,
            max_positions=kinds.positions(policy),
            processes_per_engine=processes_per_engine,
            stopper=self.stopper,
            teacher=any(n.teacher and n.context == "solution" for n in map(algorithm.needs, range(1, c.steps + 1))),
        )
        self.state = StateFolder(work / "state", identity)
        self._saved = 0  # the last step whose state was saved
        self.divergence = health.Divergence(self.models, tokenizer, c, work)
        self.objective, self.collapse = Objective(algorithm), Collapse(c.stop_collapsed)

    def _load(self, base: Path, seed: int) -> tuple[Models, MovingAverage | None]:
        """Load the policy, and what else the method asks for in any step: the reference, the moving average."""
        c = self.config
        load = partial(load_model, base, dtype=self.dtype, device=self.device, packed=c.packed)
        lora = Lora(c.lora_rank, c.lora_alpha, seed)
        policy = load(masters=not lora.rank, gradient_checkpointing=c.gradient_checkpointing, lora=lora)
        needs = [self.algorithm.needs(k) for k in range(1, c.steps + 1)]
        reference = average = None
        if any(n.reference or n.kl_in_reward or n.teacher == "frozen" for n in needs):
            reference = WithoutAdapters(policy) if lora.rank else frozen(load())
        if rates := {n.ema_rate for n in needs} - {None}:
            copy = OtherAdapters(policy) if lora.rank else frozen(load(masters=True))
            average = MovingAverage(copy, *rates)
        return Models(policy, reference, average.model if average else None), average

    def run(self) -> dict:
        """Train from the last saved state (or the start) to the last step, or to where the run diverges -> its outcome.

        Raises `Interrupted` after a signal to stop.
        """
        c, first = self.config, self.world.first
        done = self._resume()
        self._push(done)
        about = {"title": self.title, "tracking": self.tracking}
        recorder = Recorder(self.work, steps=c.steps, done=done, **about) if first else None
        try:
            with self.stopper.listening():
                for k in range(done + 1, c.steps + 1):
                    try:
                        row = self.step(k)
                        if recorder:
                            recorder.write(row)
                        if self.divergence.outcome:
                            self._tell(str(self.divergence))
                            break
                        done = k
                        if self._saves(k):  # after its row: a run that goes on from k has k rows
                            self._save_state(k)
                        if k < c.steps:
                            self.stopper.check()
                    except Stopped:
                        self._save_state(done)
                        self.state.wait()
                        distributed.barrier()  # all leave together: one that is gone has the others abort on their way out
                        again = "run the same command again to go on"
                        raise Interrupted(f"stopped after step {done} of {c.steps}; {again}") from None
                    self.state.check()
            self._finish_saving()
        finally:
            if recorder:
                recorder.close()
        return self.divergence.outcome or {"status": "finished", "step": c.steps}

    def _resume(self) -> int:
        """Load the last saved state, or begin the work folder -> steps done."""
        c = self.config
        saved = self.state.newest()
        if saved:
            if saved["said"]:
                self._tell(f"other versions than when it was saved: {listed(saved['said'])}")
            self.state.load(saved, self._state_tensors())
            for part in self._stateful():
                part.loaded(saved["updates"])
            self._saved = saved["step"]
            taken = (row for row in read_rows(self.work / "metrics.jsonl") if row["step"] <= self._saved)
            self.collapse = Collapse(c.stop_collapsed, taken)
            self._tell(f"going on after step {saved['step']} of {c.steps}")
            return saved["step"]
        if self.world.first:
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True)
        self._save_policy(0)
        distributed.barrier()
        return 0

    def _tell(self, what: str) -> None:
        if self.world.first:
            print(f"{self.title}: {what}", file=sys.stderr, flush=True)

    def step(self, k: int) -> dict:
        """Take one training step -> its row of metrics."""
        c = self.config
        clock, memory, engine = Clock(self.device), metrics.PeakMemory(self.device), self.collector.engine
        with clock("step"):
            needs = self.algorithm.needs(k)
            batch = self.collector.collect(k, clock, needs.context, needs.wrong_hints)
            memory.look()
            engine.sleep()  # until the next push
            sums = defaultdict(float)
            before = before_updates(
                batch,
                needs,
                models=self.models,
                algorithm=self.algorithm,
                config=c,
                dtype=self.dtype,
                split=self._micro_batches,
                plan=self._plan,
                clock=clock,
                sums=sums,
            )
            A_NG = self.algorithm.advantages(batch.R_NG - before.penalty)[batch.own]
            sums["flops"] += forward_flops(self.models.policy, batch.work)
            sums.update(metrics.rollout_sums(batch, A_NG))
            if needs.wrong_hints:
                sums.update(metrics.contrast_sums(batch))
            if before.by_token:
                sums.update(metrics.token_advantage_sums(before.by_token))
            norms, fault = self._updates(batch, A_NG, before, k, clock, sums)
            memory.look(getattr(engine, "unmapped_bytes", 0))
            with clock("sync"):
                if fault is None:
                    self._push(k)
        sums["peak_memory_mb"] = memory.mb()
        row = self._row(k, sums, norms, clock)
        if fault := fault or health.fault_of_row(row):
            return self.divergence.end(row, fault, batch, A_NG)
        self._check_gap(row)
        if self.validation and (k % c.validate_every == 0 or k == c.steps):
            with clock("validation"):
                for name, problems in self.validation.items():
                    row[f"validation_{name}_accuracy"] = self.collector.accuracy(problems, k)
        fell = self.collapse.look(row)
        if fell or self._saves(k):
            with clock("checkpoint"):
                self._save_policy(k)
        for phase in ("validation", "checkpoint"):
            row[f"seconds_{phase}"] = clock.seconds.get(phase, 0.0)
        return self.divergence.stop(row, fell) if fell else metrics.finite(row)

    def _updates(self, batch: Batch, A_NG: Tensor, before: Before, k: int, clock, sums) -> tuple[list[float], str | None]:
        """Make the step's updates -> their gradient norms, and at which fault they ended, None for none."""
        norms: list[float] = []
        try:
            for u in range(self.config.updates_per_batch):
                norms.append(self._update(batch, A_NG, before, u, k, clock, sums))
        except FloatingPointError as error:
            return [*norms, math.nan], str(error)
        with clock("optimizer"):
            return norms, self.divergence.of_weights(batch.samples)

    def _update(self, batch: Batch, A_NG: Tensor, before: Before, u: int, k: int, clock, sums) -> float:
        """Make update u of the step on its share of the prompts -> gradient norm, over all processes."""
        c = self.config
        groups = batch.shares[u]
        first = groups.start * c.group_size
        samples = batch.samples[first : groups.stop * c.group_size]
        A = A_NG[groups].reshape(-1, 1).to(self.device)  # (n*G, 1)
        lengths, total = [len(s.rollout.ids) for s in samples], batch.tokens[u]
        if by_token := before.by_token:
            lengths, total = by_token.counted(slice(first, groups.stop * c.group_size)), by_token.totals[u]
        length = torch.tensor(lengths, dtype=torch.long).view(-1, c.group_size)
        prompts = c.prompts_per_step // c.updates_per_batch
        w = self._weights(length, prompts=prompts, tokens=total).to(self.device)  # (n*G, 1)
        needs = self.algorithm.needs(k)
        batches, pieces = self._micro_batches_of_update(samples, A, k)
        with self.models.gathered(self.dtype, needs):
            for slot in self._plan(pieces):
                if u == 0:
                    self.stopper.check()
                rows = [] if slot.piece is None else batches[slot.piece]
                if rows and c.reduction == "micro-batch":
                    read = max(1, sum(lengths[i] for i in rows))
                    w[rows] = micro_batch_weight(read, len(rows), total_responses=prompts * c.group_size)
                logp_old = A_t = None
                if before.logp is not None and rows:
                    logp_old = pad_sequence([before.logp[first + i] for i in rows], batch_first=True)
                if by_token and rows:
                    A_t = pad_sequence([by_token.own[first + i] for i in rows], batch_first=True)
                self._slot(slot, [samples[i] for i in rows], needs, A[rows], w[rows], logp_old, A_t, k, clock, sums)
        with clock("optimizer"):
            norm = self.optimizer.step()
            if self.average and u + 1 == c.updates_per_batch:
                self.average.follow(self.optimizer.masters)
        return norm

    def _slot(self, slot: Slot, micro: list[Sample], needs: Needs, A_B1, w_B1, logp_old, A_t, k: int, clock, sums) -> None:
        """Run the passes of one slot on a micro-batch, or on a dummy if it is empty."""
        real = bool(micro)
        if not real:
            micro, A_B1, w_B1 = [DUMMY], torch.zeros(1, 1, device=self.device), torch.zeros(1, 1, device=self.device)
        if needs.token_advantages:
            A_t = torch.zeros(1, 1, device=self.device) if A_t is None else A_t.to(self.device)
        together = {"clock": clock, "others_read_teacher": slot.teacher, "A_t": A_t}
        with torch.set_grad_enabled(slot.learns):
            passes = run_passes(self.models, micro, needs, A_B1, self.config.temperature, logp_old, **together)
            with clock("train"):
                s, terms = self.objective.backward(passes, A_B1, w_B1, k, check=real)
        if not real:
            return
        for name, value in terms.items():
            sums[f"loss_{name}"] += value.item() / self.config.updates_per_batch
        metrics.add_signals(sums, s)
        sums["flops"] += passes.flops
        if self.config.updates_per_batch == 1:
            metrics.add_logprob_gap(sums, s.logp, s.logp_rollout, s.mask)

    def _plan(self, pieces: Sequence[Piece]) -> list[Slot]:
        """Return what this process does, with what all others have to do in mind. Collective."""
        return slots([[Piece(*piece) for piece in own] for own in distributed.gather(list(pieces))], self.world.rank)

    def _micro_batches_of_update(self, samples: Sequence[Sample], A: Tensor, k: int) -> tuple[list[list[int]], list[Piece]]:
        """Return micro-batches, those that learn first: advantage 0 and no other term means no gradient, no backward pass."""
        needs = self.algorithm.needs(k)
        idle = torch.zeros_like(A, dtype=torch.bool)
        if self.config.reduction != "micro-batch" and not gradient_without_advantage(self.algorithm, k):
            idle = A == 0
        batches, pieces = [], []
        for learns in (True, False):
            chosen = (idle[:, 0] != learns).nonzero()[:, 0].tolist()
            parts = self._micro_batches([samples[i] for i in chosen], teacher=needs.teacher is not None)
            if self.world.size > 1:  # the largest first, as in all processes: in a slot each waits for the slowest
                parts.sort(key=lambda part: -sum(len(samples[chosen[i]].rollout.ids) for i in part))
            for part in parts:
                rows = [chosen[i] for i in part]
                batches.append(rows)
                pieces.append(Piece(learns, teacher_passes(needs, A[rows], [samples[i] for i in rows])))
        return batches, pieces

    def _micro_batches(self, samples: Sequence[Sample], *, teacher: bool = False) -> list[list[int]]:
        return micro_batches(samples, self.config.micro_batch_tokens, packed=packs(self.models.policy), teacher=teacher)

    def _check_gap(self, row: dict) -> None:
        health.check_gap(self.config, row)

    def _weights(self, length_NG: Tensor, *, prompts: int, tokens: int) -> Tensor:
        """Return (n*G, 1) weight of each response's tokens; under "micro-batch" it is filled in once the split is known."""
        c = self.config
        if c.reduction == "micro-batch":
            return torch.zeros(length_NG.numel(), 1)
        w = token_weights(length_NG, c.reduction, prompts=prompts, tokens=tokens, max_tokens=c.max_response_tokens)
        return w.masked_fill(length_NG == 0, 0).reshape(-1, 1)

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
            "peak_memory_mb": total["peak_memory_mb"],
            "seconds": seconds,
            **{f"seconds_{phase}": clock.seconds.get(phase, 0.0) for phase in metrics.PHASES},
        }

    def _stateful(self) -> list:
        return [self.optimizer, self.average] if self.average else [self.optimizer]

    def _state_tensors(self) -> dict[str, Tensor]:
        return {key: x for part in self._stateful() for key, x in part.state_tensors().items()}

    def _push(self, k: int) -> None:
        engine, policy = self.collector.engine, self.models.policy
        tensors = sharding.full_tensors(policy, self.dtype)
        own = getattr(engine, "own_names", False)
        engine.load_weights(tensors if own else kinds.checkpoint_names(policy, tensors), version=k)

    def _saves(self, k: int) -> bool:
        return k % self.config.checkpoint_every == 0 or k == self.config.steps

    def _finish_saving(self) -> None:
        """Wait until the state is whole, on all processes: one that left early would have the others ended."""
        self.state.wait()
        distributed.barrier()

    def _save_policy(self, k: int) -> None:
        folder = self.work / "checkpoints"
        checkpoint.save_policy(self.models.policy, self.tokenizer, folder, k, dtype=self.dtype, keep=self.config.keep)

    def _save_state(self, k: int) -> None:
        if k > self._saved:
            self.state.save(self._state_tensors(), k, updates=self.optimizer.updates)
            self._saved = k


def _check(c: Train, algorithm: Algorithm) -> None:
    """Raise ValueError for settings that the method does not fit."""
    if c.updates_per_batch > 1 and not algorithm.off_policy:
        raise ValueError(
            f"train.updates_per_batch={c.updates_per_batch}, but {type(algorithm).__name__} is on-policy as configured; "
            "set it to 1, or `off_policy: true` where the method has that field"
        )
    if c.group_size < 2 and getattr(algorithm, "needs_group", True):
        raise ValueError(f"train.group_size={c.group_size}, but {type(algorithm).__name__} compares the responses of a group")

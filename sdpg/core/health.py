"""Is the run still sane? An engine with other weights is a fault of set-up and an error; a run that diverges is a result.

A run has diverged at the first step whose gradient, loss or weights are not finite, or whose weights give log-probs that are
not. All processes find the same, and the step's batch is kept for a look.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sdpg.algorithms.base import Needs
from sdpg.config.settings import Train
from sdpg.core import checkpoint, distributed, metrics
from sdpg.core.batch import Sample, locate, micro_batches
from sdpg.core.collector import Batch
from sdpg.core.packing import packs
from sdpg.core.passes import DUMMY, Models, inputs, policy_logprobs
from sdpg.core.sharding import local
from sdpg.io import write_atomic

GAP_LIMIT = {"fp32": 0.01, "bf16": 0.25}  # nats per token; rounding gives about 1e-6 and 1e-2
FOLDER = "diverged"  # of a run: the batch of the step at which it diverged
_IDS, _FLOATS = pa.list_(pa.int64()), pa.list_(pa.float64())
SCHEMA = pa.schema(
    [("step", pa.int64()), ("group", pa.int64()), ("number", pa.int64())]
    + [(name, pa.string()) for name in ("prompt", "teacher_prompt", "response", "finish_reason")]
    + [("correct", pa.bool_()), ("process", pa.float64()), ("reward", pa.float64()), ("advantage", pa.float64())]
    + [("prompt_ids", _IDS), ("teacher_prompt_ids", _IDS), ("response_ids", _IDS)]
    + [("logprobs_engine", _FLOATS), ("logprobs", _FLOATS)]
)


def check_gap(c: Train, row: dict[str, Any]) -> None:
    """Raise RuntimeError if the engine sampled with other weights than the trainer's: far more than rounding apart."""
    gap = row["logprob_gap_mean"]
    if not gap < GAP_LIMIT[c.precision]:
        raise RuntimeError(
            f"step {row['step']}: log-probs of the {c.engine} engine are {gap:.3g} nats a token from the trainer's, "
            f"expected less than {GAP_LIMIT[c.precision]} in {c.precision}: the weights pushed into it are not in use, "
            "or it computes another model"
        )


def fault_of_row(row: dict[str, Any]) -> str | None:
    """Return what is not finite in a step whose update went through, None if nothing is that has to be."""
    if not math.isfinite(row["loss"]):
        return f"loss is {row['loss']}"
    return None if math.isfinite(row["logprob_gap_mean"]) else "log-probs of the responses are not finite"


class Divergence:
    """Notices that a run diverges, and keeps what there is to look at; all processes call the same methods.

    outcome: how the run ended, for run.json; None as long as it has not diverged.
    """

    def __init__(self, models: Models, tokenizer, c: Train, work: Path):
        """work: folder of the unfinished run."""
        self.models, self.tokenizer, self.config, self.work = models, tokenizer, c, work
        self.outcome: dict[str, Any] | None = None

    def of_weights(self, samples: list[Sample]) -> str | None:
        """Return what is wrong with the policy's weights after an update; None if nothing is. Collective.

        Weights can be finite and too large to compute with, so the log-probs of one response of this process are looked at,
        too.
        """
        policy = self.models.policy
        finite = torch.stack([local(p).isfinite().all() for p in policy.parameters() if p.requires_grad]).all()
        if distributed.agree(not finite.item()):
            return "weights are not finite after the update"
        (logp,) = self._logprobs([(samples or [DUMMY])[:1]])
        if distributed.agree(not logp.isfinite().all().item()):
            return "weights give log-probs that are not finite after the update"
        return None

    def end(self, row: dict[str, Any], fault: str, batch: Batch, A_NG: Tensor) -> dict[str, Any]:
        """End the run at the step of `row`, whose batch is kept -> the row, which says so. Collective.

        fault: what is not finite. A_NG: advantages of this process's groups. A checkpoint whose weights the engine could not
        compute with is taken off the list. Raises ValueError if these are the base model's.
        """
        k = row["step"]
        no_model = distributed.agree(not all(math.isfinite(x) for s in batch.samples for x in s.rollout.logprobs))
        if no_model and k == 1:
            raise ValueError("the base model gives log-probs that are not finite, so it cannot be trained; look at its weights")
        if distributed.start().first:
            shutil.rmtree(self.work / FOLDER, ignore_errors=True)
        distributed.barrier()
        self._save(k, batch, A_NG)
        last = None
        if distributed.start().first:
            last = checkpoint.end_list(self.work / "checkpoints", k, drop_last=no_model)
        last = distributed.gather(last)[0]
        self.outcome = {"status": "diverged", "step": k, "reason": fault, "last_checkpoint": last, "batch": FOLDER}
        return metrics.finite(row) | {"diverged": fault}

    def stop(self, row: dict[str, Any], reason: str) -> dict[str, Any]:
        """End the run at the step of `row`, whose checkpoint is saved, because it has collapsed -> the row, which says so."""
        if distributed.start().first:
            checkpoint.end_list(self.work / "checkpoints", row["step"], drop_last=False)
        self.outcome = {"status": "collapsed", "step": row["step"], "reason": reason, "last_checkpoint": row["step"]}
        return metrics.finite(row) | {"diverged": reason}

    def __str__(self) -> str:
        """Say in one line how the run ended."""
        assert self.outcome is not None
        k, reason, last = (self.outcome[key] for key in ("step", "reason", "last_checkpoint"))
        if self.outcome["status"] == "collapsed":
            return f"stopped at step {k} of {self.config.steps}: {reason}. That is this run's result (train.stop_collapsed)"
        return (
            f"diverged at step {k} of {self.config.steps}: {reason}. That is this run's result: the checkpoint of step {last} "
            f"is its last, and the batch of step {k} is kept in {FOLDER}/. A lower train.lr may help"
        )

    def _save(self, k: int, batch: Batch, A_NG: Tensor) -> None:
        """Write diverged/batch-<process>.parquet: each response that this process trains on, one a row (docs/artefacts.md).

        The policy's own log-probs are those of its present weights.
        """
        c, decode = self.config, self.tokenizer.decode
        split = micro_batches(batch.samples, c.micro_batch_tokens, packed=packs(self.models.policy))
        most = max(distributed.gather(len(split)))
        reads = [[batch.samples[i] for i in rows] for rows in split] + [[DUMMY]] * (most - len(split))
        own: dict[int, list[float]] = {}
        for rows, logp in zip(split, self._logprobs(reads), strict=False):
            own |= {i: line[: len(batch.samples[i].rollout.ids)].tolist() for i, line in zip(rows, logp, strict=True)}
        R_NG, table = batch.R_NG[batch.own], []
        for i, (sample, score) in enumerate(zip(batch.samples, batch.scores, strict=True)):
            n, g = divmod(i, c.group_size)
            teacher = sample.teacher_prompt
            table.append(
                {
                    "step": k,
                    "group": batch.own[n],
                    "number": g,
                    "prompt": decode(sample.prompt),
                    "teacher_prompt": None if teacher is None else decode(teacher),
                    "response": decode(sample.rollout.ids),
                    "finish_reason": sample.rollout.finish_reason,
                    "correct": score.correct,
                    "process": score.process,
                    "reward": R_NG[n, g].item(),
                    "advantage": A_NG[n, g].item(),
                    "prompt_ids": list(sample.prompt),
                    "teacher_prompt_ids": None if teacher is None else list(teacher),
                    "response_ids": sample.rollout.ids,
                    "logprobs_engine": sample.rollout.logprobs,
                    "logprobs": own[i],
                }
            )
        with write_atomic(self.work / FOLDER / f"batch-{distributed.start().rank}.parquet", "wb") as file:
            pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), file)
        distributed.barrier()

    @torch.no_grad()
    def _logprobs(self, batches: list[list[Sample]]) -> list[Tensor]:
        """Return the policy's log-probs (B, T) of each micro-batch, on the CPU. Collective: as many of them on each process."""
        policy, c, found = self.models.policy, self.config, []
        with self.models.gathered(getattr(torch, c.dtype), Needs()):
            for samples in batches:
                read, tokens = inputs(policy, samples), locate(samples, policy.device)
                found.append(policy_logprobs(policy, self.models.head(policy), read, tokens, c.temperature).cpu())
        return found

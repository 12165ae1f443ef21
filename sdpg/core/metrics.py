"""Metrics of a step as sums over responses and tokens, so that micro-batches and processes add up (docs/metrics.md)."""

from __future__ import annotations

import math
import resource
import sys
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from sdpg.algorithms.anchors import k3
from sdpg.algorithms.base import Signals
from sdpg.core.collector import Batch
from sdpg.core.hints import OF_WRONG
from sdpg.core.token_advantages import TokenAdvantages

MAXIMA = ("gap_max", "peak_memory_mb")  # everything else is a sum
PHASES = ("rollout", "verify", "reference", "teacher", "train", "optimizer", "sync", "validation", "checkpoint")


def rollout_sums(batch: Batch, A_NG: Tensor) -> dict[str, float]:
    """Return the sums over the responses that this process trains on; A_NG: their advantages."""
    R_NG = batch.R_NG[batch.own]
    process = [s.process for s in batch.scores if s.process is not None]
    return {
        "responses": len(batch.samples),
        "tokens": sum(len(s.rollout.ids) for s in batch.samples),
        "unjudged": batch.unjudged,
        "sampled": batch.sampled,
        "sampled_tokens": batch.sampled_tokens,
        "no_room": batch.no_room,
        "teachers": sum(s.teacher_prompt is not None for s in batch.samples),
        "truncated": sum(s.rollout.finish_reason == "length" for s in batch.samples),
        "reward": R_NG.sum().item(),
        "correct": sum(score.correct for score in batch.scores),
        "process": sum(process),
        "processes": len(process),
        "groups": len(R_NG),
        "informative": (R_NG != R_NG[:, :1]).any(1).sum().item(),
        "positive": (A_NG > 0).sum().item(),
    }


def contrast_sums(batch: Batch) -> dict[str, float]:
    """Return the sums over wrong hints, of a method that asks for them."""
    hints = sum(len(s.wrong_prompts) for s in batch.samples)
    return {"wrong_hints": hints, **{name: batch.left_out[name] for name in OF_WRONG}}


def token_advantage_sums(advantages: TokenAdvantages) -> dict[str, float]:
    """Return the sums over tokens with an advantage of their own other than 0."""
    return {"selected": sum(advantages.counted(slice(None))), "selected_advantage": sum(A.sum().item() for A in advantages.own)}


@torch.no_grad()
def add_signals(sums: dict, s: Signals) -> None:
    """Add a micro-batch's entropy and KL to the reference (k3), summed over its tokens."""
    sums["signal_tokens"] += s.mask.sum().item()
    sums["entropy"] += (s.entropy * s.mask).sum().item()
    if s.logp_ref is not None:
        sums["kl_ref"] += (k3(s.logw) * s.mask).sum().item()


@torch.no_grad()
def add_logprob_gap(sums: dict, logp: Tensor, logp_rollout: Tensor, mask: Tensor) -> None:
    """Add |log-prob - the engine's| of the sampled tokens: (B, T) each, logp of the policy that sampled them."""
    gap = (logp - logp_rollout).abs() * mask
    sums["gap"] += gap.sum().item()
    sums["gap_tokens"] += mask.sum().item()
    sums["gap_max"] = _larger(sums["gap_max"], gap.max().item())


def add_up(parts: Sequence[dict]) -> dict[str, float]:
    """Join the sums of several processes."""
    total = defaultdict(float)
    for part in parts:
        for key, value in part.items():
            total[key] = _larger(total[key], value) if key in MAXIMA else total[key] + value
    return total


def _larger(a: float, b: float) -> float:
    """Return the larger number, or NaN if one is: `max` would lose it."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def finite(row: dict) -> dict:
    """Return a row in which what is not finite is null, as JSON has it; `nonfinite` counts these metrics."""
    bad = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return row | dict.fromkeys(bad) | {"nonfinite": len(bad)}


def means(t: dict[str, float]) -> dict[str, float | None]:
    """Turn the sums of a step into the columns of metrics.jsonl that come from them."""
    responses, tokens = t["responses"], t["signal_tokens"]
    losses = {key: t[key] for key in sorted(t) if key.startswith("loss_")}
    return {
        "reward": t["reward"] / responses,
        "accuracy": t["correct"] / responses,
        "process_accuracy": t["process"] / t["processes"] if t["processes"] else None,
        "entropy": t["entropy"] / tokens,
        "response_length": t["tokens"] / responses,
        "truncated": t["truncated"] / responses,
        "unjudged": t["unjudged"] / t["sampled"],
        "informative_groups": t["informative"] / t["groups"],
        "loss": sum(losses.values()),
        **losses,
        "gate_fraction": t["positive"] / responses,
        "teacher_fraction": t["teachers"] / responses,
        "teacher_no_room": t["no_room"] / responses,
        "kl_ref": t["kl_ref"] / tokens if "kl_ref" in t else None,
        "logprob_gap_mean": t["gap"] / t["gap_tokens"],
        "logprob_gap_max": t["gap_max"],
        **_of_some_methods(t),
    }


def _of_some_methods(t: dict[str, float]) -> dict[str, float | None]:
    """Return the columns that only rows of methods with wrong hints, or with advantages by token, have."""
    columns = {}
    if "wrong_hints" in t:
        columns |= {
            "wrong_hints": t["wrong_hints"] / t["teachers"] if t["teachers"] else None,
            "groups_without_wrong": t["groups_without_wrong"] / t["groups"],
            "wrong_no_answer": t["wrong_no_answer"] / t["responses"],
            "wrong_no_room": t["wrong_no_room"] / t["responses"],
        }
    if "selected" in t:
        columns |= {
            "selected_fraction": t["selected"] / t["tokens"],
            "selected_advantage": t["selected_advantage"] / t["selected"],
        }
    return columns


class PeakMemory:
    """The most memory of one step: of the GPU's allocator, sampling and training looked at apart; on the CPU that of this
    process so far (resident).
    """

    def __init__(self, device: torch.device):
        self.device, self._most = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def look(self, unmapped: int = 0) -> None:
        """Note the peak since the last look. unmapped: bytes that torch counts all that time and that are not on the GPU."""
        if self.device.type == "cuda":
            self._most = max(self._most, torch.cuda.max_memory_allocated(self.device) - unmapped)
            torch.cuda.reset_peak_memory_stats(self.device)

    def mb(self) -> float:
        """Return it in MiB."""
        if self.device.type == "cuda":
            return self._most / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

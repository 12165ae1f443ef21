"""What a step has to know before its first update: log-probs of the policy that sampled, and advantages that come from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdpg.algorithms.base import Algorithm, Needs
from sdpg.config.settings import Train
from sdpg.core import distributed, metrics
from sdpg.core.batch import locate, per_token
from sdpg.core.collector import Batch
from sdpg.core.flops import forward_flops
from sdpg.core.passes import DUMMY, Models, inputs, policy_logprobs, policy_signals
from sdpg.core.plan import Piece
from sdpg.core.token_advantages import TokenAdvantages, form


@dataclass(frozen=True)
class Before:
    """What was found. logp: each response's log-probs (|y|,); None while they are the current policy's own: with one update
    per batch (rho = 1). penalty: what the KL takes from all rewards, (N, G). by_token: None for a method without.
    """

    logp: list[Tensor] | None
    penalty: Tensor
    by_token: TokenAdvantages | None = None


def before_updates(
    batch: Batch,
    needs: Needs,
    *,
    models: Models,
    algorithm: Algorithm,
    config: Train,
    dtype: torch.dtype,
    split: Callable,
    plan: Callable,
    clock,
    sums,
) -> Before:
    """Run the policy, and the reference for a KL in the reward, over all responses, where anything asks for it. Collective.

    split: samples -> micro-batches; plan: pieces -> slots, of the trainer.
    """
    c, coef = config, needs.kl_in_reward
    if c.updates_per_batch == 1 and not coef and not needs.token_advantages:
        return Before(None, torch.zeros_like(batch.R_NG))
    penalty = torch.zeros(len(batch.samples))
    old: list[Tensor] = [torch.empty(0)] * len(batch.samples)
    entropies = list(old)
    policy, reference = models.policy, models.reference
    batches = split(batch.samples)
    with torch.no_grad(), models.gathered(dtype, needs):
        for slot in plan([Piece(False, 0)] * len(batches)):
            rows = [] if slot.piece is None else batches[slot.piece]
            samples = [batch.samples[i] for i in rows] or [DUMMY]
            with clock("train"):
                read, tokens = inputs(policy, samples), locate(samples, policy.device)
                logp, entropy = policy_signals(policy, models.head(policy), read, tokens, c.temperature)
            if coef:
                with clock("reference"):
                    head = models.head(reference)
                    logw = logp - policy_logprobs(reference, head, read, tokens, c.temperature)
            if not rows:
                continue
            sums["flops"] += forward_flops(policy, read.work) + (forward_flops(reference, read.work) if coef else 0.0)
            if c.updates_per_batch > 1:
                metrics.add_logprob_gap(sums, logp, per_token(samples, tokens)[0], tokens.mask)
            if coef:
                penalty[rows] = coef * logw.sum(1).cpu()
            for i, *lines in zip(rows, logp, entropy, strict=True):
                old[i], entropies[i] = (line[: len(batch.samples[i].rollout.ids)] for line in lines)
    all_penalties = torch.zeros_like(batch.R_NG)
    if coef:
        for own, part in distributed.gather([batch.own, penalty.tolist()]):
            all_penalties[own] = torch.tensor(part).view(len(own), c.group_size)
    by_token = None
    if needs.token_advantages:
        by_token = form(algorithm, old, entropies, own=batch.own, G=c.group_size, updates=c.updates_per_batch)
    return Before(old if c.updates_per_batch > 1 else None, all_penalties, by_token)

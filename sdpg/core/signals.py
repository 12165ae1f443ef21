"""Signals of one micro-batch: exactly those that the method needs, only on the tokens where they can matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdpg.algorithms.base import Needs, Signals
from sdpg.core.batch import Sample, Tokens, before_response, locate, pad, per_token
from sdpg.core.head import Head, token_signals
from sdpg.core.models import hidden_states

Clock = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class Models:
    """The trained policy; the initial policy, which is the reference and a frozen teacher; the average over time."""

    policy: PreTrainedModel
    reference: PreTrainedModel | None = None
    average: PreTrainedModel | None = None

    def teacher(self, kind: str) -> PreTrainedModel:
        """The weights that read the privileged context."""
        return {"live": self.policy, "frozen": self.reference, "ema": self.average}[kind]


def policy_logprobs(model: PreTrainedModel, samples: Sequence[Sample], temperature: float) -> Tensor:
    """log-probs (B, T) of the sampled tokens under `model`, without gradient."""
    with torch.no_grad():
        tokens = locate(samples, model.device)
        hidden = _student_hidden(model, samples, tokens)
        signals = token_signals(hidden, Head.of(model), tokens.targets, temperature=temperature)
        return tokens.scatter(signals.logp)


def compute_signals(
    models: Models,
    samples: Sequence[Sample],
    needs: Needs,
    A_B1: Tensor,
    temperature: float,
    logp_old: Tensor | None = None,
    clock: Clock = lambda name: nullcontext(),
) -> Signals:
    """Run the passes that `needs` names on one micro-batch -> `Signals`, all (B, T).

    A_B1 (B, 1): advantages, which decide the gate. logp_old (B, T): None takes the current policy's own log-probs, which is
    exact while there is one update per rollout batch. Time is told to `clock` as "reference", "teacher" and "train".
    """
    policy = models.policy
    tokens = locate(samples, policy.device)
    logp_ref = None
    if needs.reference:
        with clock("reference"):
            logp_ref = policy_logprobs(models.reference, samples, temperature)
    gated = _gate(needs, A_B1, samples)[tokens.row]  # (M,)
    teacher_hidden = None
    if gated.any():
        with clock("teacher"):
            teacher_hidden = _teacher_hidden(models.teacher(needs.teacher), samples, tokens, gated)
    with clock("train"):
        hidden = _student_hidden(policy, samples, tokens)  # (M, d)
        logp, entropy, div, logq = _heads(models, hidden, tokens, gated, teacher_hidden, needs, temperature)
    logp_rollout, stop = per_token(samples, tokens)
    return Signals(
        logp=logp,
        logp_old=logp.detach() if logp_old is None else logp_old,
        logp_rollout=logp_rollout,
        entropy=entropy,
        mask=tokens.scatter(torch.ones_like(tokens.row, dtype=torch.float32)),
        stop=stop,
        logp_ref=logp_ref,
        div=div,
        logq=logq,
    )


def _gate(needs: Needs, A_B1: Tensor, samples: Sequence[Sample]) -> Tensor:
    """(B,) bool: which responses get a teacher pass."""
    if needs.teacher is None:
        return torch.zeros(len(A_B1), dtype=torch.bool, device=A_B1.device)
    has_teacher = torch.tensor([s.teacher_prompt is not None for s in samples], device=A_B1.device)
    A = A_B1[:, 0]
    return has_teacher & {"all": torch.ones_like(A, dtype=torch.bool), "positive": A > 0, "nonzero": A != 0}[needs.gate]


def _student_hidden(model, samples: Sequence[Sample], tokens: Tokens) -> Tensor:
    prompts = [s.prompt for s in samples]
    ids = pad(prompts, [s.rollout.ids for s in samples], model.device)
    return before_response(hidden_states(model, ids), prompts, tokens.row, tokens.t)


@torch.no_grad()
def _teacher_hidden(model, samples: Sequence[Sample], tokens: Tokens, gated: Tensor) -> Tensor:
    """Teacher's hidden states at the gated tokens: the same response after the privileged prompt -> (gated M, d)."""
    rows = tokens.row[gated].unique()  # sorted
    chosen = [samples[i] for i in rows.tolist()]
    prompts = [s.teacher_prompt for s in chosen]
    ids = pad(prompts, [s.rollout.ids for s in chosen], model.device)
    position = torch.searchsorted(rows, tokens.row[gated])  # row of the teacher's smaller batch
    return before_response(hidden_states(model, ids), prompts, position, tokens.t[gated])


def _heads(models: Models, hidden, tokens: Tokens, gated: Tensor, teacher_hidden, needs: Needs, temperature: float):
    """One head call for the gated tokens, with the teacher, and one for the rest -> logp, entropy, div, logq, all (B, T)."""
    head = Head.of(models.policy)
    zeros = torch.zeros(tokens.shape, device=hidden.device)
    logp = entropy = zeros
    div = zeros if needs.divergence is not None else None
    logq = zeros if needs.teacher_logp else None
    rest = ~gated
    if rest.any():
        x = token_signals(hidden[rest], head, tokens.targets[rest], temperature=temperature)
        logp, entropy = tokens.scatter(x.logp, rest), tokens.scatter(x.entropy, rest)
    if teacher_hidden is not None:
        x = token_signals(
            hidden[gated],
            head,
            tokens.targets[gated],
            temperature=temperature,
            divergence=needs.divergence,
            teacher_hidden=teacher_hidden,
            teacher_head=Head.of(models.teacher(needs.teacher)),
        )
        logp, entropy = logp + tokens.scatter(x.logp, gated), entropy + tokens.scatter(x.entropy, gated)
        div = tokens.scatter(x.div, gated) if div is not None else None
        logq = tokens.scatter(x.logq, gated) if logq is not None else None
    return logp, entropy, div, logq

"""Signals of one micro-batch: exactly those that the method needs, only on the tokens where they can matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdpg.algorithms.base import Needs, Signals
from sdpg.core.batch import Sample, Tokens, locate, per_token
from sdpg.core.flops import backward_flops, forward_flops
from sdpg.core.head.api import Head, TokenSignals, token_signals, token_signals_backward
from sdpg.core.packing import Packed, Padded, prepare
from sdpg.core.sharding import WholeHead, is_sharded
from sdpg.types import Rollout

# What a process reads while others read a micro-batch (plan.py): of no weight, without a teacher, left out of every metric.
DUMMY = Sample([0], None, Rollout([0], [0.0], "length", 0))
Clock = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class Models:
    """The trained policy; the initial policy, which is the reference and a frozen teacher; the average over time.

    Of a policy with adapters the others are views (adapters.py): they share its lm-head.
    """

    policy: PreTrainedModel
    reference: PreTrainedModel | None = None
    average: PreTrainedModel | None = None
    heads: dict[int, Head] = field(default_factory=dict)  # of the sharded models by their weight, while they are gathered

    def head(self, model: PreTrainedModel) -> Head:
        """Return a model's lm-head; a sharded model's only while it is `gathered`."""
        head = Head.of(model)
        return self.heads[id(head.weight)] if is_sharded(model) else head

    @contextmanager
    def gathered(self, dtype: torch.dtype, needs: Needs) -> Iterator[None]:
        """Hold the lm-heads that an update needs, in `dtype`; at the end their gradients go to the shards. Collective."""
        kinds = {"policy": self.policy}
        if needs.reference or needs.kl_in_reward:
            kinds["reference"] = self.reference
        if needs.teacher is not None:
            kinds["teacher"] = self.teacher(needs.teacher)
        models = {id(Head.of(model).weight): model for model in kinds.values() if is_sharded(model)}
        whole = {key: WholeHead(model, dtype) for key, model in models.items()}
        self.heads.update({key: x.head for key, x in whole.items()})
        try:
            yield
            for x in whole.values():
                x.release()
        finally:
            self.heads.clear()

    def teacher(self, kind: str) -> PreTrainedModel:
        """Return the weights that read the privileged context."""
        return {"live": self.policy, "frozen": self.reference, "ema": self.average}[kind]


def inputs(
    model: PreTrainedModel, samples: Sequence[Sample], *, teacher: bool = False, wrong: int | None = None
) -> Packed | Padded:
    """Return what the model reads: each response after its prompt, after its teacher's, or after a wrong one (its number)."""
    if wrong is not None:
        prompts = [s.wrong_prompts[wrong] for s in samples]
    else:
        prompts = [s.teacher_prompt if teacher else s.prompt for s in samples]
    return prepare(model, prompts, [s.rollout.ids for s in samples])


@torch.no_grad()
def policy_signals(
    model: PreTrainedModel, head: Head, read: Packed | Padded, tokens: Tokens, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return log-probs of the sampled tokens and entropies, (B, T) each, under `model` and its head, without gradient."""
    x = token_signals(read.hidden(model), head, tokens.targets, temperature=temperature)
    return tokens.scatter(x.logp), tokens.scatter(x.entropy)


def policy_logprobs(model: PreTrainedModel, head: Head, read: Packed | Padded, tokens: Tokens, temperature: float) -> Tensor:
    """Return the log-probs alone."""
    return policy_signals(model, head, read, tokens, temperature)[0]


@dataclass(frozen=True)
class Passes:
    """One micro-batch's forward passes up to the lm-head: hidden states, and what is known per token without it."""

    models: Models
    needs: Needs
    temperature: float
    tokens: Tokens
    hidden: Tensor  # (M, d) of the policy, with its graph
    gated: Tensor  # (M,) bool: tokens that the teacher reads
    teacher_hidden: Tensor | None  # (gated M, d)
    known: dict[str, Tensor | None]  # (B, T) signals, see `Signals`; logp_old None: the policy's own
    flops: float  # of all passes, and of the backward pass where there is one


def run_passes(
    models: Models,
    samples: Sequence[Sample],
    needs: Needs,
    A_B1: Tensor,
    temperature: float,
    logp_old: Tensor | None = None,
    clock: Clock = lambda name: nullcontext(),
    others_read_teacher: int = 0,
    A_t: Tensor | None = None,
) -> Passes:
    """Run the passes that `needs` names on one micro-batch.

    A_B1 (B, 1): advantages, which decide the gate. logp_old (B, T): None takes the current policy's own log-probs, which is
    exact while there is one update per rollout batch. Time is told to `clock` as "reference", "teacher" and "train".
    Under `torch.no_grad()` there is no graph for a backward pass. others_read_teacher: run so many teacher's passes in any
    case. A_t (B, T): advantages of the tokens, where the method has them.
    """
    policy = models.policy
    tokens = locate(samples, policy.device)
    read = inputs(policy, samples)
    flops = forward_flops(policy, read.work) + (backward_flops(policy, read.work) if torch.is_grad_enabled() else 0.0)
    logp_ref = None
    if needs.reference:
        with clock("reference"):
            logp_ref = policy_logprobs(models.reference, models.head(models.reference), read, tokens, temperature)
        flops += forward_flops(models.reference, read.work)
    reads_teacher = gate(needs, A_B1, samples)
    teacher_hidden = None
    if others_read_teacher and not reads_teacher.any():
        with clock("teacher"), torch.no_grad():
            inputs(policy, [DUMMY]).hidden(models.teacher(needs.teacher))
    elif reads_teacher.any():
        with clock("teacher"), torch.no_grad():
            teacher = models.teacher(needs.teacher)
            chosen = [samples[i] for i in reads_teacher.nonzero()[:, 0].tolist()]
            teacher_read = inputs(teacher, chosen, teacher=True)
            teacher_hidden = teacher_read.hidden(teacher)  # in the order of the gated tokens
        flops += forward_flops(teacher, teacher_read.work)
    contrast = {}
    if needs.wrong_hints:
        with clock("teacher"):
            contrast, more = wrong_signals(models, samples, needs, reads_teacher, tokens, temperature, others_read_teacher - 1)
        flops += more
    with clock("train"):
        hidden = read.hidden(policy)
    logp_rollout, stop = per_token(samples, tokens)
    known = {"logp_old": logp_old, "logp_rollout": logp_rollout, "logp_ref": logp_ref, "stop": stop, "A_t": A_t} | contrast
    gated = reads_teacher[tokens.row]
    return Passes(models, needs, temperature, tokens, hidden, gated, teacher_hidden, known, flops)


@torch.no_grad()
def wrong_signals(
    models: Models,
    samples: Sequence[Sample],
    needs: Needs,
    reads_teacher: Tensor,
    tokens: Tokens,
    temperature: float,
    passes: int,
) -> tuple[dict[str, Tensor], float]:
    """Return `logq_wrong` and `contrasted` of `Signals`, (B, T) each, and the FLOPs of the teacher's passes over wrong hints.

    reads_teacher (B,): the responses that have them. One pass for the first hint of every response, one for the second, and so
    on, of which only the sum of probabilities is kept; passes: so many in any case, with a dummy where there is no such hint.
    """
    teacher = models.teacher(needs.teacher)
    hints = [len(s.wrong_prompts) if reads else 0 for s, reads in zip(samples, reads_teacher.tolist(), strict=True)]
    total = torch.full(tokens.row.shape, -torch.inf, device=tokens.row.device)  # log of the sum of probabilities
    flops = 0.0
    for number in range(max(passes, *hints)):
        rows = [i for i, count in enumerate(hints) if count > number]
        if not rows:
            inputs(teacher, [DUMMY]).hidden(teacher)
            continue
        where = torch.isin(tokens.row, torch.tensor(rows, device=tokens.row.device))
        read = inputs(teacher, [samples[i] for i in rows], wrong=number)
        head = models.head(teacher)
        logq = token_signals(read.hidden(teacher), head, tokens.targets[where], temperature=temperature).logp
        total[where] = total[where].logaddexp(logq.float())
        flops += forward_flops(teacher, read.work)
    count = torch.tensor(hints, device=tokens.row.device)[tokens.row]
    there = count > 0
    logq_wrong = total[there] - count[there].log()
    ones = torch.ones_like(logq_wrong)
    return {"logq_wrong": tokens.scatter(logq_wrong, there), "contrasted": tokens.scatter(ones, there)}, flops


def signals(p: Passes) -> Signals:
    """Return all signals of a micro-batch, (B, T), with the graph of logp and div: for a loss that couples a response's
    tokens.
    """
    columns = defaultdict(float)
    for where, options in _by_teacher(p):
        x = token_signals(p.hidden[where], *_head(p, where), **options)
        for name in ("logp", "entropy", "div", "logq"):
            if (column := getattr(x, name)) is not None:
                columns[name] = columns[name] + p.tokens.scatter(column, where)
    return _signals(p, columns)


def backward(p: Passes, loss_of_tokens: Callable[[Signals, Tensor], Tensor]) -> Signals:
    """Run forward and backward of a loss that adds up over tokens, through the lm-head in chunks -> signals (B, T), detached.

    A sharded model's backward pass takes place with a gradient of 0, too: the other processes take part in it.

    loss_of_tokens: the signals of m tokens, (m, 1) each, and the rows (m,) of the micro-batch that they belong to -> a scalar.
    """
    gradient = None
    columns = defaultdict(float)
    for where, options in _by_teacher(p):
        index = where.nonzero()[:, 0]
        x, part = token_signals_backward(
            p.hidden[index],
            *_head(p, index),
            lambda x, j, index=index: loss_of_tokens(_flat(p, x, index[j]), p.tokens.row[index[j]]),
            **options,
        )
        if part is not None:
            gradient = torch.zeros_like(p.hidden) if gradient is None else gradient
            gradient[index] = part
        for name in ("logp", "entropy", "div", "logq"):
            if (column := getattr(x, name)) is not None:
                columns[name] = columns[name] + p.tokens.scatter(column, where)
    if gradient is None and is_sharded(p.models.policy):
        gradient = torch.zeros_like(p.hidden)
    if gradient is not None:
        p.hidden.backward(gradient)
    return _signals(p, columns)


def by_token(s: Signals) -> Signals:
    """Return (B, T) signals as B * T responses of one token: (B * T, 1)."""
    return Signals(**{f.name: v.reshape(-1, 1) if (v := getattr(s, f.name)) is not None else None for f in fields(s)})


def _by_teacher(p: Passes):
    """Yield the tokens without and those with a teacher: (mask (M,), the head's options for them)."""
    if not p.gated.all():
        yield ~p.gated, {"temperature": p.temperature}
    if p.teacher_hidden is not None:
        yield (
            p.gated,
            {
                "temperature": p.temperature,
                "divergence": p.needs.divergence,
                "teacher_hidden": p.teacher_hidden,
                "teacher_head": p.models.head(p.models.teacher(p.needs.teacher)),
            },
        )


def _head(p: Passes, where: Tensor) -> tuple[Head, Tensor]:
    return p.models.head(p.models.policy), p.tokens.targets[where]


def _signals(p: Passes, columns: dict[str, Tensor]) -> Signals:
    """Return (B, T) signals; what no token has reads 0 where the method needs it."""
    zeros = torch.zeros(p.tokens.shape, device=p.hidden.device)
    logp = columns.get("logp", zeros)
    known = p.known | {"logp_old": logp.detach() if p.known["logp_old"] is None else p.known["logp_old"]}
    return Signals(
        logp=logp,
        entropy=columns.get("entropy", zeros),
        mask=p.tokens.mask,
        div=columns.get("div", zeros) if p.needs.divergence is not None else None,
        logq=columns.get("logq", zeros) if p.needs.teacher_logp else None,
        **known,
    )


def _flat(p: Passes, x: TokenSignals, index: Tensor) -> Signals:
    """Return the signals of the tokens `index` (m,), each (m, 1)."""
    row, t = p.tokens.row[index], p.tokens.t[index]
    column = lambda value: None if value is None else value[:, None]  # noqa: E731
    known = {name: column(value[row, t]) if value is not None else None for name, value in p.known.items()}
    logp = column(x.logp)
    zeros = torch.zeros_like(logp.detach())
    known["logp_old"] = logp.detach() if known["logp_old"] is None else known["logp_old"]
    return Signals(
        logp=logp,
        entropy=column(x.entropy),
        mask=torch.ones_like(zeros),
        div=(zeros if x.div is None else column(x.div)) if p.needs.divergence is not None else None,
        logq=(zeros if x.logq is None else column(x.logq)) if p.needs.teacher_logp else None,
        **known,
    )


def gate(needs: Needs, A_B1: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Return (B,) bool: which responses get a teacher pass."""
    if needs.teacher is None:
        return torch.zeros(len(A_B1), dtype=torch.bool, device=A_B1.device)
    has_teacher = torch.tensor([s.teacher_prompt is not None for s in samples], device=A_B1.device)
    A = A_B1[:, 0]
    return has_teacher & {"all": torch.ones_like(A, dtype=torch.bool), "positive": A > 0, "nonzero": A != 0}[needs.gate]


def teacher_passes(needs: Needs, A_B1: Tensor, samples: Sequence[Sample]) -> int:
    """Return how many passes a teacher makes over a micro-batch: none, one, or one more for each wrong hint."""
    reads = gate(needs, A_B1, samples).tolist()
    return max((1 + len(s.wrong_prompts) for s, r in zip(samples, reads, strict=True) if r), default=0)

"""The contract between a method and the training core.

Shapes: N prompts, G responses per prompt, B responses of a micro-batch, T response tokens (padded).
A method is a frozen dataclass of hyper-parameters that says which signals it needs at step k, turns rewards into
advantages, and turns signals into a loss per token. The core computes the signals, adds the terms up and reduces them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from sdpg.algorithms.divergences import Divergence

if TYPE_CHECKING:  # a config is read without loading torch
    from torch import Tensor

TeacherKind = Literal["live", "frozen", "ema"]  # the policy now, at the start, averaged over time; none has a gradient
Gate = Literal["all", "positive", "nonzero"]
Context = Literal["solution", "sibling"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The signals that a method asks the core for at one step; what is not asked for is not computed.

    reference: log-probs of the fixed reference model. teacher: which weights read the privileged context, None for no
    teacher pass. divergence: of student and teacher over the vocabulary. teacher_logp: the teacher's log-prob of the
    sampled token. ema_rate: theta' <- (1 - rate) theta' + rate theta after each step, for an "ema" teacher. gate: the
    responses that get a teacher pass, by their advantage: "all", "positive" (Eq. 3.5) or "nonzero"; elsewhere div and logq
    read 0. context: the teacher reads the problem's worked solution, or a successful response of the same group (then a
    response without such a sibling has no teacher). wrong_hints: the same weights also read each response after as many as
    this of the group's other responses, each in the place of the solution, that the verifier called wrong (a pass for each; a
    response without one has no teacher at all). kl_in_reward: this times the response's summed log w is taken from its
    reward before advantages are formed. whole_responses: a token's loss depends on other tokens of its response (a
    sequence-level ratio), so `token_loss` must see responses whole; costs a second product with the lm-head.
    token_advantages: `Algorithm.token_advantages` gives every token an advantage of its own, once for the whole rollout
    batch; costs a forward pass of the policy where there is one update per batch (with several there is one anyway).
    """

    reference: bool = False
    teacher: TeacherKind | None = None
    divergence: Divergence | None = None
    teacher_logp: bool = False
    ema_rate: float | None = None
    gate: Gate = "all"
    context: Context = "solution"
    kl_in_reward: float = 0.0
    whole_responses: bool = False
    wrong_hints: int = 0
    token_advantages: bool = False

    def __post_init__(self):
        if (self.teacher is None) != (self.divergence is None and not self.teacher_logp):
            raise ValueError(
                f"teacher={self.teacher!r}, but divergence={self.divergence!r} and teacher_logp={self.teacher_logp}: "
                "a teacher is there for at least one of them, and each of them needs one"
            )
        if (self.teacher == "ema") != (self.ema_rate is not None):
            raise ValueError(f"teacher={self.teacher!r} and ema_rate={self.ema_rate!r} do not go together")
        if self.wrong_hints and not self.teacher_logp:
            raise ValueError(f"wrong_hints={self.wrong_hints} are read beside the right one: they need teacher_logp=True")


@dataclass(frozen=True)
class Signals:
    """Per token of B responses, all (B, T) float32, in nats; positions past a response's end hold 0.

    logp: log pi_theta(y_t | s_t), differentiable. logp_old: the same at the start of the rollout batch, detached (equal to
    `logp` while there is one update per batch). logp_rollout: what the rollout engine reported. entropy: of pi_theta,
    differentiable. mask: 1 on response tokens. stop: 1 on the token that ended the response. logp_ref: reference log-prob,
    detached. div: divergence to the teacher, differentiable. logq: the teacher's log-prob, detached. logq_wrong: log of the
    mean over the wrong hints of the probabilities that the teacher gives the token after each, detached; contrasted: 1 on the
    tokens that it and logq are there for. A_t: the token's own advantage. The last six are None unless needed, and read 0
    where there is nothing.
    """

    logp: Tensor
    logp_old: Tensor
    logp_rollout: Tensor
    entropy: Tensor
    mask: Tensor
    stop: Tensor
    logp_ref: Tensor | None = None
    div: Tensor | None = None
    logq: Tensor | None = None
    logq_wrong: Tensor | None = None
    contrasted: Tensor | None = None
    A_t: Tensor | None = None

    @property
    def logw(self) -> Tensor:
        """(B, T) log w = log pi_theta - log pi_ref on the sampled token (section 3.4)."""
        return self.logp - self.logp_ref

    @property
    def rho(self) -> Tensor:
        """(B, T) pi_theta / pi_old on the sampled token (A.3); 1 with a gradient while there is one update per batch."""
        return (self.logp - self.logp_old).exp()

    def tis(self, cap: float | None) -> Tensor | float:
        """Return the truncated importance weight min(pi_old / pi_rollout, cap), detached, for sampling with an engine whose
        probabilities are not quite the trainer's; 1.0 for cap None.
        """
        if cap is None:
            return 1.0
        return (self.logp_old - self.logp_rollout).exp().clamp(max=cap)

    def distilled(self, exclude_stop: bool) -> Tensor:
        """Return (B, T) div, without the position of the stop token if `exclude_stop`."""
        return self.div * (1 - self.stop) if exclude_stop else self.div


class Algorithm(Protocol):
    """A training method. `off_policy`: may take several updates per rollout batch. `beta(k)` where it has a schedule.

    needs_group: it compares the responses to a prompt, so that there must be two or more; a method that does not say is taken
    to do so. `token_advantages(logp, entropy)`, of a method that needs it: turns log-probs and entropies (M,) of all tokens of
    the rollout batch, under the policy before the first update, into their advantages (M,); a token whose advantage is 0 is
    left out of the means of the reduction.
    """

    off_policy: bool
    needs_group: bool

    def needs(self, k: int) -> Needs:
        """Return the signals needed at step k = 1, 2, ..."""

    def advantages(self, R_NG: Tensor) -> Tensor:
        """Turn rewards (N, G) into advantages (N, G), detached."""

    def token_loss(self, s: Signals, A_B1: Tensor, k: int) -> dict[str, Tensor]:
        """Return the loss terms by name, each (B, T), to be minimised; the core adds them and reduces them the same way for
        all.

        Unless the method needs `whole_responses`, the core may pass any m tokens as (m, 1), with their advantages.
        """

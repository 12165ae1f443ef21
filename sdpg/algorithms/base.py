"""The contract between a method and the training core.

Shapes: N prompts, G responses per prompt, B responses of a micro-batch, T response tokens (padded).
A method is a frozen dataclass of hyper-parameters that says which signals it needs at step k, turns rewards into
advantages, and turns signals into a loss per token. The core computes the signals, adds the terms up and reduces them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

TeacherKind = Literal["live", "frozen"]  # the current policy, or the initial one; both without gradient
Divergence = Literal["reverse_kl", "forward_kl", "gjsd"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The signals that a method asks the core for at one step; what is not asked for is not computed.

    reference: log-probs of the fixed reference model. teacher: which weights read the privileged context, None for no
    teacher pass. divergence: the full-vocabulary divergence of student and teacher. gate: the responses that get a
    teacher pass: "all", or only those with a "positive" advantage (Eq. 3.5); elsewhere the divergence reads 0.
    """

    reference: bool = False
    teacher: TeacherKind | None = None
    divergence: Divergence | None = None
    gate: Literal["all", "positive"] = "all"

    def __post_init__(self):
        if (self.teacher is None) != (self.divergence is None):
            raise ValueError(
                f"teacher={self.teacher!r} and divergence={self.divergence!r} go together: give both or none"
            )


@dataclass(frozen=True)
class Signals:
    """Per token of B responses, all (B, T) float32, in nats; positions past a response's end hold 0.

    logp: log pi_theta(y_t | s_t), differentiable. logp_old: the same at the start of the rollout batch, detached (equal to
    `logp` while there is one update per batch). logp_ref: reference log-prob, detached; None unless needed. div: exact
    divergence to the teacher, differentiable; None unless needed. entropy: of pi_theta, detached. mask: 1 on response tokens.
    """

    logp: Tensor
    logp_old: Tensor
    entropy: Tensor
    mask: Tensor
    logp_ref: Tensor | None = None
    div: Tensor | None = None

    @property
    def logw(self) -> Tensor:
        """(B, T) log w = log pi_theta - log pi_ref on the sampled token (section 3.4)."""
        return self.logp - self.logp_ref

    @property
    def rho(self) -> Tensor:
        """(B, T) pi_theta / pi_old on the sampled token (A.3); 1 with a gradient while there is one update per batch."""
        return (self.logp - self.logp_old).exp()


class Algorithm(Protocol):
    """A training method. `off_policy`: may take several updates per rollout batch. `beta(k)` where it has a schedule."""

    off_policy: bool

    def needs(self, k: int) -> Needs:
        """Signals needed at step k = 1, 2, ..."""

    def advantages(self, R_NG: Tensor) -> Tensor:
        """Rewards (N, G) -> advantages (N, G), detached."""

    def token_loss(self, s: Signals, A_B1: Tensor, k: int) -> dict[str, Tensor]:
        """Loss terms by name, each (B, T), to be minimised; the core adds them and reduces them the same way for all."""

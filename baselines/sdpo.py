"""Self-Distillation Policy Optimization (arXiv 2601.20802): the teacher reads a successful response of the same group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import no_advantage
from sdpg.algorithms.base import Needs
from sdpg.algorithms.divergences import Divergence
from sdpg.types import Count, Fraction, Positive, Rate


@dataclass(frozen=True, kw_only=True)
class SDPO:
    """gJSD on the student's top entries and one tail bucket; a response without a successful sibling has no loss."""

    off_policy: ClassVar[bool] = True  # through is_cap
    needs_group: ClassVar[bool] = True  # the teacher reads a sibling
    kind: Literal["reverse_kl", "forward_kl", "gjsd"] = "gjsd"
    b: Fraction = 0.5
    top_k: Count | None = 100  # None: the whole vocabulary
    teacher: Literal["live", "frozen", "ema"] = "ema"
    ema_rate: Rate = 0.05
    is_cap: Positive = 2.0  # the loss is multiplied by min(rho, is_cap), detached
    exclude_stop: bool = False  # no distillation at the stop token

    def needs(self, k: int) -> Needs:
        """Return the teacher on every response that has a successful sibling."""
        divergence = Divergence(kind=self.kind, b=self.b, top_k=self.top_k, tail=True)
        rate = self.ema_rate if self.teacher == "ema" else None
        return Needs(teacher=self.teacher, divergence=divergence, ema_rate=rate, context="sibling")

    def advantages(self, R_NG):
        """Return zeros: rewards only choose the siblings."""
        return no_advantage(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute min(SG[rho], is_cap) * gJSD_b(p_t, SG[q_t])."""
        return {"distillation": s.rho.detach().clamp(max=self.is_cap) * s.distilled(self.exclude_stop)}

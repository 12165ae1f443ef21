"""On-Policy Self-Distillation (arXiv 2601.18734): gJSD to the frozen initial model, no reward, one sample per prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import no_advantage
from sdpg.algorithms.base import Needs
from sdpg.algorithms.divergences import Divergence
from sdpg.types import Fraction, Positive, Rate, Temperature


@dataclass(frozen=True, kw_only=True)
class OPSD:
    """Full-vocabulary divergence at a softened temperature. Its later revision: kind forward_kl, clamp 0.05."""

    off_policy: ClassVar[bool] = False
    needs_group: ClassVar[bool] = False
    kind: Literal["reverse_kl", "forward_kl", "gjsd"] = "gjsd"
    b: Fraction = 0.5
    temperature: Temperature = 1.1  # of both student and teacher
    clamp: Positive | None = None  # most that one vocabulary entry contributes
    teacher: Literal["live", "frozen", "ema"] = "frozen"
    ema_rate: Rate = 0.05  # of an ema teacher
    exclude_stop: bool = False  # no distillation at the stop token

    def needs(self, k: int) -> Needs:
        """Return the teacher on every response."""
        divergence = Divergence(kind=self.kind, b=self.b, temperature=self.temperature, clamp=self.clamp)
        rate = self.ema_rate if self.teacher == "ema" else None
        return Needs(teacher=self.teacher, divergence=divergence, ema_rate=rate)

    def advantages(self, R_NG):
        """Return zeros: rewards are not used."""
        return no_advantage(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute gJSD_b(p_t, SG[q_t])."""
        return {"distillation": s.distilled(self.exclude_stop)}

"""Self-Distillation Fine-Tuning (arXiv 2601.19897): forward KL to an EMA teacher that sees a demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import no_advantage
from sdpg.algorithms.base import Needs
from sdpg.algorithms.divergences import Divergence
from sdpg.types import Rate


@dataclass(frozen=True, kw_only=True)
class SDFT:
    """KL(SG[q] || p) over the whole vocabulary, on the student's own responses."""

    off_policy: ClassVar[bool] = False
    needs_group: ClassVar[bool] = False
    teacher: Literal["live", "frozen", "ema"] = "ema"
    ema_rate: Rate = 0.01
    exclude_stop: bool = False  # no distillation at the stop token

    def needs(self, k: int) -> Needs:
        """Return the teacher on every response."""
        rate = self.ema_rate if self.teacher == "ema" else None
        return Needs(teacher=self.teacher, divergence=Divergence(kind="forward_kl"), ema_rate=rate)

    def advantages(self, R_NG):
        """Return zeros: rewards are not used."""
        return no_advantage(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute KL(SG[q_t] || p_t)."""
        return {"distillation": s.distilled(self.exclude_stop)}

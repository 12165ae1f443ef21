"""On-Policy Context Distillation as the SDPG paper uses it (App. C): pure self-distillation, no reward, no anchor.

The original (LMOps) takes the student's top_k = 256 entries and a fixed teacher: top_k 256, teacher frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import no_advantage
from sdpg.algorithms.base import Needs
from sdpg.algorithms.divergences import Divergence
from sdpg.types import Count


@dataclass(frozen=True, kw_only=True)
class OPCD:
    """KL(p || SG[q]) on every response."""

    off_policy: ClassVar[bool] = False  # one update per rollout batch: its states must be the student's own
    needs_group: ClassVar[bool] = False
    teacher: Literal["live", "frozen"] = "live"
    top_k: Count | None = None  # None: exact, over the whole vocabulary
    exclude_stop: bool = False  # no distillation at the stop token

    def needs(self, k: int) -> Needs:
        """Return the teacher on every response."""
        return Needs(teacher=self.teacher, divergence=Divergence(kind="reverse_kl", top_k=self.top_k))

    def advantages(self, R_NG):
        """Return zeros: rewards are not used."""
        return no_advantage(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute KL(p_t || SG[q_t])."""
        return {"distillation": s.distilled(self.exclude_stop)}

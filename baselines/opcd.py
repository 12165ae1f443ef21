"""On-Policy Context Distillation as the SDPG paper uses it (App. C): pure self-distillation, no reward, no anchor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sdpg.algorithms.base import Needs


@dataclass(frozen=True, kw_only=True)
class OPCD:
    """KL(p || SG[q]) over the whole vocabulary, live teacher, every response."""

    off_policy: ClassVar[bool] = False  # one update per rollout batch: its states must be the student's own

    def needs(self, k: int) -> Needs:
        """The live teacher on every response."""
        return Needs(teacher="live", divergence="reverse_kl")

    def advantages(self, R_NG):
        """Rewards are not used: all zero."""
        return torch.zeros_like(R_NG)

    def token_loss(self, s, A_B1, k):
        """KL(p_t || SG[q_t])."""
        return {"distillation": s.div}

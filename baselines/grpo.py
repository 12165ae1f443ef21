"""Group Relative Policy Optimization (Shao et al. 2024, arXiv 2402.03300): clipped ratio plus a k3 KL penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdpg.algorithms.advantages import group_normalised
from sdpg.algorithms.anchors import k3
from sdpg.algorithms.base import Needs
from sdpg.algorithms.surrogates import clipped


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """Defaults are section 4.1's for the baselines."""

    off_policy: ClassVar[bool] = True  # the ratio allows several updates per rollout batch
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 1e-3  # weight of the KL penalty in the loss

    def needs(self, k: int) -> Needs:
        """The reference, for the KL penalty."""
        return Needs(reference=self.kl_coef > 0)

    def advantages(self, R_NG):
        """Eq. (2.1) of the SDPG paper, the same normalisation."""
        return group_normalised(R_NG)

    def token_loss(self, s, A_B1, k):
        """-min(rho A, clip(rho) A) + kl_coef * k3."""
        L = {"outcome": clipped(s.rho, A_B1, low=self.clip_low, high=self.clip_high)}
        if self.kl_coef > 0:
            L["anchor"] = self.kl_coef * k3(s.logw)
        return L

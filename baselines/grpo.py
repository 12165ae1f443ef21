"""Group Relative Policy Optimization (Shao et al. 2024, arXiv 2402.03300): clipped ratio plus a k3 KL penalty.

Its relatives are settings of it: DAPO (arXiv 2503.14476) is clip_high 0.28, kl_coef 0 and, in the `train` block, reduction
batch, dynamic_sampling and overlong_buffer; Dr. GRPO (2503.20783) is normalise_std false and reduction constant; GSPO
(2507.18071) is ratio sequence and reduction sequence. `imitation` is a control: it also imitates the responses with A > 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import group_centred, group_normalised
from sdpg.algorithms.anchors import k3
from sdpg.algorithms.base import Needs
from sdpg.algorithms.surrogates import clipped, sequence_ratio
from sdpg.types import ClipDual, ClipLow, NonNegative, Positive, Weight


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """Defaults are the SDPG paper's for its baselines (section 4.1)."""

    off_policy: ClassVar[bool] = True  # the ratio allows several updates per rollout batch
    needs_group: ClassVar[bool] = True  # advantages compare the responses of a group
    clip_low: ClipLow = 0.2
    clip_high: NonNegative = 0.2
    clip_dual: ClipDual | None = None  # most that a negative advantage counts
    ratio: Literal["token", "sequence"] = "token"
    normalise_std: bool = True  # divide advantages by the group's standard deviation
    kl_coef: Weight = 1e-3  # weight of the KL penalty
    kl_in_reward: bool = False  # the penalty as k1 in the reward, before advantages, instead of k3 in the loss
    imitation: Weight = 0.0  # weight of -log pi on responses with A > 0
    tis_cap: Positive | None = None  # truncated importance sampling against the rollout engine's probabilities

    def needs(self, k: int) -> Needs:
        """Return the reference, for the KL penalty."""
        whole = self.ratio == "sequence"
        if self.kl_in_reward:
            return Needs(kl_in_reward=self.kl_coef, whole_responses=whole)
        return Needs(reference=self.kl_coef > 0, whole_responses=whole)

    def advantages(self, R_NG):
        """Compute Eq. (2.1) of the SDPG paper, or the same without the division."""
        return group_normalised(R_NG) if self.normalise_std else group_centred(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute -min(rho A, clip(rho) A) + kl_coef * k3."""
        rho = s.rho if self.ratio == "token" else sequence_ratio(s)
        surrogate = clipped(rho, A_B1, low=self.clip_low, high=self.clip_high, dual=self.clip_dual)
        L = {"outcome": s.tis(self.tis_cap) * surrogate}
        if self.kl_coef > 0 and not self.kl_in_reward:
            L["anchor"] = self.kl_coef * k3(s.logw)
        if self.imitation > 0:
            L["imitation"] = -self.imitation * (A_B1 > 0).float() * s.logp
        return L

"""Self-Distilled Policy Gradient: L = L_out + beta(k) * L_OPD+ + alpha * L_K(pi_theta, pi_ref), Eq. (3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdpg.algorithms.advantages import group_normalised
from sdpg.algorithms.anchors import ANCHORS, Anchor
from sdpg.algorithms.base import Needs
from sdpg.algorithms.divergences import Divergence
from sdpg.algorithms.schedules import trapezoid
from sdpg.algorithms.surrogates import clipped
from sdpg.types import ClipDual, ClipLow, Count, CountOrNone, Fraction, NonNegative, Positive, Weight


@dataclass(frozen=True, kw_only=True)
class SDPG:
    """Defaults are section 4.1's, for T = 400 steps."""

    needs_group: ClassVar[bool] = True  # advantages compare the responses of a group
    T: Count = 400  # training steps
    beta_base: Weight = 1e-3  # peak weight of the distillation term
    T_warm: CountOrNone = 50  # beta rises over the first T_warm steps,
    T_decay: CountOrNone = 350  # and falls to 0 over the last T_decay
    alpha: Fraction = 1e-3  # weight of the reference anchor
    anchor: Anchor = "ufkl"  # ufkl | urkl | fkl | rkl
    gate: bool = True  # distil only responses with A > 0, Eq. (3.5)
    off_policy: bool = False  # A.3: clipped ratio, for several updates per rollout batch
    sg_rho: bool = True  # off-policy: the distillation and anchor terms carry SG[rho]; the released code leaves it out
    clip_low: ClipLow = 0.2
    clip_high: NonNegative = 0.28
    clip_dual: ClipDual = 10.0
    tis_cap: Positive | None = None  # truncated importance sampling against the rollout engine's probabilities
    exclude_stop: bool = False  # no distillation at the stop token
    div_clamp: Positive | None = None  # most that one token's divergence counts (released code: 20); None: exact

    def beta(self, k: int) -> float:
        """Return the weight of the distillation term at step k (section 3.5.2)."""
        return trapezoid(k, peak=self.beta_base, T=self.T, T_warm=self.T_warm, T_decay=self.T_decay)

    def needs(self, k: int) -> Needs:
        """Return the live teacher on gated responses while beta(k) > 0, reference while alpha > 0."""
        if self.beta(k) == 0:
            return Needs(reference=self.alpha > 0)
        gate = "positive" if self.gate else "all"
        return Needs(reference=self.alpha > 0, teacher="live", divergence=Divergence(clamp_total=self.div_clamp), gate=gate)

    def advantages(self, R_NG):
        """Compute Eq. (2.1)."""
        return group_normalised(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute Eq. (3.1) per token; off-policy, the last two terms carry SG[rho] (A.3)."""
        A, beta = A_B1, self.beta(k)
        if self.off_policy:
            L = {"outcome": clipped(s.rho, A, low=self.clip_low, high=self.clip_high, dual=self.clip_dual)}
            sg_rho = s.rho.detach() if self.sg_rho else 1.0
        else:
            L = {"outcome": -A * s.logp}
            sg_rho = 1.0
        L["outcome"] = s.tis(self.tis_cap) * L["outcome"]
        if beta > 0:
            m = (A > 0).float() if self.gate else 1.0  # Eq. (3.5)
            L["distillation"] = beta * m * sg_rho * s.distilled(self.exclude_stop)
        if self.alpha > 0:
            L["anchor"] = self.alpha * sg_rho * ANCHORS[self.anchor](s.logw)
        return L

"""Reinforcement Learning with Self-Distillation (arXiv 2604.03128): the teacher re-weights advantages, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdpg.algorithms.advantages import group_normalised
from sdpg.algorithms.anchors import k3
from sdpg.algorithms.base import Needs
from sdpg.algorithms.surrogates import clipped
from sdpg.types import ClipDual, ClipLow, Count, Fraction, NonNegative, Positive, Weight


@dataclass(frozen=True, kw_only=True)
class RLSD:
    """A_hat = A [(1 - lam) + lam clip(u_t, 1 - eps_w, 1 + eps_w)], u_t = exp(sign(A) SG[log q_t(y_t) - log p_t(y_t)])."""

    off_policy: ClassVar[bool] = True
    needs_group: ClassVar[bool] = True  # advantages compare the responses of a group
    lam: Fraction = 0.5  # share of the re-weighting; 0 is GRPO
    lam_decay: Count | None = None  # lam falls linearly to 0 by this step (released code: 50); None: constant
    eps_w: Fraction = 0.2
    clip_low: ClipLow = 0.2
    clip_high: NonNegative = 0.2
    clip_dual: ClipDual | None = None
    kl_coef: Weight = 1e-3  # weight of the KL penalty, as in GRPO
    tis_cap: Positive | None = None  # truncated importance sampling against the rollout engine's probabilities

    def lam_at(self, k: int) -> float:
        """Return lam at step k."""
        return self.lam * max(0.0, 1 - k / self.lam_decay) if self.lam_decay else self.lam

    def needs(self, k: int) -> Needs:
        """Return the teacher's log-prob of the sampled token, where the advantage is not 0, while lam > 0."""
        if self.lam_at(k) == 0:
            return Needs(reference=self.kl_coef > 0)
        return Needs(reference=self.kl_coef > 0, teacher="live", teacher_logp=True, gate="nonzero")

    def advantages(self, R_NG):
        """Normalise as GRPO does."""
        return group_normalised(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute GRPO's clipped surrogate with A_hat."""
        A, lam = A_B1, self.lam_at(k)
        if lam > 0:
            u = (A.sign() * (s.logq - s.logp.detach())).exp()
            A = A * ((1 - lam) + lam * u.clamp(1 - self.eps_w, 1 + self.eps_w))
        surrogate = clipped(s.rho, A, low=self.clip_low, high=self.clip_high, dual=self.clip_dual)
        L = {"outcome": s.tis(self.tis_cap) * surrogate}
        if self.kl_coef > 0:
            L["anchor"] = self.kl_coef * k3(s.logw)
        return L

"""RL with Contrastive On-Policy Self-Distillation (arXiv 2606.11709v2): the teacher's log-prob of a token after a right hint,
less that after wrong hints, is added to the token's advantage.

From the paper (Eq. 7-15): e, its residual r, the threshold, A' that keeps A's sign, the two means within a response, hints that
are other responses of the group in one and the same template, and the defaults below. From the released code (THU-BPM/RLCSD,
commit 7eeff3c): at most 4 wrong hints; a response without a right or without a wrong hint is left out of the update; no KL
penalty; the worked solution as right hint (there `gt_cot`); and, in all its configs, tau 0.02 and eta 1.0 in the place of 1.3
and 0.5. Assumed: the teacher is the policy itself (the code's is a copy of it that is renewed every 10 steps); a group's wrong
responses are put in one random order, of which every response takes the first that are not itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import group_normalised
from sdpg.algorithms.anchors import k3
from sdpg.algorithms.base import Needs
from sdpg.algorithms.surrogates import clipped
from sdpg.types import ClipLow, Count, NonNegative, Positive, Rate, Weight


@dataclass(frozen=True, kw_only=True)
class RLCSD:
    """e = log q_right(y_t) - log mean_K q_wrong(y_t), r = clip(lam tanh(e / tau), +-r_max), A' = A + r where |r| > delta."""

    off_policy: ClassVar[bool] = True
    needs_group: ClassVar[bool] = True  # advantages and hints come from the responses of a group
    hint: Literal["sibling", "solution"] = (
        "sibling"  # the right one: another right response of the group, or the worked solution
    )
    wrong_hints: Count = 4  # K: at most so many of the group's other wrong responses
    without_contrast: Literal["skip", "grpo"] = "skip"  # a response that lacks a hint: no loss, or GRPO's
    teacher: Literal["live", "frozen", "ema"] = "live"
    ema_rate: Rate = 0.05  # of an ema teacher
    lam: Weight = 0.5  # the paper's beta times lambda (1 and 0.5), which come as a product only
    tau: Positive = 1.3
    r_max: Positive = 2.0
    delta: NonNegative = 0.02
    eta: Weight = 0.5  # weight of the selected tokens' mean
    clip_low: ClipLow = 0.2
    clip_high: NonNegative = 0.2
    kl_coef: Weight = 0.0  # weight of the KL penalty, as in GRPO
    tis_cap: Positive | None = None  # truncated importance sampling against the rollout engine's probabilities

    def needs(self, k: int) -> Needs:
        """Return the teacher after the right hint and after the wrong ones, where the advantage is not 0."""
        teacher = {"teacher": self.teacher, "ema_rate": self.ema_rate if self.teacher == "ema" else None, "teacher_logp": True}
        hints = {"context": self.hint, "wrong_hints": self.wrong_hints, "gate": "nonzero"}
        return Needs(reference=self.kl_coef > 0, whole_responses=True, **teacher, **hints)

    def advantages(self, R_NG):
        """Normalise as GRPO does."""
        return group_normalised(R_NG)

    def token_loss(self, s, A_B1, k):
        """Compute the clipped surrogate: its mean with A over the tokens not selected, plus eta times that with A' over those
        selected.

        Both are means within a response: a token's term is multiplied by |y| over the number of tokens of its kind.
        """
        r = (self.lam * ((s.logq - s.logq_wrong) / self.tau).tanh()).clamp(-self.r_max, self.r_max) * s.contrasted
        selected = (r.abs() > self.delta) * s.mask
        A_r = (A_B1 + r).clamp(min=0) * (A_B1 > 0) + (A_B1 + r).clamp(max=0) * (A_B1 < 0)
        counts = s.tis(self.tis_cap) * (s.contrasted if self.without_contrast == "skip" else 1.0)

        def mean(chosen, A):
            share = chosen * s.mask.sum(1, keepdim=True) / chosen.sum(1, keepdim=True).clamp(min=1)
            return counts * share * clipped(s.rho, A, low=self.clip_low, high=self.clip_high)

        L = {"outcome": mean(s.mask - selected, A_B1), "contrast": self.eta * mean(selected, A_r)}
        if self.kl_coef > 0:
            L["anchor"] = self.kl_coef * k3(s.logw)
        return L

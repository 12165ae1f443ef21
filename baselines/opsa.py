"""On-Policy Self-Adaptation (arXiv 2608.31046): pushes down the least likely sampled tokens; no teacher, reward or group.

From the paper: the 20% of the sampled tokens with the lowest log-prob; A = -1/2 - (H - H_min) / (2 (H_max - H_min)) over them,
H the entropy; one fixed negative advantage in its place as the control. From the released code (slime's `compute_opsa`,
commit b09c0b2): floor(fraction M) tokens, at least one, ties in order; equal entropies give -1; log-probs and entropies are
the policy's own before the update, not the engine's; the control's -0.5; the mean over a response's selected tokens alone,
then over responses (`train.reduction: sequence`). Assumed: the selection is over the whole rollout batch, where the code
selects on each data-parallel rank alone, since nothing here may depend on the number of processes; the clip range is GRPO's
(the code makes one update per batch, where the ratio is 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from sdpg.algorithms.advantages import no_advantage
from sdpg.algorithms.base import Needs
from sdpg.algorithms.surrogates import clipped
from sdpg.types import ClipLow, Negative, NonNegative, Positive, Rate


@dataclass(frozen=True, kw_only=True)
class OPSA:
    """Clipped policy gradient with an advantage for each token: 0 but for the selected ones, negative there."""

    off_policy: ClassVar[bool] = True  # the ratio allows several updates per rollout batch
    needs_group: ClassVar[bool] = False  # a token is compared with all tokens of the batch
    advantage: Literal["entropy", "constant"] = "entropy"  # the method's own, or the control
    fraction: Rate = 0.2  # share of the sampled tokens that is selected
    weakest: Negative = -0.5  # entropy: A of the selected token with the lowest entropy
    strongest: Negative = -1.0  # entropy: A of that with the highest
    constant: Negative = -0.5  # constant: A of every selected token
    clip_low: ClipLow = 0.2
    clip_high: NonNegative = 0.2
    tis_cap: Positive | None = None  # truncated importance sampling against the rollout engine's probabilities

    def __post_init__(self):
        if self.strongest > self.weakest:
            raise ValueError(f"strongest={self.strongest} must not be above weakest={self.weakest}: both are advantages")

    def needs(self, k: int) -> Needs:
        """Return advantages by token, and nothing else."""
        return Needs(token_advantages=True)

    def advantages(self, R_NG):
        """Return zeros: rewards are not used."""
        return no_advantage(R_NG)

    def token_advantages(self, logp, entropy):
        """Compute A of the floor(fraction M) tokens with the lowest log-prob: (M,), (M,) -> (M,), 0 on all others."""
        A = logp.new_zeros(logp.shape)
        selected = logp.argsort(stable=True)[: max(1, math.floor(self.fraction * len(logp)))]
        if self.advantage == "constant":
            A[selected] = self.constant
        else:
            H = entropy[selected]
            spread = H.max() - H.min()
            r = (H - H.min()) / spread if spread > 1e-12 else H.new_ones(H.shape)
            A[selected] = self.weakest + (self.strongest - self.weakest) * r
        return A

    def token_loss(self, s, A_B1, k):
        """Compute -min(rho A_t, clip(rho) A_t)."""
        return {"outcome": s.tis(self.tis_cap) * clipped(s.rho, s.A_t, low=self.clip_low, high=self.clip_high)}

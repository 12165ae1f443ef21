"""Did the engine really take the new weights? Its sampled log-probs against a plain transformers forward pass.

After every change of weights a few responses are read again by the checkpoint under transformers, and two questions are asked.
Is the gap small, in its mean and its 0.99 quantile? The largest one decides nothing: in bf16 one token in thousands can be far
off, and says nothing of the weights. Has the engine moved: are its log-probs those of this checkpoint, or still those of the
one before? In bf16 two neighbouring checkpoints can differ by less than the two programs' rounding does, and only the direction
tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdpg.evaluation.checkpoints import named_tensors
from sdpg.types import Rollout

QUANTILE = 0.99
CHECKED_TOKENS = 1024  # of a response, its first: logits of a longer one would not fit beside the engine
STAYED = 0.25  # share of the way from the old weights to the new; rounding alone, between equal weights, gives half
SURE = 5.0  # standard errors


class EngineMismatch(ValueError):
    """The engine's log-probs are not those of the checkpoint that it was given."""


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed gap |log p_engine - log p_transformers| in nats, for the mean and the 0.99 quantile over tokens."""

    mean: float
    quantile: float


# fp32: the kernels differ in the order of summation only (seen: 1e-6 to 1e-5). bf16: each side rounds activations to 8 bits,
# so single tokens differ by a few tenths, but their mean stays small; other weights give a mean gap far above it.
TOLERANCES = {"float32": Tolerance(1e-4, 1e-3), "bfloat16": Tolerance(0.08, 0.5)}
# These hold for logits up to this size. Of weights that have blown up logits are larger, and so is rounding, in proportion.
USUAL_LOGITS = 200.0


@dataclass(frozen=True)
class Agreement:
    """Over the `tokens` sampled tokens to which the checkpoint gives a finite log-prob: mean, 0.99 quantile and largest gap in
    nats; stayed: standard errors by which the log-probs are nearer to the weights before than a quarter of the way (0 if they
    are not, or nothing is known of these).
    """

    tokens: int
    mean: float
    quantile: float
    largest: float
    stayed: float

    def require(self, checkpoint: str | Path, dtype: str, logits: float = 0.0) -> None:
        """Raise EngineMismatch, with the gaps and what is allowed, if these are not the checkpoint's log-probs.

        logits: the largest absolute one of the checkpoint, divided by the temperature.
        """
        more = max(1.0, logits / USUAL_LOGITS)
        limit = Tolerance(TOLERANCES[dtype].mean * more, TOLERANCES[dtype].quantile * more)
        said = f"the engine does not hold the weights of {checkpoint}: over {self.tokens} sampled tokens"
        if not (self.mean <= limit.mean and self.quantile <= limit.quantile):  # also catches NaN
            raise EngineMismatch(
                f"{said} its log-probs differ from transformers' by {self.mean:.3g} nats in the mean, {self.quantile:.3g} in "
                f"the 0.99 quantile, {self.largest:.3g} at most; tolerance for {dtype} is {limit.mean:g} in the mean and "
                f"{limit.quantile:g} in the quantile; nothing of it was written"
            )
        if self.stayed > SURE:
            raise EngineMismatch(f"{said} its log-probs are those of the weights before; nothing of it was written")


def compare(got: Tensor, new: Tensor, old: Tensor | None = None) -> Agreement:
    """Compare an engine's log-probs with the checkpoint's, and with those of the weights that it had before. Each: [tokens].

    Where the checkpoint gives no finite log-prob there is nothing to compare.
    """
    finite = new.isfinite()
    got, new, old = got[finite], new[finite], None if old is None else old[finite]
    if not len(got):
        return Agreement(0, 0.0, 0.0, 0.0, 0.0)
    gap = (got - new).abs()
    stayed = 0.0
    if old is not None and len(got) > 1 and old.isfinite().all():
        way = new - old
        # a token's share of the way, weighted by its length: below 0 where the log-prob stayed; one far-off token weighs little
        short = ((got - old) * way.sign() - STAYED * way.abs()).double()
        if short.mean() < 0 and way.any():
            stayed = (-short.mean() / (short.std() / math.sqrt(len(short))).clamp_min(1e-12)).item()
    quantile = torch.quantile(gap.double(), QUANTILE).item()
    return Agreement(len(gap), gap.mean().item(), quantile, gap.max().item(), stayed)


class Reference:
    """A checkpoint under transformers, on this process's device. Built once: other checkpoints' weights take its place."""

    def __init__(self, folder: str | Path, dtype: str):
        """Load the model in `dtype`."""
        self.folder, self.dtype = Path(folder), dtype
        self.logits = 0.0  # the largest absolute one, divided by the temperature, of what was read last
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self._built(self.folder)

    def _built(self, folder: Path):
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # it would break up the evaluation's own
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, self.dtype))
        return model.to(self.device).eval().requires_grad_(False)

    def load(self, folder: str | Path) -> None:
        """Take another checkpoint's weights, read from its files apart from the engine."""
        folder = Path(folder)
        if folder != self.folder and not self._replaced(folder):  # names that transformers translates
            self.model = None
            self.model = self._built(folder)
        self.folder = folder

    def _replaced(self, folder: Path) -> bool:
        """Copy the tensors in place -> whether they are all that the model has, tied ones given once."""
        state, given = self.model.state_dict(), set()
        for name, tensor in named_tensors(folder):
            if name not in state or state[name].shape != tensor.shape:
                return False
            state[name].copy_(tensor)
            given.add(state[name].data_ptr())
        return all(tensor.data_ptr() in given for tensor in state.values())

    @torch.inference_mode()
    def logprobs(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float) -> Tensor:
        """Return log p(responses[i][t] | prompts[i], responses[i][:t]) at a temperature (0, greedy: at 1), float32 [tokens]."""
        result, self.logits = [], 0.0
        for prompt, response in zip(prompts, responses, strict=True):
            ids = torch.tensor([[*prompt, *response]], device=self.device)  # [1, L]
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(response) + 1).logits[0, :-1]  # [T, V]
            logits = logits.float() / (temperature or 1.0)
            largest = logits.abs().max().item()
            self.logits = max(self.logits, largest) if math.isfinite(largest) else self.logits
            logprobs = torch.log_softmax(logits, dim=-1)
            result.append(logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].cpu())
        return torch.cat(result)


def check_agreement(
    reference: Reference,
    checkpoint: str | Path,
    prompts: Sequence[Sequence[int]],
    rollouts: Sequence[Rollout],
    *,
    temperature: float,
    dtype: str,
) -> Agreement:
    """Compare rollouts[i], sampled after prompts[i], with the checkpoint. Raises EngineMismatch.

    reference: comes with the weights that the engine had before, and takes the checkpoint's.
    """
    responses = [rollout.ids[:CHECKED_TOKENS] for rollout in rollouts]
    got = torch.cat([torch.tensor(rollout.logprobs[:CHECKED_TOKENS]) for rollout in rollouts])
    old = reference.logprobs(prompts, responses, temperature)
    reference.load(checkpoint)
    agreement = compare(got, reference.logprobs(prompts, responses, temperature), old)
    agreement.require(checkpoint, dtype, reference.logits)
    return agreement

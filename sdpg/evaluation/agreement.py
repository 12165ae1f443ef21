"""Did the engine really take the new weights? Its sampled log-probs against a plain transformers forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sdpg.rollout.context import attention_of
from sdpg.types import Rollout


class EngineMismatch(ValueError):
    """The engine's log-probs are not those of the checkpoint that it was given."""


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed gap |log p_engine - log p_transformers| in nats, for the largest and the mean over tokens."""

    largest: float
    mean: float


# fp32: the kernels differ in the order of summation only (seen: 1e-6 to 1e-5). bf16: each side rounds activations to 8 bits,
# so single tokens differ by a few tenths, but their mean stays small; other weights give a mean gap far above it.
TOLERANCES = {"float32": Tolerance(1e-3, 1e-4), "bfloat16": Tolerance(1.0, 0.08)}
# These hold for logits up to this size. Of weights that have blown up logits are larger, and so is rounding, in proportion.
USUAL_LOGITS = 200.0


def check_agreement(
    checkpoint: str | Path, prompts: Sequence[Sequence[int]], rollouts: Sequence[Rollout], *, temperature: float, dtype: str
) -> float:
    """Compare rollouts[i], sampled after prompts[i], with the checkpoint under transformers; return the largest gap in nats.

    Raises EngineMismatch with the checkpoint, the gaps and the tolerances if they do not agree. Where the checkpoint itself
    gives no finite log-prob there is nothing to compare.
    """
    logits: list[float] = []
    expected = torch.cat(
        checkpoint_logprobs(checkpoint, prompts, [r.ids for r in rollouts], temperature=temperature, dtype=dtype, sizes=logits)
    )
    got = torch.cat([torch.tensor(r.logprobs) for r in rollouts])
    comparable = expected.isfinite()
    gap = (got - expected)[comparable].abs()
    if not len(gap):
        return 0.0
    largest, mean = gap.max().item(), gap.mean().item()
    more = max(1.0, max(filter(math.isfinite, logits), default=1.0) / USUAL_LOGITS)
    limit = Tolerance(TOLERANCES[dtype].largest * more, TOLERANCES[dtype].mean * more)
    if not (largest <= limit.largest and mean <= limit.mean):  # also catches NaN
        raise EngineMismatch(
            f"the engine does not hold the weights of {checkpoint}: over {len(gap)} sampled tokens its log-probs differ from "
            f"transformers' by up to {largest:.3g} (mean {mean:.3g}) nats, tolerance for {dtype} is {limit.largest:g} "
            f"(mean {limit.mean:g}); nothing was written"
        )
    return largest


@torch.inference_mode()
def checkpoint_logprobs(
    checkpoint: str | Path,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float,
    dtype: str,
    sizes: list[float] | None = None,
) -> list[torch.Tensor]:
    """Return log p(responses[i][t] | prompts[i], responses[i][:t]) at a temperature (0, greedy: at 1), one float32 tensor
    [len(responses[i])] each.

    sizes: gets the largest absolute logit of each response, divided by the temperature.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # one bar for each checkpoint would break up the evaluation's own
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(checkpoint)
    how = {"dtype": getattr(torch, dtype), "attn_implementation": attention_of(config)}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, config=config, **how).to(device).eval()
    result = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([[*prompt, *response]], device=device)  # [1, L]
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]  # [T, V]
        logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
        if sizes is not None:
            sizes.append(logits.float().abs().max().item() / (temperature or 1.0))
        result.append(logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].cpu())
    return result

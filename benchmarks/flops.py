"""What a training step has to compute and move, counted by hand from a model's sizes; no torch.

For a dense decoder (Qwen3, Llama) with per layer the products of attention, 2 d H h + 2 d K h weights (H query heads and K key
and value heads of size h), and of the gated MLP, 3 d f; and the lm-head, V d. N is their sum over the layers without the head.

- forward pass over sequences of L tokens: 2 N L + 4 n H h pairs(L), pairs(L) = L (L + 1) / 2 for each of n layers (scores and
  values, causal), plus 2 V d per token that needs logits. Backward: twice that.
- A step counts each response with its own prompt, once, without padding. What an implementation does beyond that (padding, a
  product computed again) or spares (a prompt shared by its group) shows in its ratio to the limit.
- bytes, least possible: a forward pass reads every weight once; a training pass reads them twice and writes a gradient of the
  masters' size; AdamW reads master, gradient and two moments, and writes master, moments and the compute copy; a decoding step
  reads every weight and each row's cached keys and values so far.

Elementwise work (norms, softmax, rotary embedding) is not counted: it is small where matrices are large.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sdpg.experiment.architecture import Architecture

MASTER = 4  # bytes of a float32 master, gradient or moment


def forward(model: Architecture, lengths: Iterable[int], logits: int, *, causal: bool = True) -> float:
    """FLOPs of a forward pass over sequences of these lengths, with logits at so many tokens."""
    lengths = list(lengths)
    pairs = sum(n * (n + 1) / 2 if causal else n * n for n in lengths)
    return 2 * model.body * sum(lengths) + 4 * model.layers * model.q * pairs + 2 * model.embedding * logits


@dataclass(frozen=True)
class Work:
    """FLOPs and bytes of one phase."""

    flops: float
    bytes: float

    def limit_seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The time below which a machine of these peaks cannot go."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def step_work(
    model: Architecture, width: int, prompts, teacher_prompts, responses, *, reference: bool, gated
) -> dict[str, Work]:
    """Work of a step by phase. All are lengths per response, (B,) each; gated: which responses a teacher reads.

    width: bytes of a weight in the compute precision.
    """
    read = [x + y for x, y in zip(prompts, responses, strict=True)]
    weights = (model.body + model.embedding) * width
    passed = Work(forward(model, read, sum(responses)), weights)
    result = {"train": Work(3 * passed.flops, 2 * weights + model.parameters * MASTER)}
    if reference:
        result["reference"] = passed
    if any(gated):
        rows = [(c + y, y) for c, y, open_ in zip(teacher_prompts, responses, gated, strict=True) if open_]
        result["teacher"] = Work(forward(model, [n for n, _ in rows], sum(y for _, y in rows)), weights)
    copy = width if width < MASTER else 0
    result["optimizer"] = Work(0.0, model.parameters * (7 * MASTER + copy))
    return result


def rollout_work(model: Architecture, width: int, prompts: list[int], group: int, length: int) -> Work:
    """Work of sampling `group` responses of `length` tokens to each prompt: a prompt is read once, then T = length steps."""
    rows = [x for x in prompts for _ in range(group)]
    weights = model.body + model.embedding
    positions = sum(x + t for x in rows for t in range(1, length))  # read by the steps after the first token
    decoded = (length - 1) * len(rows) * 2 * weights + 4 * model.layers * model.q * positions
    cached = 2 * model.layers * model.kv * width * positions
    return Work(forward(model, prompts, len(prompts)) + decoded, length * weights * width + cached)

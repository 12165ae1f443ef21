"""What a training step has to compute and move, counted by hand; no torch.

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

MASTER = 4  # bytes of a float32 master, gradient or moment


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; `width` the bytes of a weight in the compute precision."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    width: int

    @classmethod
    def of(cls, config, width: int) -> "Shape":
        """From an HF config."""
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
            width=width,
        )

    @property
    def body(self) -> int:
        """N: weights that multiply every token, without the lm-head."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Weights of the lm-head."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Weights that are stored and trained (norms left out)."""
        return self.body + self.head * (1 if self.tied else 2)

    def forward(self, lengths: Iterable[int], logits: int, *, causal: bool = True) -> float:
        """FLOPs of a forward pass over sequences of these lengths, with logits at so many tokens."""
        lengths = list(lengths)
        pairs = sum(n * (n + 1) / 2 if causal else n * n for n in lengths)
        attention = 4 * self.layers * self.heads * self.head_dim * pairs
        return 2 * self.body * sum(lengths) + attention + 2 * self.head * logits

    def cache_bytes(self, positions: float) -> float:
        """Keys and values of so many positions."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.width * positions


@dataclass(frozen=True)
class Work:
    """FLOPs and bytes of one phase."""

    flops: float
    bytes: float

    def limit_seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The time below which a machine of these peaks cannot go."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def step_work(shape: Shape, prompts, teacher_prompts, responses, *, reference: bool, gated) -> dict[str, Work]:
    """Work of a step by phase. All are lengths per response, (B,) each; gated: which responses a teacher reads."""
    read = [x + y for x, y in zip(prompts, responses, strict=True)]
    tokens = sum(responses)
    weights = (shape.body + shape.head) * shape.width
    forward = Work(shape.forward(read, tokens), weights)
    gradient = shape.parameters * MASTER
    result = {"train": Work(3 * forward.flops, 2 * weights + gradient)}
    if reference:
        result["reference"] = forward
    if any(gated):
        rows = [(c + y, y) for c, y, open_ in zip(teacher_prompts, responses, gated, strict=True) if open_]
        result["teacher"] = Work(shape.forward([n for n, _ in rows], sum(y for _, y in rows)), weights)
    copy = shape.width if shape.width < MASTER else 0
    result["optimizer"] = Work(0.0, shape.parameters * (7 * MASTER + copy))
    return result


def rollout_work(shape: Shape, prompts: list[int], group: int, length: int) -> Work:
    """Work of sampling `group` responses of `length` tokens to each prompt: a prompt is read once, then T = length steps."""
    prefill = shape.forward(prompts, len(prompts))
    rows = [x for x in prompts for _ in range(group)]
    flops, moved = prefill, (shape.body + shape.head) * shape.width
    positions = sum(x + t for x in rows for t in range(1, length))  # read by the steps after the first token
    flops += (length - 1) * len(rows) * 2 * (shape.body + shape.head)
    flops += 4 * shape.layers * shape.heads * shape.head_dim * positions
    moved += (length - 1) * (shape.body + shape.head) * shape.width + shape.cache_bytes(positions)
    return Work(flops, moved)

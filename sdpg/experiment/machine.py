"""Cards and how a job is spread over them, as the planner takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdpg.config import Config
from sdpg.rollout.placement import share

GIB = 2**30  # a card of "80 GB" has 80 of these


@dataclass(frozen=True)
class Gpu:
    """A card: memory in bytes, dense bf16 FLOPs and bytes of its memory a second, bytes a second to the others of its node."""

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float

    @property
    def kind(self) -> str:
        """torch's name of the device."""
        return "cpu" if self.name == "cpu" else "cuda"


# vendor's figures: GiB, TFLOP/s in bf16 with float32 sums and without sparsity, GB/s, GB/s in one direction
_CARDS = {
    "h100": (80, 989, 3350, 450),
    "a100": (80, 312, 2039, 300),
    "h200": (141, 989, 4800, 450),
    "b200": (180, 2250, 8000, 900),
    "l40s": (48, 362, 864, 25),
    "l4": (24, 121, 300, 25),
    "rtx4090": (24, 165, 1008, 25),
    "rtx3090": (24, 71, 936, 25),
}
CARDS = {name: Gpu(name, gib * GIB, tf * 1e12, gb * 1e9, link * 1e9) for name, (gib, tf, gb, link) in _CARDS.items()}


def card(name: str | None, gib: float | None) -> Gpu:
    """Return a card by name, by memory (the first of the nearest size), or both; an H100 by default. Raises ValueError."""
    if name is None:
        name = min(CARDS, key=lambda known: abs(CARDS[known].memory - (gib or 80) * GIB))
    if name not in CARDS:
        raise ValueError(
            f"--gpu: got {name!r}, expected one of {', '.join(CARDS)}; for another give the nearest and --gpu-memory"
        )
    return CARDS[name] if gib is None else replace(CARDS[name], memory=gib * GIB)


def processor(threads: int, mem_mb: int) -> Gpu:
    """Return what stands for a card where there is none: a quarter of a TFLOP/s a thread."""
    return Gpu("cpu", mem_mb * 1e6, 0.25e12 * threads, 20e9, 20e9)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a job is spread: GPUs of a node (0: CPU), nodes, and what the rollout engine takes of it."""

    gpus: int
    nodes: int = 1
    vllm_memory: float = 0.6
    max_num_seqs: int = 512
    tensor_parallel: int = 1
    prefix_caching: bool = True

    @property
    def world(self) -> int:
        """Processes of the job."""
        return max(1, self.gpus) * self.nodes


def placement(config: Config, gpu: Gpu, gpus: int | None = None, nodes: int | None = None) -> Placement:
    """Return what a scale's `resources` say on this card, with these numbers of GPUs and nodes in their place."""
    resources = config.resources
    taken = share(gpu.memory / GIB, **resources.vllm.dump())
    return Placement(
        gpus=resources.gpus if gpus is None else gpus,
        nodes=nodes or resources.nodes,
        vllm_memory=taken.memory,
        max_num_seqs=taken.max_num_seqs,
        tensor_parallel=taken.tensor_parallel,
        prefix_caching=taken.prefix_caching is not False,
    )

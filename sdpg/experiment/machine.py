"""Cards and how a job is spread over them, as the planner takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdpg.config import Config
from sdpg.rollout.placement import DEFAULT, Share, share

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


def processor(place: Placement, threads: int, mem_mb: int) -> Gpu:
    """Return what stands for a card where there is none: one process's share of the job, a quarter of a TFLOP/s a thread."""
    return Gpu("cpu", mem_mb * 1e6 / place.local, 0.25e12 * max(1, threads / place.local), 20e9, 20e9)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a job is spread: GPUs of a node (0: CPU), processes of a node without GPUs, nodes, and a rollout engine's share."""

    gpus: int
    processes: int = 1
    nodes: int = 1
    engine: Share = DEFAULT

    @property
    def local(self) -> int:
        """Processes of a node."""
        return self.gpus or self.processes

    @property
    def world(self) -> int:
        """Processes of the job."""
        return self.local * self.nodes

    @property
    def shards(self) -> int:
        """Parts that the state is in: over a node's processes, or over the nodes where each has one (sdpg.core.distributed)."""
        return self.local if self.local > 1 else self.nodes


def placement(config: Config, gpu: Gpu, gpus: int | None = None, nodes: int | None = None) -> Placement:
    """Return what a scale's `resources` say on this card, with these numbers of GPUs and nodes in their place."""
    resources = config.resources
    return Placement(
        gpus=resources.gpus if gpus is None else gpus,
        processes=resources.processes or 1,
        nodes=nodes or resources.nodes,
        engine=share(gpu.memory / GIB, **resources.vllm.dump()),
    )

"""The parts of the GPU check, by letter: what each is, the module and function that run it, and its share of the time."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A part. run: "module:function" below benchmarks.gpu, called with the `Session`. share: of the whole time."""

    title: str
    run: str
    share: float


PARTS = {
    "a": Part("kernels against float64 and the CPU path", "kernels:run", 0.16),
    "b": Part("a training step of every method, CPU against GPU", "steps:run", 0.14),
    "c": Part("memory of the state and of each phase, against arithmetic", "memory:run", 0.14),
    "d": Part("head and step beside Liger and TRL", "peers:run", 0.30),
    "e": Part("MFU by phase", "mfu:run", 0.14),
    "f": Part("sixty steps of a tiny model", "learning:run", 0.12),
}

"""What this machine can do at best: floating-point operations and bytes a second, measured."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_seconds(call: Callable[[], object], seconds: float, least: int = 5) -> float:
    """Return the shortest of the calls that fit into so many seconds, at least `least`, after one that does not count."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    call()
    wait()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_peak(precision: str, size: int, seconds: float = 2.0) -> float:
    """Return FLOP/s of a size x size x size product, the second matrix plain or transposed, whichever is faster."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(size, size, device=device()).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    calls = (lambda: torch.mm(a, b, out=out), lambda: torch.mm(a, b.T, out=out))
    return 2 * size**3 / min(best_seconds(call, seconds) for call in calls)


def copy_bandwidth(megabytes: int, seconds: float = 2.0) -> float:
    """Return bytes/s of a copy, read and written bytes together."""
    import torch

    source = torch.ones(megabytes * 2**18, device=device())
    target = torch.empty_like(source)
    return 2 * megabytes * 2**20 / best_seconds(lambda: target.copy_(source), seconds)


def device() -> str:
    """Return where the peaks are measured: "cuda" if there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

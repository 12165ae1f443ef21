"""Data parallelism in a few lines: every process takes its share of the prompts, gradients are summed.

The loss weights are those of the whole update (`sdpg.algorithms.reduce`), so summing gives the single-process gradient.
Started by `torchrun`; without it there is one process and every function here is the identity.
"""

from __future__ import annotations

import json
import os

import torch
import torch.distributed as dist
from torch import Tensor


def start() -> tuple[int, int]:
    """Join the process group that torchrun's environment describes -> (rank, world size); (0, 1) without one."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def sum_over_processes(tensors: list[Tensor]) -> None:
    """Sum each tensor over all processes, in place, as one flat message per dtype."""
    if not dist.is_initialized():
        return
    for dtype in {t.dtype for t in tensors}:
        same = [t for t in tensors if t.dtype == dtype]
        flat = torch._utils._flatten_dense_tensors(same)
        dist.all_reduce(flat)
        for t, part in zip(same, torch._utils._unflatten_dense_tensors(flat, same), strict=True):
            t.copy_(part)


def gather(value) -> list:
    """Return every process's value (JSON data), in rank order, on every process."""
    if not dist.is_initialized():
        return [value]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    message = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    sizes = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(message)], device=device))
    padded = torch.zeros(int(max(sizes)), dtype=torch.uint8, device=device)
    padded[: len(message)] = message
    parts = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [json.loads(bytes(p[: int(n)].tolist())) for p, n in zip(parts, sizes, strict=True)]


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()

"""The processes of one run: who they are, and what they tell each other. Model state is sharded elsewhere (sharding.py).

`start` joins the group that torchrun's environment describes. Without torchrun there is one process, and every function here is
the identity. How many processes there are is known from `start` alone: vLLM starts a process group too, for itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

PATIENCE = timedelta(hours=1)  # sampling of one process may take that much longer than another's


@dataclass(frozen=True)
class World:
    """All processes of the run. rank: this one's number; local: processes on each node."""

    rank: int = 0
    size: int = 1
    local: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0


@cache
def start() -> World:
    """Join the processes that torchrun started, each on a GPU of its own where there are GPUs. Call it before vLLM starts.

    Raises ValueError for more processes on this node than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" not in os.environ or size == 1:
        return World()
    local, cuda = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.is_available()
    if cuda:
        if local > torch.cuda.device_count():
            raise ValueError(
                f"got {local} processes on this node, but {torch.cuda.device_count()} GPUs; start one process per GPU "
                "(resources.gpus, or torchrun --nproc-per-node)"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    return World(dist.get_rank(), size, local)


@cache
def mesh() -> DeviceMesh | None:
    """Return the processes as FSDP2 wants them: (nodes, processes of a node), or one row if either is 1; None if alone."""
    world = start()
    if world.size == 1:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if world.size > world.local > 1:
        shape = (world.size // world.local, world.local)
        return init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(device, (world.size,), mesh_dim_names=("shard",))


def gather_array(values: np.ndarray, group: dist.ProcessGroup | None = None) -> list[np.ndarray]:
    """Return every process's array (n,) of one dtype, in rank order, on every process. The lengths may differ.

    group: another one of all processes, for what goes on beside their own (`saving`).
    """
    if start().size == 1:
        return [values]
    own = torch.from_numpy(np.ascontiguousarray(values))
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(start().size)]
    dist.all_gather(sizes, torch.tensor([len(own)]), group)
    padded = own.new_zeros(int(max(sizes)))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group)
    return [part[: int(n)].numpy() for part, n in zip(parts, sizes, strict=True)]


def gather(value, group: dist.ProcessGroup | None = None) -> list:
    """Return every process's value (JSON data), in rank order, on every process. group: as of `gather_array`."""
    if start().size == 1:
        return [value]
    messages = gather_array(np.frombuffer(bytearray(json.dumps(value).encode()), dtype=np.uint8), group)
    return [json.loads(message.tobytes()) for message in messages]


def agree(flag: bool) -> bool:
    """Return whether the flag is set on any process; all get the same answer."""
    if start().size == 1:
        return flag
    vote = torch.tensor(int(flag))
    dist.all_reduce(vote, dist.ReduceOp.MAX)
    return bool(vote)


def saving() -> dist.ProcessGroup | None:
    """Return a group for saving beside the training, on the CPU; None where there is no process group. Collective.

    One process has one too where vLLM has started a group: on a GPU that knows no CPU.
    """
    return dist.new_group(backend="gloo", timeout=PATIENCE) if dist.is_initialized() else None


def finish() -> None:
    """Leave the group, at the end of a run. Collective."""
    if start().size > 1 and dist.is_initialized():
        barrier()
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if start().size > 1:
        dist.all_reduce(torch.zeros(1))  # of the CPU group: a barrier of NCCL would wait for the GPU as well

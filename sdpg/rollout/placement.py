"""What a rollout engine may take of the machine. No torch here: plans are made from it before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

# GiB of a GPU from which on -> share of it beside a sleeping trainer, sequences decoded at the same time
BY_SIZE = {70: (0.6, 512), 36: (0.5, 256), 0: (0.4, 128)}  # a card of 40 GB shows 39.4 GiB
ALONE = 0.85  # where nothing is trained beside it
PASSES = 3.0  # GiB of a forward pass beside an engine: activations, logits of a response, CUDA's own
BATCHED_TOKENS = 8192  # that vLLM reads at once, on every card; more where one prompt may be longer
CPU_CACHE_LIMIT = 4 * 2**30  # bytes of vLLM's KV cache on a CPU; past this, waiting sequences queue instead
IN_PROCESS_ROWS = 1024  # most responses that the in-process engine decodes side by side


@dataclass(frozen=True, kw_only=True)
class Share:
    """An engine's share. It changes memory and speed, never what is sampled but for rounding.

    memory: part of a GPU's memory for weights and KV cache. max_num_seqs: sequences decoded at the same time. tensor_parallel:
    processes that hold one engine together. prefix_caching: None for where it helps. launched: this is one of several processes
    that torchrun, or what does the same, has started, and their process group is there already.
    """

    memory: float = 0.6
    max_num_seqs: int = 512
    tensor_parallel: int = 1
    prefix_caching: bool | None = None
    launched: bool = False


DEFAULT = Share()


def own_gpu() -> float:
    """Return the size of this process's GPU in GiB; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30


def share(gpu_gib: float, *, alone: bool = False, beside: float = 0.0, launched: bool = False, **given) -> Share:
    """Return the share on a GPU of this size; what is given and not None takes the place of the default.

    alone: no trainer keeps its state on the same GPU. beside: GiB of a model that is there as well, for forward passes.
    """
    memory, seqs = next(values for size, values in BY_SIZE.items() if gpu_gib >= size)
    if alone:
        memory = min(ALONE, max(0.1, 1 - (beside + PASSES) / gpu_gib)) if beside and gpu_gib else ALONE
    defaults = {"memory": memory, "max_num_seqs": seqs}
    return Share(**defaults | {key: value for key, value in given.items() if value is not None}, launched=launched)

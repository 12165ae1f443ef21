"""One model over several processes: FSDP2's shards, and the lm-head, gathered once for an update.

Every parameter is a DTensor whose rows are spread over the processes of a node, and copied over nodes (HSDP). Layers are
gathered one by one as a pass goes through them. The lm-head is not run as a module but read in chunks (head/), so it is
gathered whole, and its gradient is added up in float32 and handed back to the shards once an update.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial
from transformers import PreTrainedModel

from sdpg.core.adapters import Adapter, weights
from sdpg.core.head.api import Head


def shard(model: PreTrainedModel, mesh: DeviceMesh, dtype: torch.dtype) -> PreTrainedModel:
    """Shard a causal LM in place: each block, the embedding, the lm-head and the rest are gathered by themselves.

    The shards keep the dtype that the model was loaded in; passes compute in `dtype` and gradients are reduced in float32.
    A tied lm-head stays the embedding's shard.
    """
    how = {"mesh": mesh}
    if {p.dtype for p in model.parameters()} != {dtype}:
        how["mp_policy"] = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    for block in blocks(model):
        fully_shard(block, **how)
    fully_shard(embedding, **how)
    if tied:
        head.weight = embedding.weight
    else:
        fully_shard(head, **how)
    fully_shard(model.base_model, reshard_after_forward=True, **how)  # the root of every pass: the final norm
    return model


def blocks(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Yield the transformer blocks. Raises ValueError for a model that does not say which these are."""
    kinds = set(model._no_split_modules or ())
    found = [module for module in model.base_model.modules() if type(module).__name__ in kinds]
    found = [module for module in found if module is not model.get_input_embeddings()]
    if not found:
        raise ValueError(
            f"{type(model).__name__} does not name its blocks (_no_split_modules): it can be neither sharded nor adapted"
        )
    yield from found


def is_sharded(model: nn.Module) -> bool:
    """Return whether the model's parameters are shards."""
    return isinstance(next(model.parameters()), DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard, or the tensor itself where it is not sharded. Changes in place reach the shards."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensors(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, whole tensor in `dtype`) of each weight, one after the other. Collective: all must take all, in order.

    They are those of the HF checkpoint: an adapter is merged into its weight, in its own precision, before rounding to `dtype`.
    Buffers that a checkpoint has come last, as they are. No reference to a tensor is kept after it was yielded.
    """
    for name, weight, adapter in weights(model):
        kept = dtype if isinstance(weight, nn.Parameter) else weight.dtype
        yield name, (_whole(weight, kept) if adapter is None else _merged(weight, adapter, dtype))


def _merged(weight: Tensor, adapter: Adapter, dtype: torch.dtype) -> Tensor:
    W, B, A = (_whole(x, adapter.B.dtype) for x in (weight, adapter.B, adapter.A))
    return torch.addmm(W, B, A, alpha=adapter.scale).to(dtype)


def _whole(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.detach().to(dtype)
    return x.full_tensor() if isinstance(x, DTensor) else x


class WholeHead:
    """A sharded model's lm-head, gathered from here to `release`: plain tensors that the head's functions take.

    Its gradient is added up in float32 over all micro-batches.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype):
        """Gather the head in `dtype`. Collective."""
        shards = Head.of(model)
        self._pairs: list[tuple[DTensor, Tensor]] = []
        weight, bias = (self._gather(x, dtype) for x in (shards.weight, shards.bias))
        self.head = Head(weight, bias, shards.softcap, shards.scale)

    def _gather(self, shards: DTensor | None, dtype: torch.dtype) -> Tensor | None:
        if shards is None:
            return None
        whole = _whole(shards, dtype)
        if shards.requires_grad and torch.is_grad_enabled():
            whole.requires_grad_().register_post_accumulate_grad_hook(_widen)
            whole.wide_grad = torch.zeros_like(whole, dtype=torch.promote_types(dtype, torch.float32))
            self._pairs.append((shards, whole))
        return whole

    def release(self) -> None:
        """Hand the gradient back to the shards, as FSDP2 does: the mean over all processes. Collective."""
        for shards, whole in self._pairs:
            mesh = shards.device_mesh
            partial = DTensor.from_local(whole.wide_grad / mesh.size(), mesh, [Partial()] * mesh.ndim, run_check=False)
            gradient = partial.redistribute(placements=shards.placements).to(shards.dtype)
            shards.grad = gradient if shards.grad is None else shards.grad + gradient
        self._pairs = []


def _widen(whole: Tensor) -> None:
    """Add what a backward pass gave to the wider sum."""
    whole.wide_grad.add_(whole.grad)
    whole.grad = None

"""Low-rank adapters (LoRA, arXiv 2106.09685), made by peft: a linear layer W of the blocks reads as W + (alpha / r) B A.

Only A (r, inputs) and B (outputs, r) are trained; W, embedding and lm-head are frozen and there once. The policy's class, its
lm-head and its blocks stay what they were. Reference and teachers are views of the same weights, not copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

NAME = "default"  # peft's, of the one adapter that each layer has


class Adapter(NamedTuple):
    """What is added to a weight: scale x B A."""

    A: nn.Parameter  # (r, inputs)
    B: nn.Parameter  # (outputs, r)
    scale: float


class Lora(NamedTuple):
    """Settings of the adapters. rank: 0 for none. alpha: None for twice the rank. seed: decides A; B starts at 0."""

    rank: int
    alpha: float | None
    seed: int

    def add(self, model: PreTrainedModel, blocks: Iterable[nn.Module], dtype: torch.dtype) -> None:
        """Give every linear layer of the blocks an adapter, and freeze all else. In place.

        dtype: of the adapters: that of the passes, or float32 where they will be shards, which are their own masters. torch's
        random state stays as it was. Raises ValueError if the blocks have no linear layers.
        """
        inside = {id(m) for block in blocks for m in block.modules() if isinstance(m, nn.Linear)}
        names = [name for name, m in model.named_modules() if id(m) in inside]
        if not names:
            raise ValueError(
                f"train.lora_rank={self.rank}: the blocks of {type(model).__name__} have no torch.nn.Linear that could get an "
                "adapter; set it to 0 to train all weights"
            )
        from peft import LoraConfig, inject_adapter_in_model  # seconds to import

        inside = [f"model.{name}" for name in names]
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha or 2 * self.rank, target_modules=inside)
        holder = nn.ModuleDict({"model": model})  # without a `config`, by which peft takes names of a dense layer for experts'
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            inject_adapter_in_model(config, holder, adapter_name=NAME)
        for _, layer in _layers(model):  # peft makes them in the dtype of the weights
            for part in (layer.lora_A, layer.lora_B):
                part.to(dtype)


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor, Adapter | None]]:
    """Yield each weight and each buffer of a checkpoint under its name without adapters, and the adapter that belongs to it, if
    any.
    """
    adapted = {}
    for name, layer in _layers(model):
        pair = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        adapted[f"{name}.base_layer.weight"] = Adapter(*pair, layer.scaling[NAME])
    for name, p in model.named_parameters():
        if ".lora_" not in name:
            yield name.replace(".base_layer.", "."), p, adapted.get(name)
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}", buffer, None


def has_adapters(model: nn.Module) -> bool:
    """Return whether the model has adapters."""
    return next(_layers(model), None) is not None


class _View:
    """The policy as a model of its own: everything is the policy's, but its body is run after a change that is then undone."""

    def __init__(self, policy: PreTrainedModel):
        self._policy = policy

    def __getattr__(self, name: str):
        return getattr(self._policy, name)

    def base_model(self, **inputs):
        """Run the policy's body as this view sees it. No graph of the policy may wait for its backward pass meanwhile."""
        self._toggle()
        try:
            return self._policy.base_model(**inputs)
        finally:
            self._toggle()


class WithoutAdapters(_View):
    """The policy with its adapters off: the reference, or a frozen teacher. It holds no weights."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield the modules that take part in a pass."""
        return (m for name, m in self._policy.named_modules() if ".lora_" not in name)

    def _toggle(self) -> None:
        """Switch the adapters off or on. peft's `enable_adapters` would change `requires_grad` too, which FSDP2 reads once."""
        for _, layer in _layers(self._policy):
            layer._disable_adapters = not layer._disable_adapters


class OtherAdapters(_View):
    """The policy with other values of its adapters: an EMA teacher. It holds these values alone, at first the policy's."""

    def __init__(self, policy: PreTrainedModel):
        """policy: a model with adapters; it has its own values again after each pass, also one that failed."""
        super().__init__(policy)
        self._own = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self._others = {name: p.detach().clone() for name, p in self._own.items()}

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield this view's own values by name."""
        yield from self._others.items()

    def parameters(self) -> Iterator[Tensor]:
        """Yield this view's own values."""
        yield from self._others.values()

    @torch.no_grad()
    def _toggle(self) -> None:
        """Exchange the values in place: shards keep their storage."""
        for name, own in self._own.items():
            kept = own.clone()
            own.copy_(self._others[name])
            self._others[name].copy_(kept)


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))

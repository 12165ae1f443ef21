"""AdamW with float32 master weights, linear warm-up and clipping by the global norm (section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from sdpg.core.sharding import local


class MasterAdamW:
    """Optimises float32 copies of the trainable parameters; float32 parameters, and float32 shards, are their own copy.

    A bf16 parameter's gradient is added to its master's float32 gradient as soon as it is complete and then freed, so
    that many micro-batches add up in float32 and no second full set of bf16 gradients is kept.
    """

    def __init__(self, model: nn.Module, *, lr: float, betas, weight_decay: float, warmup_steps: int, clip_norm: float):
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names, self.parameters = zip(*trained, strict=True)
        self.masters = [p if p.dtype == torch.float32 else _master(p) for p in self.parameters]
        self.adamw = torch.optim.AdamW(self.masters, lr=lr, betas=tuple(betas), weight_decay=weight_decay, fused=True)
        self.lr, self.warmup_steps, self.clip_norm = lr, warmup_steps, clip_norm
        self.updates = 0
        first = self.masters[0]
        self.processes = first.device_mesh.size() if isinstance(first, DTensor) else 1

    def learning_rate(self, update: int) -> float:
        """Return the learning rate: linear warm-up over the first `warmup_steps` updates (counted from 1), then constant."""
        return self.lr * min(1.0, update / self.warmup_steps) if self.warmup_steps else self.lr

    def step(self) -> float:
        """Clip, update, copy masters back -> global gradient norm before clipping. Collective where the model is sharded.

        Shards hold the mean of the processes' gradients (FSDP2), whose sum is wanted: the loss has the weights of the whole
        update. Raises FloatingPointError, with the weights untouched, if the norm is not finite.
        """
        gradients = [m.grad if m.grad is not None else _zero_grad(m) for m in self.masters]
        shards = [local(g) for g in gradients]
        if self.processes > 1:
            torch._foreach_mul_(shards, self.processes)
        norm = get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not torch.isfinite(norm):
            raise FloatingPointError(f"gradient norm is {norm.item()} at update {self.updates + 1}")
        torch._foreach_mul_(shards, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self.updates += 1
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate(self.updates)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self._copy_back()
        return norm.item()

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the masters and moments by "<kind>/<parameter name>": those in use, to be saved or loaded into."""
        out = {}
        for name, m in zip(self.names, self.masters, strict=True):
            state = self.adamw.state[m]
            if not state:  # as AdamW makes it at the first step
                state["step"] = torch.tensor(float(self.updates), device=m.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(m), torch.zeros_like(m)
            out[f"master/{name}"] = m.detach()
            out |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        return out

    def loaded(self, updates: int) -> None:
        """Take over what was loaded into `state_tensors()`, after so many updates."""
        self.updates = updates
        for m in self.masters:
            self.adamw.state[m]["step"].fill_(updates)
        self._copy_back()

    @torch.no_grad()
    def _copy_back(self) -> None:
        for p, m in zip(self.parameters, self.masters, strict=True):
            if p is not m:
                p.copy_(m)


def _master(p: nn.Parameter) -> nn.Parameter:
    master = nn.Parameter(p.detach().float())

    def collect(p):
        master.grad = p.grad.float() if master.grad is None else master.grad.add_(p.grad)
        p.grad = None

    p.register_post_accumulate_grad_hook(collect)
    return master


def _zero_grad(m: nn.Parameter) -> Tensor:
    m.grad = torch.zeros_like(m)
    return m.grad

"""AdamW with float32 master weights, linear warm-up and clipping by the global norm (section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdpg.core.distributed import sum_over_processes


class MasterAdamW:
    """Optimises float32 copies of the parameters; float32 parameters are their own copy.

    A bf16 parameter's gradient is added to its master's float32 gradient as soon as it is complete and then freed, so
    that many micro-batches add up in float32 and no second full set of bf16 gradients is kept.
    """

    def __init__(self, model: nn.Module, *, lr: float, betas, weight_decay: float, warmup_steps: int, clip_norm: float):
        self.names, self.parameters = zip(*model.named_parameters(), strict=True)
        self.masters = [p if p.dtype == torch.float32 else _master(p) for p in self.parameters]
        self.adamw = torch.optim.AdamW(self.masters, lr=lr, betas=tuple(betas), weight_decay=weight_decay, fused=True)
        self.lr, self.warmup_steps, self.clip_norm = lr, warmup_steps, clip_norm
        self.updates = 0

    def learning_rate(self, update: int) -> float:
        """Return the learning rate: linear warm-up over the first `warmup_steps` updates (counted from 1), then constant."""
        return self.lr * min(1.0, update / self.warmup_steps) if self.warmup_steps else self.lr

    def step(self) -> float:
        """Sum the gradients over processes, clip, update, copy masters back -> global gradient norm before clipping.

        Raises FloatingPointError, with the weights untouched, if the norm is not finite.
        """
        gradients = [m.grad if m.grad is not None else _zero_grad(m) for m in self.masters]
        sum_over_processes(gradients)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm is {norm.item()} at update {self.updates + 1}: the run has diverged; lower train.lr"
            )
        torch._foreach_mul_(gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self.updates += 1
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate(self.updates)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            for p, m in zip(self.parameters, self.masters, strict=True):
                if p is not m:
                    p.copy_(m)
        return norm.item()

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the masters and moments by "<kind>/<parameter name>", and the number of updates, for a checkpoint."""
        out = {"updates": torch.tensor(self.updates)}
        for name, m in zip(self.names, self.masters, strict=True):
            out[f"master/{name}"] = m.detach()
            for key in ("exp_avg", "exp_avg_sq"):
                state = self.adamw.state.get(m)
                out[f"{key}/{name}"] = state[key] if state else torch.zeros_like(m)
        return out

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        self.updates = updates = int(tensors["updates"])
        for name, p, m in zip(self.names, self.parameters, self.masters, strict=True):
            m.copy_(tensors[f"master/{name}"])
            if p is not m:
                p.copy_(m)
            self.adamw.state[m] = {
                "step": torch.tensor(float(updates), device=m.device),
                "exp_avg": tensors[f"exp_avg/{name}"].to(m.device, m.dtype).clone(),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(m.device, m.dtype).clone(),
            }


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

"""Loading HF causal LMs for training."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from sdpg.core import distributed, sharding
from sdpg.core.adapters import Lora
from sdpg.core.head.api import Head
from sdpg.core.kinds import check_kind, without_dropout
from sdpg.core.packing import CannotPack, check_kernel, enable_packing
from sdpg.core.sharding import local
from sdpg.rollout.context import attention_of


def load_model(
    model_dir: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    masters: bool = False,
    gradient_checkpointing: bool = False,
    packed: bool = True,
    lora: Lora | None = None,
) -> PreTrainedModel:
    """Load a checkpoint, and shard it over the processes of the run. Collective where there are several.

    dtype: of the passes. masters: over several processes the shards are float32, so that they can be optimised or averaged.
    packed: let it read packed sequences (`enable_packing`); a model that cannot is told of and reads padded rows. lora:
    adapters to train in place of the weights. Raises ValueError if its logits are not lm-head(hidden), see `check_head`.
    """
    if not (Path(model_dir) / "config.json").is_file():
        raise ValueError(f"no model at {model_dir}: expected an HF checkpoint with config.json; run the rule base_model")
    mesh = distributed.mesh()
    kept = torch.float32 if mesh is not None and masters else dtype
    config = AutoConfig.from_pretrained(model_dir)
    how = {"dtype": kept, "attn_implementation": attention_of(config)}
    model = AutoModelForCausalLM.from_pretrained(model_dir, config=config, **how)
    model.train()  # only dropout, which is switched off, and gradient checkpointing look at it
    check_kind(model, str(model_dir))
    without_dropout(model)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora and lora.rank:
        lora.add(model, sharding.blocks(model), torch.float32 if mesh is not None else dtype)
    if mesh is None:
        model.to(device)
    check_head(model, str(model_dir))
    if packed:
        try:
            check_kernel(device, dtype, config)
            enable_packing(model)  # before it is sharded: a pass that fails would leave some layers gathered
        except CannotPack as error:
            if distributed.start().first:
                print(f"{model_dir}: padded rows instead of packed sequences: {error}", file=sys.stderr, flush=True)
    if mesh is not None:
        sharding.shard(model, mesh, dtype)
    return model


def device() -> torch.device:
    """Return where this process computes: its GPU if there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    """Return the same model without gradients, in evaluation mode: the reference, or a frozen teacher."""
    return model.eval().requires_grad_(False)


class MovingAverage:
    """A copy of the policy that follows it: theta' <- (1 - rate) theta' + rate theta, kept in float32.

    Costs a compute copy and, below float32, a float32 one (2 + 4 bytes a parameter in bf16, 4 in float32).
    """

    def __init__(self, model: PreTrainedModel, rate: float):
        """Take over `model`, a frozen copy of the starting point. rate: in (0, 1]."""
        if not 0 < rate <= 1:
            raise ValueError(f"ema_rate must be in (0, 1], got {rate}")
        self.model, self.rate = model, rate
        self.names, parameters = zip(*model.named_parameters(), strict=True)
        self.masters = [p.detach() if p.dtype == torch.float32 else p.detach().float() for p in parameters]

    @torch.no_grad()
    def follow(self, masters: list[Tensor]) -> None:
        """Go one step towards the policy's float32 weights (in the order of its parameters)."""
        torch._foreach_lerp_([local(m) for m in self.masters], [local(m.detach()) for m in masters], self.rate)
        self._copy_back()

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the float32 weights by name: those in use, to be saved or loaded into."""
        return {f"ema/{name}": m for name, m in zip(self.names, self.masters, strict=True)}

    def loaded(self, updates: int) -> None:
        """Take over what was loaded into `state_tensors()`."""
        self._copy_back()

    @torch.no_grad()
    def _copy_back(self) -> None:
        for p, m in zip(self.model.parameters(), self.masters, strict=True):
            if local(p).data_ptr() != local(m).data_ptr():
                p.copy_(m)


@torch.no_grad()
def check_head(model: PreTrainedModel, name: str) -> None:
    """Compare `Head` with the model's own logits on a few tokens; ValueError if the architecture does something else."""
    ids = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    training = model.training
    model.eval()
    own = torch.log_softmax(model(input_ids=ids, use_cache=False).logits.float(), -1)
    head = Head.of(model)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    ours = head.logprobs(head.product(hidden), 1.0)
    model.train(training)
    gap = (own[0] - ours).abs().max().item()
    if not gap < 1e-2:
        raise ValueError(
            f"{name}: {type(model).__name__} changes its logits after the lm-head in a way this core does not know "
            f"(log-probs differ by {gap:.3g}); add it to sdpg/core/head/api.py"
        )

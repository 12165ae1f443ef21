"""Loading HF causal LMs for training, and their hidden states."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sdpg.core.head import Head


def load_model(
    model_dir: str | Path, *, dtype: torch.dtype, device: torch.device, gradient_checkpointing: bool = False
) -> PreTrainedModel:
    """Load a checkpoint for training; raises ValueError if its logits are not lm-head(hidden), see `check_head`."""
    if not (Path(model_dir) / "config.json").is_file():
        raise ValueError(
            f"no model at {model_dir}: expected an HF checkpoint with config.json; run the rule base_model"
        )
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).to(device)
    model.train()  # only dropout and gradient checkpointing look at it
    if dropout := _dropout(model):
        raise ValueError(f"{model_dir}: {dropout} has dropout > 0, so log-probs would not be the policy's; set it to 0")
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_head(model, str(model_dir))
    return model


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    """The same model without gradients, in evaluation mode: the reference, or a frozen teacher."""
    return model.eval().requires_grad_(False)


def hidden_states(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Last hidden states of right-padded ids: (B, L) -> (B, L, d).

    No attention mask is needed: attention is causal and padding comes last, so no real token sees it.
    """
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state


@torch.no_grad()
def check_head(model: PreTrainedModel, name: str) -> None:
    """Compare `Head` with the model's own logits on a few tokens; ValueError if the architecture does something else."""
    ids = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    training = model.training
    model.eval()
    own = torch.log_softmax(model(input_ids=ids, use_cache=False).logits.float(), -1)
    ours = Head.of(model).logprobs(hidden_states(model, ids)[0], 1.0)
    model.train(training)
    gap = (own[0] - ours).abs().max().item()
    if not gap < 1e-2:
        raise ValueError(
            f"{name}: {type(model).__name__} changes its logits after the lm-head in a way this core does not know "
            f"(log-probs differ by {gap:.3g}); add it to sdpg/core/head.py"
        )


def _dropout(model) -> str | None:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            return name
    for key in ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"):
        if getattr(model.config, key, 0):
            return key
    return None

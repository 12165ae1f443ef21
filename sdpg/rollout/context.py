"""What the config of a model says about how it is to be read: how many tokens at once, and by which attention and heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}  # layers without a state beside the KV cache


def positions(config: Any) -> int | None:
    """Return the longest sequence that an HF config names, None where it names none (ALiBi)."""
    text = config.get_text_config()
    found = (getattr(text, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def head_dim(config: Any) -> int:
    """Return the size of one attention head, of the config of a text model."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def check_context(config: Any, max_len: int, model_dir: str | Path) -> None:
    """Raise ValueError if prompt and response together, `max_len` tokens, are more than the model's context.

    Nothing is known of one whose positions are scaled: it reads more than its config says.
    """
    scaled = "factor" in (getattr(config.get_text_config(), "rope_parameters", None) or ())
    limit = None if scaled else positions(config)
    if limit is not None and max_len > limit:
        raise ValueError(
            f"max_len is {max_len} tokens, but the model in {model_dir} has a context of {limit}; "
            "shorten train.max_prompt_tokens or train.max_response_tokens"
        )


def attention_of(config: Any) -> str | None:
    """Return the implementation of attention that computes what the config says, None for transformers' own choice.

    Its choice, torch's attention, leaves out the soft cap of attention scores (Gemma 2) without a word.
    """
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None

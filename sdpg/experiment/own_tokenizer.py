"""The tokenizer that a scale's base model will have, before there is a base model. Quick to import, as the workflow is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from sdpg.config.settings import Model
from sdpg.io import path_of


def load_tokenizer(model: Model) -> tuple[Any, int | None]:
    """Return the tokenizer that a base model of this block will have, and its context length (None where it names none).

    Raises ValueError if it cannot be loaded.
    """
    if model.warm_start:
        from sdpg.tasks.tokenizer import character_tokenizer

        tokenizer = character_tokenizer()
        return tokenizer, tokenizer.model_max_length
    from transformers import AutoConfig, AutoTokenizer

    options: dict[str, Any] = {}
    if model.pretrained:
        name, folder = model.pretrained, path_of(model.pretrained)
        if folder.is_dir():
            name = str(folder)
        elif "@" in name:
            name, _, options["revision"] = name.partition("@")
    else:
        spec = importlib.util.find_spec(model.package.module.partition(".")[0])
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"model.package.module: no package {model.package.module!r} is installed; install it")
        name = str(Path(next(iter(spec.submodule_search_locations)), *model.package.module.split(".")[1:]))
        options = {"gguf_file": model.package.gguf}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # missing files, no network, unknown kinds ...: the user's to mend
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model: the tokenizer of {model.pretrained or name!r}, which the prompts are measured with, could not be loaded: "
            f"{type(error).__name__}: {reason[:300]}"
        ) from error
    return tokenizer, getattr(config.get_text_config(), "max_position_embeddings", None)


def tokenizer_files(model: Model) -> list[str]:
    """Return the files of the user's own model folder that decide its tokenizer and context length."""
    folder = path_of(model.pretrained) if model.pretrained else None
    if folder is None or not folder.is_dir():
        return []
    names = ("*.json", "*.model", "*.txt", "*.jinja")
    found = {path for pattern in names for path in folder.glob(pattern) if not path.name.endswith(".index.json")}
    return [str(path) for path in sorted(found)]

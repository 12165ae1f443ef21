"""The user's own files: which of a model's folder count, what is wrong with it, and the content of files as params of a rule.

Snakemake looks at the content of an input only if its date is newer than the results. So that other weights with an old date
(copied, unpacked, moved there) count as well, a rule depends on their hashes. These are kept by path, size, dates and inode, in
.snakemake/: gigabytes are read once, not at every dry run.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sdpg.config.files import ConfigError, shorter
from sdpg.config.settings import Model
from sdpg.io import kind_of, sha256, write_json

KEPT = Path(".snakemake") / "sdpg-hashes.json"
LARGE = 2**30  # bytes that take long enough to say so
RECENT = 2.0  # seconds after a change in which another one may leave the same dates
# What transformers may read of a checkpoint's folder: weights and their index, config, tokenizer, templates, adapters, code.
READ = {".safetensors", ".bin", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py", ".gguf", ".msgpack", ".h5"}
# What trainers leave beside it.
NOT_READ = {"trainer_state.json", "training_args.bin", "all_results.json", "train_results.json", "eval_results.json"}
CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer_config.json")
WEIGHTS = {".safetensors", ".bin", ".gguf", ".msgpack", ".h5"}


def is_folder_name(model: str) -> bool:
    """Return whether `model.pretrained` is a folder, there or not, rather than a hub id (owner/name, or name)."""
    return kind_of(model) is not None or model.startswith((".", "/", "~")) or model.count("/") > 1


def model_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's folder that a model and its tokenizer are loaded from, sorted."""
    found = [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]
    kept = (p for p in found if p.suffix in READ and p.name not in NOT_READ and not p.name.startswith("."))
    return sorted(path for path in kept if path.is_file())


def check_model(model: str) -> None:
    """Raise ConfigError for a folder that is no checkpoint: which file is missing, and where it was looked for."""
    if not is_folder_name(model):
        return
    folder = Path(model)
    if (there := kind_of(folder)) != "folder":
        what = "is a file" if there else "does not exist"
        raise ConfigError(
            f"model.pretrained: {shorter(model)} {what} (looked in {folder.absolute().parent}); expected a Hugging Face "
            "checkpoint with tokenizer, or a hub id such as 'owner/name'"
        )
    names = [path.name for path in model_files(folder)]
    if "config.json" not in names and "adapter_config.json" in names:
        raise ConfigError(f"model.pretrained: {model} is an adapter (LoRA), no model; merge it into its base model")
    if "config.json" not in names:
        raise ConfigError(f"model.pretrained: {model} has no config.json; expected a Hugging Face checkpoint with tokenizer")
    if not any(Path(name).suffix in WEIGHTS for name in names):
        raise ConfigError(
            f"model.pretrained: {model} has no weights, only {', '.join(names)}; expected *.safetensors beside them"
        )
    if reason := _unfit(folder, names):
        raise ConfigError(f"model.pretrained: {model} {reason}")


def _unfit(folder: Path, names: list[str]) -> str | None:
    """Return what is wrong with a checkpoint as its files tell without loading it, None if nothing is."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"has a config.json that cannot be read: {error}"
    if not isinstance(config, dict):
        return f"has a config.json that is no JSON object but {type(config).__name__}"
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "unnamed") if isinstance(quantised, dict) else quantised
        return f"is quantised ({method}), and such weights cannot be trained; take the checkpoint in bf16 or fp32"
    kinds = config.get("architectures") or []
    if config.get("is_encoder_decoder") or (kinds and not any(str(kind).endswith(CAUSAL) for kind in kinds)):
        return f"is no causal language model but {', '.join(map(str, kinds)) or 'an encoder with a decoder'}"
    if not any(name.endswith((".safetensors", ".gguf")) for name in names):
        return "has pickled weights only, which are never loaded; save it again as *.safetensors"
    if not any(name in TOKENIZERS or name.endswith((".model", ".tiktoken", ".gguf")) for name in names):
        return f"has no tokenizer; expected {TOKENIZERS[0]} beside its weights"
    return next(filter(None, (_torn(folder / name) for name in names if name.endswith(".safetensors"))), None)


def _torn(path: Path) -> str | None:
    """Return what is wrong with the length or the head of a safetensors file; its tensors are not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            head = json.loads(file.read(length)) if 0 < length <= min(size, 10**8) else None
            ends = (
                [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
                if head is not None
                else None
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            head = None
    if head is not None and size == 8 + length + max(ends, default=0):
        return None
    return f"has a file {path.name} of {size} bytes that is not a whole safetensors file; copy or download it again"


def package_file(model: Model) -> list[Path]:
    """Return the weights inside an installed package, where `model.package` names some that are there."""
    if model.package is None:
        return []
    spec = importlib.util.find_spec(model.package.module.partition(".")[0])
    folders = (spec and spec.submodule_search_locations) or []
    found = [Path(folder, *model.package.module.split(".")[1:], model.package.gguf) for folder in folders]
    return [path for path in found if path.is_file()][:1]


def content_params(files: Iterable[str | Path]) -> list[str]:
    """Return a param for each file, its name and the start of its SHA-256: a job depends on them, and not on path or date."""
    hashes = _read_kept()
    before = dict(hashes)
    params = [f"content={Path(file).name} {_sha256(Path(file), hashes)[:16]}" for file in files]
    if hashes != before:
        with suppress(OSError):  # they are computed again next time
            write_json(KEPT, hashes)
    return params


def _sha256(path: Path, hashes: dict[str, list]) -> str:
    stat = path.stat()
    key, facts = str(path.resolve()), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    if key in hashes and hashes[key][:-1] == facts:
        return hashes[key][-1]
    if stat.st_size > LARGE:
        print(f"reading {path}, {stat.st_size / 2**30:.1f} GiB: its content is looked at once", file=sys.stderr, flush=True)
    digest = sha256(path)
    hashes.pop(key, None)
    if time.time() - max(stat.st_mtime, stat.st_ctime) > RECENT:
        hashes[key] = [*facts, digest]
    return digest


def _read_kept() -> dict[str, list]:
    try:
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(kept, dict) and all(
        isinstance(v, list) and len(v) == 5 and isinstance(v[-1], str) for v in kept.values()
    )
    return kept if whole else {}

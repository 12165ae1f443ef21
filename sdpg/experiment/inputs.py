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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from sdpg.config.files import ConfigError, shorter
from sdpg.config.settings import Config, Model
from sdpg.experiment.checkpoint_folder import NO_ENGINES, folder_fault
from sdpg.io import kind_of, sha256, write_json
from sdpg.rollout.engines import lm_eval_engine

KEPT = Path(".snakemake") / "sdpg-hashes.json"
LARGE = 2**30  # bytes that take long enough to say so
RECENT = 2.0  # seconds after a change in which another one may leave the same dates
# What transformers may read of a checkpoint's folder: weights and their index, config, tokenizer, templates, adapters, code.
READ = {".safetensors", ".bin", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py", ".gguf", ".msgpack", ".h5"}
# What trainers leave beside it.
NOT_READ = {"trainer_state.json", "training_args.bin", "all_results.json", "train_results.json", "eval_results.json"}


def is_folder_name(model: str) -> bool:
    """Return whether `model.pretrained` is a folder, there or not, rather than a hub id (owner/name, or name)."""
    return kind_of(model) is not None or model.startswith((".", "/", "~")) or model.count("/") > 1


def model_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's folder that a model and its tokenizer are loaded from, sorted."""
    found = [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]
    kept = (p for p in found if p.suffix in READ and p.name not in NOT_READ and not p.name.startswith("."))
    return sorted(path for path in kept if path.is_file())


def check_model(model: str, engines: Mapping[str, str] = NO_ENGINES) -> None:
    """Raise ConfigError for a folder that is no checkpoint that can be trained: why, and where it was looked for.

    engines: see `folder_fault`.
    """
    if not is_folder_name(model):
        return
    folder = Path(model)
    if (there := kind_of(folder)) != "folder":
        what = "is a file" if there else "does not exist"
        raise ConfigError(
            f"model.pretrained: {shorter(model)} {what} (looked in {folder.absolute().parent}); expected a Hugging Face "
            "checkpoint with tokenizer, or a hub id such as 'owner/name'"
        )
    if fault := folder_fault(folder, engines):
        raise ConfigError(f"model.pretrained: {model} {fault}")


def engines_of(config: Config) -> dict[str, str]:
    """Return which engines sample from the model, by their key in the config."""
    evaluation = config.evaluation
    found = {"train.engine": config.train.engine, "evaluation.engine": evaluation.engine}
    return found | ({"evaluation.lm_eval": lm_eval_engine(evaluation.engine)} if evaluation.lm_eval else {})


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

"""Checkpoints for evaluation: ordinary HF folders. What a killed run goes on from is in state.py."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from sdpg.config.settings import Keep, kept_steps
from sdpg.core import distributed, sharding
from sdpg.core.adapters import has_adapters
from sdpg.io import naming, read_json, sha256, write_json


@contextmanager
def new_folder(path: Path):
    """Yield a temporary sibling folder; on success it takes `path`'s place, on any error nothing of it is left."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with naming(path):
            yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except SafetensorError as error:  # raised instead of OSError when the disk is full
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_model(model: nn.Module, folder: Path, **options) -> str | None:
    """Write a model as `save_pretrained(folder, **options)` does. Returns None, or why transformers would not write its
    generation config, which is then written as it is: nothing here samples by it.
    """
    generation = getattr(model, "generation_config", None)
    try:
        if generation is not None:
            generation.validate(strict=True)
    except ValueError as error:
        model.generation_config = type(generation)()
        try:
            model.save_pretrained(folder, **options)
        finally:
            model.generation_config = generation
        generation.to_json_file(folder / "generation_config.json", use_diff=True, keys_to_pop=["compile_config"])
        return " ".join(str(error).split())
    model.save_pretrained(folder, **options)
    return None


def save_policy(model: nn.Module, tokenizer, checkpoints: Path, step: int, *, dtype: torch.dtype, keep: Keep) -> None:
    """Write checkpoints/step000020/ and list it, with the SHA-256 of its weights, in checkpoints/checkpoints.json. Collective.

    dtype: of the weights in it. keep: which of the older ones stay, see `kept_steps`.
    """
    first = distributed.start().first
    state = None
    if sharding.is_sharded(model) or has_adapters(model):  # made whole tensor by tensor; the first process alone keeps them
        state = {name: x.cpu() for name, x in sharding.full_tensors(model, dtype) if first}
    if not first:
        return
    name = f"step{step:06d}"
    listed = [c for c in list_checkpoints(checkpoints) if c["step"] < step]
    if len(listed) < len(list_checkpoints(checkpoints)):  # of steps that are taken again: off the list before they change
        write_json(checkpoints / "checkpoints.json", {"checkpoints": listed})
    with new_folder(checkpoints / name) as folder:
        save_model(model, folder, state_dict=state)
        if state is not None:  # shards may be wider than what is written here
            config = read_json(folder / "config.json") | {"dtype": str(dtype).removeprefix("torch.")}
            write_json(folder / "config.json", config)
        tokenizer.save_pretrained(folder)
        hashes = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    listed.append({"step": step, "path": name, "sha256": hashes})
    stay = kept_steps([c["step"] for c in listed], keep)
    write_json(checkpoints / "checkpoints.json", {"checkpoints": [c for c in listed if c["step"] in stay]})
    for entry in listed:
        if entry["step"] not in stay:
            shutil.rmtree(checkpoints / entry["path"])


def list_checkpoints(checkpoints: Path) -> list[dict]:
    """Return the entries of checkpoints.json, ascending by step; [] if there is none yet."""
    path = checkpoints / "checkpoints.json"
    return read_json(path)["checkpoints"] if path.exists() else []


def end_list(checkpoints: Path, diverged_at: int, *, drop_last: bool) -> int:
    """Say in the list at which step the run diverged -> its last checkpoint's. drop_last: that of the step before goes."""
    listed = list_checkpoints(checkpoints)
    stay = [c for c in listed if not drop_last or c["step"] < diverged_at - 1]
    write_json(checkpoints / "checkpoints.json", {"checkpoints": stay, "diverged": {"step": diverged_at}})
    for entry in listed[len(stay) :]:
        shutil.rmtree(checkpoints / entry["path"])
    return stay[-1]["step"]

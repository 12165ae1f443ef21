"""Checkpoints for evaluation (ordinary HF folders) and the state a killed run resumes from. Safetensors and JSON only."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sdpg.io import read_json, sha256, write_json


@contextmanager
def new_folder(path: Path):
    """Yield a temporary sibling folder; on success it takes `path`'s place, on any error nothing of it is left."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except SafetensorError as error:  # raised instead of OSError when the disk is full
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_policy(model, tokenizer, checkpoints: Path, step: int) -> None:
    """Write checkpoints/step000020/ and list it, with the SHA-256 of its weights, in checkpoints/checkpoints.json."""
    name = f"step{step:06d}"
    with new_folder(checkpoints / name) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        hashes = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    listed = [c for c in list_checkpoints(checkpoints) if c["step"] < step]
    listed.append({"step": step, "path": name, "sha256": hashes})
    write_json(checkpoints / "checkpoints.json", {"checkpoints": listed})


def list_checkpoints(checkpoints: Path) -> list[dict]:
    """Return the entries of checkpoints.json, ascending by step; [] if there is none yet."""
    path = checkpoints / "checkpoints.json"
    return read_json(path)["checkpoints"] if path.exists() else []


def save_state(folder: Path, parts: list, step: int, identity: dict) -> None:
    """Replace the resume state in one step: tensors of optimizer and moving average, the step, and the run's identity."""
    with new_folder(folder) as temporary:
        tensors = {key: t for part in parts for key, t in part.state_tensors().items()}
        save_file({k: t.contiguous().cpu() for k, t in tensors.items()}, temporary / "state.safetensors")
        write_json(temporary / "state.json", {"step": step, "identity": identity})


def saved_step(folder: Path, identity: dict) -> int:
    """Return the step that can be resumed from, 0 if there is none or it belongs to another run."""
    path = folder / "state.json"
    if not path.exists():
        return 0
    state = read_json(path)
    return state["step"] if state["identity"] == identity else 0


def load_state(folder: Path, parts: list) -> None:
    """Restore what `save_state` saved, and through the optimizer the policy; a broken file is a ValueError that says so."""
    path = folder / "state.safetensors"
    try:
        tensors = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"cannot resume from {path}: {error}; delete {folder.parent} to train from the start") from error
    expected = {key for part in parts for key in part.state_tensors()}
    if set(tensors) != expected:
        raise ValueError(f"cannot resume from {path}: its tensors are not this run's; delete {folder.parent} to restart")
    with torch.no_grad():
        for part in parts:
            part.load_state_tensors(tensors)


def publish(work: Path, run: Path) -> None:
    """Move a finished run from its working folder to its place; the resume state is not part of it."""
    shutil.rmtree(work / "state", ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    os.replace(work, run)

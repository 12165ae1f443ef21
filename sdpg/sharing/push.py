"""Putting a run's checkpoint on the Hugging Face hub, with its model card.

The token is the user's own (`hf auth login`, or HF_TOKEN), and is neither read nor shown here.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdpg.analysis.results import Results
from sdpg.config.files import nearest
from sdpg.evaluation.checkpoints import AGAIN
from sdpg.io import naming, read_json, sha256, write_atomic, write_json
from sdpg.redact import redacted
from sdpg.sharing.card import card, shareable

WEIGHTS = [
    "*.safetensors",
    "*.safetensors.index.json",
]  # of what was there before: other shards would be loaded with the new ones


def check_name(to: str) -> None:
    """Raise ValueError for what is no name of a repository of the hub."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if to.count("/") != 1:
        raise ValueError(f"--to: got {to!r}, expected owner/name, as on the hub")
    try:
        validate_repo_id(to)
    except HFValidationError as error:
        raise ValueError(f"--to: got {to!r}, expected owner/name, as on the hub ({redacted(error)})") from None


def check_token() -> None:
    """Raise ValueError if the user is not logged in, or the hub is switched off."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ValueError("HF_HUB_OFFLINE is set, and nothing can be pushed; unset it, or look at the card with --dry-run")
    if not get_token():
        raise ValueError("no token of the hub: `hf auth login`, or set HF_TOKEN; --dry-run shows the card without")


def prepare(results: Results, method: str, seed: int, *, to: str, step: int | None, licence: str | None) -> tuple[Path, int]:
    """Write a folder as it is to stand on the hub -> it, and the step. Raises ValueError for a run that cannot be pushed.

    step: of a kept checkpoint, the last by default. licence: for the card's header, as the hub names it.
    """
    run = results.run_dir(method, seed)
    info = _record(results, method, seed)
    step, folder, hashes = _checkpoint(run, step)
    for name, expected in hashes.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise ValueError(f"checkpoint file {folder / name} is missing or not as it was saved; {AGAIN}")
    info = {key: value for key, value in shareable(info).items() if key not in ("hardware", "code")}
    text = card(results, info, method=method, seed=seed, step=step, to=to, licence=licence)
    target = results.root / ".work" / "push" / f"{method}-seed{seed}-step{step:06d}"
    with naming(target):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            _copy(file, target / file.name)
    with write_atomic(target / "README.md") as file:
        file.write(text)
    write_json(target / "sdpg_run.json", info)
    return target, step


def push(folder: Path, to: str, *, step: int, private: bool, api: Any = None) -> str:
    """Upload a folder of `prepare` -> the address. private: of a repository that is made; a public one needs private=False.

    Raises ValueError in one line for whatever the hub or the network does not allow; the folder then stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = api or HfApi()
    try:
        try:
            there = api.repo_info(to, repo_type="model")
        except RepositoryNotFoundError:
            there = None
        if there is not None and private and not there.private:
            raise ValueError(f"{to} is there and public; push to it with --public, or name another one")
        if there is None:
            api.create_repo(to, repo_type="model", private=private)
        message = f"Step {step}, with its card"
        api.upload_folder(repo_id=to, repo_type="model", folder_path=folder, commit_message=message, delete_patterns=WEIGHTS)
    except Exception as error:  # of the hub's client, its HTTP library, the network ...
        if type(error) is ValueError:
            raise
        hint = {401: "; `hf auth login` again", 403: "; the token may not write there"}.get(_status(error), "")
        raise ValueError(
            f"could not push to {to}: {type(error).__name__}: {redacted(error)}{hint}; what was to go there stays in {folder}"
        ) from None
    shutil.rmtree(folder)
    return f"https://huggingface.co/{to}"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _record(results: Results, method: str, seed: int) -> dict[str, Any]:
    run = results.run_dir(method, seed)
    if not (run / "run.json").is_file():
        if (results.root / ".work" / method / f"seed{seed}").is_dir():
            raise ValueError(f"{method} seed {seed} is not finished; `sdpg train` or `make reproduce` goes on with it")
        there = sorted(
            f"{path.parent.parent.name} seed {path.parent.name[4:]}" for path in results.root.glob("runs/*/*/run.json")
        )
        raise ValueError(f"there is no run {method} seed {seed} in {results.root}; {nearest(f'{method} seed {seed}', there)}")
    info = read_json(run / "run.json")
    outcome = info.get("outcome") or {}
    if (status := outcome.get("status")) in ("diverged", "collapsed"):
        raise ValueError(f"{method} seed {seed} {status} at step {outcome.get('step')}; such a run is not pushed")
    return info


def _checkpoint(run: Path, step: int | None) -> tuple[int, Path, dict[str, str]]:
    """Return a checkpoint's step, folder and hashes."""
    index = run / "checkpoints" / "checkpoints.json"
    entries = read_json(index).get("checkpoints") if index.is_file() else None
    if not entries:
        raise ValueError(f"{index} lists no checkpoint; {AGAIN}")
    steps = {entry["step"]: entry for entry in entries}
    if step is not None and step not in steps:
        raise ValueError(f"--step: got {step}, and the checkpoints that were kept are {', '.join(map(str, sorted(steps)))}")
    chosen = steps[max(steps) if step is None else step]
    return chosen["step"], index.parent / chosen["path"], chosen["sha256"]


def _copy(file: Path, target: Path) -> None:
    """Copy a file; weights, which are large, only get another name where the disk can do that."""
    if file.suffix == ".safetensors":
        with suppress(OSError):
            os.link(file, target)
            return
    shutil.copyfile(file, target)

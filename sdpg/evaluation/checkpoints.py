"""The checkpoints of a run, checked against their hashes, and their tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sdpg.io import read_json, sha256

AGAIN = "train this run again: `sdpg train` for this one, `snakemake --forcerun train_run` for all"


@dataclass(frozen=True)
class Checkpoint:
    """One entry of checkpoints.json: the training step, the folder of an ordinary HF checkpoint, its files' hashes as JSON."""

    step: int
    path: Path
    hashes: str = "{}"


def load_checkpoints(run_dir: str | Path, *, verify: bool = True) -> list[Checkpoint]:
    """Return the run's checkpoints, ascending by step, every file's SHA-256 verified unless that is left to the caller.

    Raises ValueError, naming the file, if the list is missing or empty, or a file of it is missing or has other bytes.
    """
    folder = Path(run_dir) / "checkpoints"
    index = folder / "checkpoints.json"
    if not index.is_file():
        raise ValueError(f"{index} is missing; train this run first")
    entries = read_json(index).get("checkpoints") or []
    if not entries:
        raise ValueError(f"{index} lists no checkpoint; {AGAIN}")
    found = (Checkpoint(e["step"], folder / e["path"], json.dumps(e["sha256"], sort_keys=True)) for e in entries)
    checkpoints = sorted(found, key=lambda checkpoint: checkpoint.step)
    if verify:
        verify_checkpoints(checkpoints)
    return checkpoints


def verify_checkpoints(checkpoints: Iterable[Checkpoint], threads: int = 1) -> None:
    """Raise ValueError naming a file that is missing or has other bytes. threads: files that are read at the same time."""
    files = [(c.path / name, expected) for c in checkpoints for name, expected in json.loads(c.hashes).items()]
    if missing := [path for path, _ in files if not path.is_file()]:
        raise ValueError(f"checkpoint file {missing[0]} is missing; {AGAIN}")
    with ThreadPoolExecutor(threads) as pool:
        for (path, expected), got in zip(files, pool.map(sha256, [path for path, _ in files]), strict=True):
            if got != expected:
                pool.shutdown(wait=False, cancel_futures=True)
                raise ValueError(
                    f"checkpoint file {path} is corrupt: its sha256 is {got[:12]}..., checkpoints.json expects "
                    f"{expected[:12]}...; {AGAIN}"
                )


def named_tensors(folder: str | Path) -> Iterator[tuple[str, object]]:
    """Yield (HF parameter name, tensor) of every tensor in a checkpoint folder's safetensors files."""
    from safetensors.torch import load_file

    for path in sorted(Path(folder).glob("*.safetensors")):
        yield from load_file(path).items()

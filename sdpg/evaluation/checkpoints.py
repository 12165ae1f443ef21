"""The checkpoints of a run, checked against their hashes, and their tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdpg.io import read_json, sha256

AGAIN = "train this run again: `sdpg train` for this one, `snakemake --forcerun train_run` for all"


@dataclass(frozen=True)
class Checkpoint:
    """One entry of checkpoints.json: the training step and the folder of an ordinary HF checkpoint."""

    step: int
    path: Path


def load_checkpoints(run_dir: str | Path) -> list[Checkpoint]:
    """Return the run's checkpoints, ascending by step, every file's SHA-256 verified.

    Raises ValueError, naming the file, if the list is missing or empty, or a file of it is missing or has other bytes.
    """
    folder = Path(run_dir) / "checkpoints"
    index = folder / "checkpoints.json"
    if not index.is_file():
        raise ValueError(f"{index} is missing; train this run first")
    entries = read_json(index).get("checkpoints") or []
    if not entries:
        raise ValueError(f"{index} lists no checkpoint; {AGAIN}")
    for entry in entries:
        for name, expected in entry["sha256"].items():
            _verify(folder / entry["path"] / name, expected)
    return sorted((Checkpoint(entry["step"], folder / entry["path"]) for entry in entries), key=lambda c: c.step)


def named_tensors(folder: str | Path) -> Iterator[tuple[str, object]]:
    """Yield (HF parameter name, tensor) of every tensor in a checkpoint folder's safetensors files."""
    from safetensors.torch import load_file

    for path in sorted(Path(folder).glob("*.safetensors")):
        yield from load_file(path).items()


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ValueError(f"checkpoint file {path} is missing; {AGAIN}")
    got = sha256(path)
    if got != expected:
        raise ValueError(
            f"checkpoint file {path} is corrupt: its sha256 is {got[:12]}..., checkpoints.json expects {expected[:12]}...; "
            f"{AGAIN}"
        )

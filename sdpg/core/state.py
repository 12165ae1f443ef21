"""What a killed run goes on from: float32 weights, moments and moving average, by torch.distributed.checkpoint.

    state/step000040/shard-*-model-*.safetensors    each process's shards; any number of processes can read them
                     state.json                     step, identity of the run, the files' SHA-256

Written beside the run's work, under another name until it is whole; the older state goes once the newer one stands. Safetensors
and JSON only.
"""

from __future__ import annotations

import os
import shlex
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter

from sdpg.core import distributed, identity
from sdpg.io import read_json, sha256, write_json

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # one process is no mistake

KEYS = {"step", "updates", "identity", "sha256"}
FILE_BYTES = 2**30  # of one file, about: the writer holds it in memory twice more while it writes it


class StateFolder:
    """The saved state of one run; all processes of the run call the same methods."""

    def __init__(self, folder: Path, identity: dict):
        """folder: made when something is saved. identity: JSON data; a state saved under another one is not gone on from."""
        self.folder, self.identity = folder, identity
        self._world = distributed.start()
        self._group = distributed.saving()
        self._alone = self._world.size == 1
        self._thread = ThreadPoolExecutor(1, "state")
        self._pending: Future | None = None

    def newest(self) -> dict | None:
        """Return state.json of the last saved step, the same on all processes; None if there is none.

        Its `said` lists what differs and does not matter. Raises ValueError, and touches nothing, if it is of another run.
        """
        found = None
        if self._world.first:
            found = max(self._states(), key=lambda state: state["step"], default=None)
            if found:
                refused, said = identity.compare(found["identity"], self.identity)
                found |= {"refused": refused, "said": said}
            if not (found and found["refused"]):
                for unfinished in self.folder.glob(".step*"):  # what a kill or a full disk left of a state
                    shutil.rmtree(unfinished)
        found = distributed.gather(found)[0]
        if found and found["refused"]:
            work = shlex.quote(str(self.folder.parent))
            raise ValueError(
                f"{work} holds an unfinished run, saved after step {found['step']}, that is not this one: "
                f"{identity.listed(found['refused'])} (saved -> now). Set this back to go on with that run, or move it away to "
                f"train afresh: mv {work} {work}-old"
            )
        return found

    def _states(self) -> list[dict]:
        states = []
        for path in sorted(self.folder.glob("step*/state.json")):
            state = read_json(path)
            if not isinstance(state, dict) or not KEYS <= state.keys():
                raise ValueError(
                    f"cannot resume from {path}: expected {', '.join(sorted(KEYS))}; delete {path.parent} to go without"
                )
            states.append(state | {"folder": path.parent.name})
        return states

    def save(self, tensors: dict[str, Tensor], step: int, **facts: int) -> None:
        """Save tensors (DTensors where they are sharded) and facts. Collective; returns once they are copied to host memory.

        Writing goes on in the background. Raises OSError if the one before could not be written.
        """
        self.wait()
        final = self.folder / f"step{step:06d}"
        temporary = final.with_name(f".{final.name}.tmp")
        if self._world.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        distributed.barrier()
        writer = HuggingFaceStorageWriter(
            str(temporary), fqn_to_index_mapping=_files(tensors, self._world.size), save_distributed=True
        )
        written = dcp.async_save(tensors, storage_writer=writer, process_group=self._group, no_dist=self._alone)
        record = {"step": step, **facts, "processes": self._world.size, "identity": self.identity}
        self._pending = self._thread.submit(self._finish, written, temporary, final, record)

    def _finish(self, written: Future, temporary: Path, final: Path, record: dict) -> None:
        """Give the state its name once all processes have written their part, and read it back for its hashes."""
        written.result()
        try:
            mine = sorted(temporary.glob(f"shard-{self._world.rank + 1:05d}-*.safetensors"))
            own: dict[str, str] | str = {path.name: sha256(path) for path in mine}
        except OSError as error:  # the others wait for this process's hashes
            own = f"process {self._world.rank}: {error}"
        parts = distributed.gather(own, self._group)
        if failed := "; ".join(part for part in parts if isinstance(part, str)):
            raise OSError(f"could not read back the state in {temporary}: {failed}")
        if not self._world.first:
            return
        hashes = {name: value for part in parts for name, value in part.items()}
        write_json(temporary / "state.json", record | {"sha256": hashes})
        _remove(final)
        os.replace(temporary, final)
        for other in self.folder.iterdir():
            if other != final:
                _remove(other)

    def check(self) -> None:
        """Raise OSError if saving has failed since; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last state is on disk. Raises OSError if it could not be written."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except CheckpointException as error:
            reason = "; ".join(sorted({str(failure[0]) for failure in error.failures.values()}))
            raise OSError(f"could not write the state to {self.folder}: {reason}") from error

    def load(self, state: dict, tensors: dict[str, Tensor]) -> None:
        """Read a state, as `newest` gave it, into tensors, however sharded. Collective. Raises ValueError if it is broken."""
        folder = self.folder / state["folder"]
        hint = f"; delete {self.folder.parent} to train from the start"
        files = sorted(state["sha256"].items())
        mine = files[self._world.rank :: self._world.size]  # each is read through by one process
        broken = [name for name, expected in mine if not _is_whole(folder / name, expected)]
        if broken := sorted(sum(distributed.gather(broken), [])):
            raise ValueError(f"cannot resume from {folder}: {', '.join(broken)} is missing or not as it was saved{hint}")
        try:
            reader = HuggingFaceStorageReader(str(folder))
            dcp.load(tensors, storage_reader=reader, process_group=self._group, no_dist=self._alone)
        except CheckpointException as error:
            reason = next(str(failure[0]) for failure in error.failures.values())
            raise ValueError(f"cannot resume from {folder}: {reason}{hint}") from error


def _files(tensors: dict[str, Tensor], processes: int) -> dict[str, int]:
    """Return the number of the file, from 1, in which each tensor's shards lie: about FILE_BYTES of a process in each."""
    before, numbers = 0, {}
    for name, tensor in tensors.items():
        numbers[name] = 1 + before // (FILE_BYTES * processes)
        before += tensor.numel() * tensor.element_size()
    return numbers


def _remove(folder: Path) -> None:
    """Take a state its name, then delete it: a kill in between leaves nothing that looks like a state."""
    if folder.exists():
        unnamed = folder.with_name(f".{folder.name.lstrip('.')}.old")
        shutil.rmtree(unnamed, ignore_errors=True)
        os.replace(folder, unnamed)
        shutil.rmtree(unnamed)


def _is_whole(path: Path, expected: str) -> bool:
    return path.is_file() and sha256(path) == expected

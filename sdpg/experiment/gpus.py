"""Which GPUs a job takes: as many as its scale says, none that another job of this machine has, never fewer in silence."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sdpg.locks import locked

VARIABLE = "CUDA_VISIBLE_DEVICES"
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
EXECUTOR, PROFILES = {"--executor", "-e"}, {"--profile", "--workflow-profile"}  # Snakemake's options
LOOK_EVERY = 1.0  # seconds between two looks for a free GPU


@dataclass(frozen=True)
class Device:
    """A GPU as the driver tells of it. name: what CUDA_VISIBLE_DEVICES calls it; memory in GiB."""

    name: str
    uuid: str
    model: str
    memory: float


def visible() -> list[Device]:
    """Return the GPUs of this machine, or those of them that CUDA_VISIBLE_DEVICES names; [] without a driver.

    A driver that fails is told of, and counts as none. Raises ValueError for a name in CUDA_VISIBLE_DEVICES that no GPU has.
    """
    if shutil.which(QUERY[0]) is None:
        return []
    done = subprocess.run(QUERY, capture_output=True, text=True)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        print(f"nvidia-smi ended with exit status {done.returncode}: {said}; no GPU is used", file=sys.stderr, flush=True)
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    every = [Device(index, uuid, model, float(memory) / 1024) for index, uuid, model, memory in rows]
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        return every
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    found = [next((d for d in every if name == d.name or d.uuid.startswith(name)), None) for name in names]
    if None in found:
        known = ", ".join(device.name for device in every)
        raise ValueError(f"{VARIABLE}={chosen} names a GPU that is not there; this machine has {known or 'none'}")
    return found


@contextlib.contextmanager
def taken(count: int) -> Iterator[list[Device]]:
    """Hold `count` GPUs that no other job of this user has, and let this process and its children see them alone; 0: none.

    Waits, and says so, for those that are there but taken. Raises ValueError if there are not so many.
    """
    there = visible() if count else []
    if count > len(there):
        which = "this machine has" if os.environ.get(VARIABLE) is None else f"{VARIABLE}={os.environ[VARIABLE]} gives"
        raise ValueError(
            f"resources.gpus={count}, but {which} {len(there)} GPU{'' if len(there) == 1 else 's'}; "
            f"run it where there are {count}, or set resources.gpus (`sdpg plan` says what fits)"
        )
    before = os.environ.get(VARIABLE)
    with contextlib.ExitStack() as held:
        mine = _wait_for(count, there, held)
        os.environ[VARIABLE] = ",".join(device.name for device in mine)
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
        try:
            yield mine
        finally:
            os.environ.pop(VARIABLE, None)
            if before is not None:
                os.environ[VARIABLE] = before


def _wait_for(count: int, there: list[Device], held: contextlib.ExitStack) -> list[Device]:
    """Lock `count` of these GPUs; the locks go with the process, however it ends."""
    told = False
    while True:
        with contextlib.ExitStack() as stack:
            free = (device for device in there if _lock(device, stack))
            mine = list(itertools.islice(free, count))
            if len(mine) == count:
                held.push(stack.pop_all())
                return mine
        if not told:
            print(f"waiting for {count} free GPUs of {len(there)}: other jobs have them", file=sys.stderr, flush=True)
            told = True
        time.sleep(LOOK_EVERY)


def _lock(device: Device, stack: contextlib.ExitStack) -> bool:
    folder = Path(tempfile.gettempdir()) / f"sdpg-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    file = stack.enter_context((folder / device.uuid).open("w"))
    return locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def executors(arguments: Sequence[str]) -> set[str]:
    """Return the executors that are named in Snakemake's command-line arguments, or in a profile that is named there.

    $SNAKEMAKE_PROFILE counts where no profile is named. Profiles are looked for where Snakemake does.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    named = {words[i + 1] for i, word in enumerate(words[:-1]) if word in EXECUTOR}
    profiles = []
    for i, word in enumerate(words):
        if word in PROFILES:
            profiles += itertools.takewhile(lambda value: not value.startswith("-"), words[i + 1 :])
    if "--profile" not in words:
        profiles += os.environ.get("SNAKEMAKE_PROFILE", "").split()
    for profile in profiles:
        file = _profile_file(profile)
        said = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
        named |= {str(said["executor"])} if isinstance(said, dict) and said.get("executor") else set()
    return named


def _profile_file(profile: str) -> Path | None:
    from snakemake.cli import get_profile_dir

    found = get_profile_dir(profile) or get_profile_dir(str(Path("profiles") / profile))  # of a --workflow-profile
    return Path(found[1]) if found else None


def jobs_run_here(arguments: Sequence[str]) -> bool:
    """Return whether Snakemake, with these command-line arguments, runs its jobs on this machine."""
    return executors(arguments) <= {"local"}

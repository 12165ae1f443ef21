"""Which GPUs a job takes: as many as its scale says, none that another job of this machine has, never fewer in silence."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
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
LIST = ["nvidia-smi", "-L"]  # also names the parts that a GPU is divided into
PART = re.compile(r"MIG (?P<profile>\S*?(?P<memory>\d+)gb\S*) .*\(UUID: (?P<uuid>MIG-[^)]+)\)")
ANSWERS_WITHIN = 60.0  # seconds
LOCKS = "SDPG_GPU_LOCKS"  # set for what a job starts: the locks that it holds
EXECUTOR, PROFILES = {"--executor", "-e"}, {"--profile", "--workflow-profile"}  # Snakemake's options
LOOK_EVERY = 1.0  # seconds between two looks for a free GPU


@dataclass(frozen=True)
class Device:
    """A GPU, or a part of one (MIG), as the driver tells of it. name: what CUDA_VISIBLE_DEVICES calls it; memory in GiB, None
    where the driver does not say.
    """

    name: str
    uuid: str
    model: str
    memory: float | None


def visible() -> list[Device]:
    """Return the GPUs of this machine, or those of them that CUDA_VISIBLE_DEVICES names; [] without a driver.

    A driver that fails is told of, and counts as none. Raises ValueError for a name in CUDA_VISIBLE_DEVICES that no GPU has.
    """
    if shutil.which(QUERY[0]) is None:
        return []
    try:
        rows = [[cell.strip() for cell in line.split(",")] for line in _lines(QUERY)]
    except RuntimeError as error:
        print(f"{error}; no GPU is used", file=sys.stderr, flush=True)
        return []
    every = [Device(index, uuid, model, _gib(memory)) for index, uuid, model, memory in rows]
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        return every
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    parts = _parts() if any(name.startswith("MIG-") for name in names) else []
    return [_find(name, every, parts) for name in names]


def _find(name: str, every: list[Device], parts: list[Device]) -> Device:
    """Return what CUDA_VISIBLE_DEVICES calls so: a part even if the driver does not list it. Raises ValueError."""
    if name.startswith("MIG-"):
        return next((part for part in parts if part.uuid.startswith(name)), Device(name, name, "MIG", None))
    found = next((device for device in every if name == device.name or device.uuid.startswith(name)), None)
    if found is None:
        known = ", ".join(device.name for device in every)
        raise ValueError(f"{VARIABLE}={os.environ[VARIABLE]} names a GPU that is not there; this machine has {known or 'none'}")
    return found


def _parts() -> list[Device]:
    """Return the parts that this machine's GPUs are divided into, as far as the driver tells."""
    try:
        found = filter(None, map(PART.search, _lines(LIST)))
    except RuntimeError:
        return []
    return [Device(part["uuid"], part["uuid"], f"MIG {part['profile']}", float(part["memory"])) for part in found]


def _lines(command: list[str]) -> list[str]:
    """Return what nvidia-smi says. Raises RuntimeError, in one line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_WITHIN)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"nvidia-smi does not answer within {ANSWERS_WITHIN:g} s") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        raise RuntimeError(f"nvidia-smi ended with exit status {done.returncode}: {said}")
    return [line for line in done.stdout.splitlines() if line.strip()]


def _gib(mebibytes: str) -> float | None:
    """Return a memory in GiB; None for "[N/A]", which a GPU has that shares the machine's."""
    return float(mebibytes) / 1024 if mebibytes.replace(".", "").isdigit() else None


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
        os.environ[LOCKS] = ",".join(map(_file_name, mine))
        try:
            yield mine
        finally:
            for variable in (LOCKS, VARIABLE):
                os.environ.pop(variable, None)
            if before is not None:
                os.environ[VARIABLE] = before


def _wait_for(count: int, there: list[Device], held: contextlib.ExitStack) -> list[Device]:
    """Lock `count` of these GPUs; the locks go with the process and those of `kept`, however they end."""
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


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Hold what started this process has taken: if that is killed, its GPUs are free only once this process has ended, too."""
    with contextlib.ExitStack() as stack:
        for name in filter(None, os.environ.get(LOCKS, "").split(",")):
            locked(stack.enter_context((_folder() / name).open("w")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def _lock(device: Device, stack: contextlib.ExitStack) -> bool:
    """Try to lock a GPU: alone, so that nobody else has it, and then so that the job's own processes may join."""
    file = stack.enter_context((_folder() / _file_name(device)).open("w"))
    return locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB) and locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"sdpg-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def _file_name(device: Device) -> str:
    return device.uuid.replace("/", "_")  # MIG-GPU-.../1/0 of older drivers


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

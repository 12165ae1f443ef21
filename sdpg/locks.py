"""One process at a time in one place: a lock that goes with the process, however it ends, and says who has it.

The lock is the kernel's (flock) on a small file that names its holder; the file stays when the lock goes. Every process of a
run over several shares it, so that a run whose first process was killed still has its folder while another one lives.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from sdpg import slurm
from sdpg.io import make_folder, naming

FOLDER = Path(".work") / ".locks"  # below a scale's results
LOOK_EVERY = 1.0  # seconds between two looks at a lock that another process has
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what file systems say that have none
OF_ONE_MACHINE = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "apfs"}


class Taken(ValueError):
    """Another process has the place; the message says which."""


@dataclass(frozen=True)
class Holder:
    """Who has a lock, as its file says. since: local time. job: the Slurm job's number, "" outside one."""

    pid: int
    host: str
    since: str
    command: str
    token: str
    job: str = ""

    def __str__(self) -> str:
        where = "" if self.host == platform.node() else f" on {self.host}"
        job = f" in Slurm job {self.job}" if self.job else ""
        return f"process {self.pid}{where}{job} since {self.since} ({self.command})"


@dataclass(frozen=True)
class Lock:
    """A lock that is held. waited: another process had it first. left: who had it before and was killed, None if nobody was."""

    waited: bool
    left: Holder | None


@contextmanager
def hold(
    path: Path, *, wait: bool = True, first: bool = True, tell: Callable[[Any], Any] = lambda value: value
) -> Iterator[Lock]:
    """Hold the lock at `path` inside. Where another process has it: wait, after a line that says who, or raise Taken.

    first, tell: for the processes of one run, which hold it together; `tell` returns what the first one passes, on all of them.
    A lock whose holder was killed on another machine, of a file system that machines may share, is taken over if the holder was
    of this Slurm job, which was queued again, or of one that Slurm says is over; otherwise Taken.
    """
    waited = False
    with _opened(path) as file:
        while True:
            token, left, refused = tell(_take(file, path) if first else None)
            if token is not None:
                break
            if refused or (waited and not wait):
                raise Taken(refused or f"{held_by(path)}; wait until it has ended, or end it")
            if first and wait and not waited:
                print(f"{held_by(path)}; waiting until it has ended", file=sys.stderr, flush=True)
            waited = True
            time.sleep(LOOK_EVERY)
        if not first:
            locked(file, fcntl.LOCK_SH)
        if (now := holder_of(path)) is None or now.token != token:
            raise Taken(held_by(path))
        try:
            yield Lock(waited, Holder(**left) if left else None)
        finally:
            if first:
                file.truncate(0)


def of(scale: str, job: str) -> Path:
    """Return the file of the lock of one job's place in a scale's results."""
    return Path("results") / scale / FOLDER / job


def holder_of(path: Path) -> Holder | None:
    """Return who has a lock, or had it and was killed; None if its last holder ended well, or there was none."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or it is being written just now
        return None


def is_held(path: Path) -> bool:
    """Return whether a living process has a lock. Takes and changes nothing."""
    try:
        with path.open(encoding="utf-8") as file:
            return not locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False


def held_by(path: Path) -> str:
    """Return who has which place, for messages."""
    return f"{path.name} in {path.parents[len(FOLDER.parts)]} is held by {holder_of(path) or 'another process'}"


def is_shared(path: Path) -> bool:
    """Return whether other machines may have this file system too: what is not known to be of one machine."""
    import psutil

    real = path.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if real.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype not in OF_ONE_MACHINE if mounts else True


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    make_folder(path.parent)
    with path.open("a+", encoding="utf-8") as file:
        yield file


def _take(file: TextIO, path: Path) -> tuple[str | None, dict[str, Any] | None, str | None]:
    """Try once -> (token, the holder before that was killed, None), or (None, None, why it is refused or None).

    The lock is had alone for as long as it takes to write who has it, and then shared, so that others of the run can join; who
    finds another name there afterwards was overtaken in between.
    """
    if not locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
        return None, None, None
    left = holder_of(path)
    if left and left.host != platform.node() and is_shared(path) and not _has_ended(left):
        fcntl.flock(file, fcntl.LOCK_UN)
        why = f"and nothing says that it has ended; if it has, delete {path} and run the same command again"
        return None, None, f"{held_by(path)}, {why}"
    program = Path(sys.argv[0])  # of `python -m sdpg`: .../sdpg/__main__.py
    command = shlex.join([program.parent.name if program.stem == "__main__" else program.name, *sys.argv[1:]])
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    me = Holder(os.getpid(), platform.node(), now, command[:200], uuid.uuid4().hex, slurm.own_job())
    with naming(path):
        file.truncate(0)
        os.write(file.fileno(), json.dumps(asdict(me)).encode())  # at once: nothing is left for the file's end to write
    locked(file, fcntl.LOCK_SH)
    now_there = holder_of(path)
    if now_there is None or now_there.token != me.token:
        fcntl.flock(file, fcntl.LOCK_UN)
        return None, None, None
    return me.token, asdict(left) if left else None, None


def _has_ended(left: Holder) -> bool:
    """Return whether Slurm vouches for it: its jobs run once at a time, and it knows which are over."""
    return bool(left.job) and (left.job == slurm.own_job() or slurm.is_over(left.job))


def locked(file: TextIO, how: int) -> bool:
    """Lock a file, `how` as flock has it -> whether that worked. On a file system without locks it counts as locked; said."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        if how & fcntl.LOCK_EX:
            said = f"{file.name}: this file system has no locks; do not start the same thing twice at a time"
            print(said, file=sys.stderr, flush=True)
    return True

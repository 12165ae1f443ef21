"""One Snakemake at a time in a scale's results, and none that a killed one keeps away.

Snakemake's own lock is rows in its database, which stay when it is killed and do not say whose they are. Here every Snakemake
that is to make files holds, beside them, the lock of each results folder that they lie in (`sdpg.locks`), which goes with the
process: whoever has it knows that rows about that folder are nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import psutil

from sdpg import locks

NAME = "workflow"  # of the lock in each results folder
UNKNOWN = "Snakemake's lock is on {}, and it is not known who has it; if no other Snakemake works there: snakemake --unlock"


def lock_by_process() -> None:
    """Put these locks around Snakemake's own, in this process. A dry run takes none; `--nolock` goes without either."""
    from snakemake.persistence import PersistenceBase

    if hasattr(PersistenceBase, "lock_by_rows"):
        return
    PersistenceBase.lock_by_rows = PersistenceBase.lock

    @contextmanager
    def lock(self):
        written, read = set(map(str, self.all_outputfiles())), set(map(str, self.all_inputfiles()))
        with ExitStack() as held:
            try:
                folders = {folder: held.enter_context(_hold(folder)) for folder in _folders(written)}
                stale = [(kind, path) for kind, path in self._read_locks() if path in written | read]
                for folder in _folders(path for kind, path in stale if kind == "output" or path in written):
                    _check_nobodys(folder, folders.get(folder))
                if stale:  # rows of another living Snakemake may go too: it has the locks of its folders
                    self.unlock()
            except (locks.Taken, OSError) as error:
                refuse(str(error))
            held.enter_context(self.lock_by_rows())
            yield

    @contextmanager
    def lock_warn_only(self):
        from snakemake.logging import logger

        paths = [_path(folder) for folder in _folders(map(str, self.all_outputfiles()))]
        for path in filter(locks.is_held, paths):
            logger.info(locks.held_by(path))
        yield

    PersistenceBase.lock, PersistenceBase.lock_warn_only = lock, lock_warn_only


def refuse(message: str) -> NoReturn:
    """End Snakemake with one line."""
    from snakemake.logging import logger

    logger.error("error: " + " ".join(message.split()))
    raise SystemExit(1)


def _check_nobodys(folder: Path, own: locks.Lock | None) -> None:
    """Raise Taken unless the rows about a folder are of a Snakemake that is gone. own: our lock of it, if we write there."""
    with ExitStack() as stack:
        lock = own or stack.enter_context(_hold(folder))
    if lock.left is None and _others_may_be_here(folder):
        raise locks.Taken(UNKNOWN.format(folder))


def _others_may_be_here(folder: Path) -> bool:
    """Return whether a Snakemake that took no lock of ours may be at work in this working directory."""
    if locks.is_shared(folder):
        return True
    own = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        names = {Path(word).name for word in (process.info["cmdline"] or [])[:4]}
        if process.info["pid"] not in own and "snakemake" in names and process.info["cwd"] in (None, str(Path.cwd())):
            return True
    return False


def _folders(paths: Iterable[str]) -> list[Path]:
    """Return the results folders (results/cpu, ...) that files lie in."""
    return sorted({Path(*Path(path).parts[:2]) for path in paths if len(Path(path).parts) > 2 and path.startswith("results/")})


def _path(folder: Path) -> Path:
    return folder / locks.FOLDER / NAME


def _hold(folder: Path) -> AbstractContextManager[locks.Lock]:
    return locks.hold(_path(folder), wait=False)

"""A finished run goes to its place, and is not lost where its job fails after that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sdpg.io import naming

FILES = ("run.json", "metrics.jsonl", "checkpoints/checkpoints.json")  # of a finished run: what its job promises to make
KEPT = ".finished"  # a folder in it with a copy of them, until its job has ended well


def publish(work: Path, run: Path) -> None:
    """Move a finished run from its working folder to its place; the resume state is not part of it.

    A kill at any moment leaves the work with its state, or the finished run. Its FILES lie in it a second time until `settle`:
    a workflow deletes what a job had made that fails after this.
    """
    kept = work / KEPT
    shutil.rmtree(kept, ignore_errors=True)
    for name in FILES:
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / name, kept / name)
    shutil.rmtree(run, ignore_errors=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    os.replace(work, run)
    shutil.rmtree(run / "state", ignore_errors=True)


def settle(run: Path) -> None:
    """Say that the job that made this run has ended well: no second copy of its files is needed."""
    shutil.rmtree(run / KEPT, ignore_errors=True)


def put_back(run: Path) -> bool:
    """Put the FILES of a finished run back whose job did not end well -> whether there was one."""
    if not all((run / KEPT / name).is_file() for name in FILES):
        return False
    shutil.rmtree(run / "state", ignore_errors=True)
    for name in FILES:
        with naming(run / name):
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / KEPT / name, run / name)
    return True

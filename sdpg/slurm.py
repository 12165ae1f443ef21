"""What a job of the workflow has to do with Slurm, where it is one of its jobs.

In a job that `snakemake --profile profiles/slurm` submits are, one below the other: Snakemake, srun, Snakemake, a shell with
`tee`, `sdpg`. Before Slurm preempts the job, and ahead of its time limit, it sends a signal to all of them. `sdpg` saves, and
has the job queued again before it ends. The others wait for it: if one of them ended, the job would end as failed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sdpg.progress import Interrupted

REQUEUE = "SDPG_REQUEUE"  # set for what a rule starts in a job of Slurm
ON_EACH_NODE = "SDPG_ON_EACH_NODE"  # set in what srun starts on every node
# States of a job that has no process any more. One whose processes are just being ended is COMPLETING, whatever comes then.
OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PENDING", "PREEMPTED"}
OVER |= {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "REVOKED", "SPECIAL_EXIT", "TIMEOUT"}
UNKNOWN = "Invalid job id"  # what squeue says of a job that ended a while ago
# What the rules' shell commands begin with there. Python, too, begins with these signals ignored, until it asks for them.
PREFIX = f"set -euo pipefail; export {REQUEUE}=1; trap '' TERM USR1; "


def outlive_signals() -> bool:
    """Return whether this is a job of Slurm; if so, this process no longer dies of the signal ahead of its time limit."""
    if "SLURM_JOB_ID" not in os.environ:
        return False
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # SIGTERM is Snakemake's own: it waits for the job
    return True


def need_commands() -> None:
    """Raise ValueError if jobs cannot be submitted from this machine."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "executor slurm: sbatch is not on the PATH of this machine; run it on a host that submits to Slurm, "
            "or without --profile to use this machine alone"
        )


def own_job() -> str:
    """Return the number of the Slurm job that this process belongs to; "" outside."""
    return os.environ.get("SLURM_JOB_ID", "")


def is_over(job: str) -> bool:
    """Return whether Slurm says that a job is over, waits to begin again, or is unknown. False where it cannot be asked."""
    try:
        done = _squeue(job, "%T")
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode:
        return UNKNOWN.lower() in done.stderr.lower()
    return set(done.stdout.split()) <= OVER  # one that has just ended is listed no more


def nodes() -> int:
    """Return the number of nodes of the Slurm job that this process belongs to; 1 outside. Raises ValueError."""
    if "SLURM_JOB_NUM_NODES" in os.environ:
        return int(os.environ["SLURM_JOB_NUM_NODES"])
    job = os.environ.get("SLURM_JOB_ID")  # all that Snakemake's job step leaves of Slurm's variables
    return int(_ask(job, "%D")) if job else 1


@contextmanager
def requeueing(stopped: int) -> Iterator[None]:
    """Have Slurm queue the job of the workflow again if what is inside ends with exit code `stopped`, or is told to end.

    SIGTERM, which precedes preemption, ends it. Does nothing outside such a job, or in the processes of a run: the first one
    acts for all.
    """
    if not _acts():
        yield
        return

    def end(number, frame) -> None:
        raise SystemExit(stopped)  # no Exception, which a library might take for an error of its own

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit as ended:
        if ended.code == stopped:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print(requeue(os.environ["SLURM_JOB_ID"]), file=sys.stderr, flush=True)
        raise


def _acts() -> bool:
    """Return whether this process is what a rule started in a job of Slurm, and none of those that it started in turn."""
    return REQUEUE in os.environ and "RANK" not in os.environ and ON_EACH_NODE not in os.environ


@contextmanager
def getting_on(kept: Callable[[], Any], what: str, setting: str) -> Iterator[None]:
    """Raise ValueError in the place of a stop after which the job of the workflow would be queued again, and again, in vain.

    That is a stop in the second half of the job's time limit before anything was saved: `kept`, which says what is, says what
    it said at the start. what: is saved whole; setting: has the limit, in minutes.
    """
    before = kept() if _acts() else None
    try:
        yield
    except (Interrupted, SystemExit) as ended:
        if not _acts() or (isinstance(ended, SystemExit) and ended.code in (None, 0)) or kept() != before:
            raise
        used = _used_most_of_its_time(os.environ["SLURM_JOB_ID"])
        if used is None:
            raise
        raise ValueError(
            f"stopped after {used} minutes of the job without a whole {what} to save, and not queued again, which would be in "
            f"vain; raise {setting}"
        ) from None


def _used_most_of_its_time(job: str) -> int | None:
    """Return the minutes that a job has run if fewer are left to it; None otherwise, or if Slurm does not say."""
    try:
        used, left = (seconds(word) for word in _squeue(job, "%M %L").stdout.split())
    except (ValueError, OSError, subprocess.TimeoutExpired):
        return None
    return int(used // 60) if left < used else None


def seconds(text: str) -> float:
    """Return a time of squeue's ("1-02:03:04", "3:04") in seconds; "UNLIMITED" is infinite. Raises ValueError."""
    if text == "UNLIMITED":
        return float("inf")
    days, _, clock = text.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return 86_400.0 * int(days or 0) + total


def requeue(job: str) -> str:
    """Have Slurm queue a running job of it again, which ends it here -> what became of it.

    A job that is being ended has been cancelled, or is queued again already, and is left alone.
    """
    try:
        state = _ask(job, "%T")
        if state != "RUNNING":
            return f"stopped by Slurm; job {job} is {state}"
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return f"job {job} is queued again, and goes on from what was saved"
        said = " ".join((done.stderr or done.stdout).split())
    except (ValueError, OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    return f"job {job} is not queued again ({said}); the same snakemake command goes on from what was saved"


def _ask(job: str, field: str) -> str:
    """Return one field of squeue about a job. Raises ValueError."""
    done = _squeue(job, field)
    if done.returncode or not done.stdout.strip():
        raise ValueError(f"squeue does not know job {job}: {' '.join(done.stderr.split())}")
    return done.stdout.split()[0]


def _squeue(job: str, field: str) -> subprocess.CompletedProcess[str]:
    command = ["squeue", "--noheader", f"--jobs={job}", f"--format={field}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)

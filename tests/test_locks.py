"""One process at a time in one place: the lock goes with its process, however that ends, and says who has it."""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from sdpg import locks

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from sdpg import locks
with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOOK_EVERY", 0.05)
    monkeypatch.chdir(tmp_path)
    return locks.of("mine", "train-grpo-seed0")


@pytest.fixture
def other(path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path.absolute()], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_is_free_again_and_leaves_no_holder(path):
    for _ in range(2):
        with locks.hold(path, wait=False) as lock:
            assert (lock.waited, lock.left) == (False, None)
            assert locks.holder_of(path).pid == os.getpid()
    assert locks.holder_of(path) is None and not locks.is_held(path)


def test_another_process_is_named(path, other):
    assert locks.is_held(path)
    with pytest.raises(locks.Taken) as error, locks.hold(path, wait=False):
        pass
    expected = f"train-grpo-seed0 in results/mine is held by process {other.pid} since "
    assert str(error.value).startswith(expected) and "-c" in str(error.value) and "\n" not in str(error.value)


def test_a_killed_holder_is_waited_for_and_its_lock_taken_over(path, other, capfd):
    started = time.monotonic()
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {other.pid}"])
    with locks.hold(path) as lock:
        assert lock.waited and lock.left.pid == other.pid and time.monotonic() - started > 0.4
    killer.wait()
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and f"held by process {other.pid}" in said and "waiting until it has ended" in said


@pytest.mark.parametrize(("shared", "refused"), [(True, True), (False, False)])
def test_a_holder_on_another_machine_may_live(path, monkeypatch, shared, refused):
    """Unless the file system is this machine's alone: then the kernel has said that nobody holds it."""
    monkeypatch.setattr(locks, "is_shared", lambda path: shared)
    left = locks.Holder(1234, "node7", "2026-01-01 10:00:00", "snakemake train", "token")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(left)))
    if not refused:
        with locks.hold(path) as lock:
            assert lock.left == left
        return
    for _ in range(2):
        with pytest.raises(
            locks.Taken, match=r"process 1234 on node7 since .*if it has, delete results/mine/.work/.locks/train"
        ):
            locks.hold(path).__enter__()
        assert locks.holder_of(path) == left
    assert platform.node() != "node7"


@pytest.fixture
def elsewhere(path, tmp_path, monkeypatch):
    """A function: put the name of a killed holder on another machine into the lock, and what squeue says on the PATH."""
    monkeypatch.setattr(locks, "is_shared", lambda path: True)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    def put(job: str, squeue: str | None = None) -> locks.Holder:
        left = locks.Holder(1234, "node7", "2026-01-01 10:00:00", "sdpg train", "token", job)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(asdict(left)))
        if squeue is not None:
            command = tmp_path / "bin" / "squeue"
            command.parent.mkdir()
            command.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls.txt\n{squeue}\n')
            command.chmod(0o755)
        return left

    return put


def test_a_job_that_is_queued_again_takes_its_own_lock_back_on_another_node(path, elsewhere, tmp_path, monkeypatch):
    """As after a kill: the name of the first start is still there. Slurm is not asked: it runs no job twice at a time."""
    left = elsewhere("17", "exit 1")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with locks.hold(path) as lock:
        assert lock.left == left and locks.holder_of(path).job == "17"
    assert not (tmp_path / "calls.txt").exists()


@pytest.mark.parametrize("own", [None, "18"])
@pytest.mark.parametrize(
    "squeue", ["echo CANCELLED", "echo PENDING", "exit 0", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"]
)
def test_the_lock_of_a_job_that_is_over_is_taken(path, elsewhere, tmp_path, monkeypatch, squeue, own):
    left = elsewhere("17", squeue)
    if own:
        monkeypatch.setenv("SLURM_JOB_ID", own)
    with locks.hold(path) as lock:
        assert lock.left == left
    assert "--jobs=17" in (tmp_path / "calls.txt").read_text()


@pytest.mark.parametrize(
    ("job", "squeue"),
    [
        ("17", "echo RUNNING"),
        ("17", "echo COMPLETING"),  # its processes are being ended
        ("17", "echo SUSPENDED"),
        ("17", "echo 'Unable to contact slurm controller' >&2; exit 1"),
        ("", "echo CANCELLED"),  # a holder outside Slurm, of whom it knows nothing
    ],
)
def test_the_lock_of_a_job_that_may_live_is_refused(path, elsewhere, monkeypatch, job, squeue):
    left = elsewhere(job, squeue)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    said = f"process 1234 on node7{' in Slurm job 17' if job else ''} since .*if it has, delete results/mine"
    with pytest.raises(locks.Taken, match=said):
        locks.hold(path).__enter__()
    assert locks.holder_of(path) == left


def test_a_lock_file_of_an_earlier_version_is_read(path):
    path.parent.mkdir(parents=True)
    path.write_text('{"pid": 1, "host": "node7", "since": "2026-01-01", "command": "sdpg train", "token": "t"}')
    assert locks.holder_of(path).job == ""


def _member(path, queue, pipe):
    """The second process of a run: joins with what the first one tells it."""
    with locks.hold(path, first=False, tell=lambda _: queue.get()):
        pipe.put("joined")
        time.sleep(60)


def test_a_run_has_its_place_while_any_of_its_processes_lives(path, capfd):
    context = multiprocessing.get_context("spawn")
    queue, pipe = context.Queue(), context.Queue()
    second = context.Process(target=_member, args=(path.absolute(), queue, pipe))
    second.start()

    def tell(value):
        queue.put(value)
        return value

    with locks.hold(path, tell=tell):
        assert pipe.get(timeout=30) == "joined"
    assert locks.is_held(path)  # the first one has ended, the second has not
    with pytest.raises(locks.Taken), locks.hold(path, wait=False):
        pass
    os.kill(second.pid, signal.SIGKILL)
    second.join()
    with locks.hold(path, wait=False):
        pass


def test_a_file_system_without_locks_is_said(path, monkeypatch, capfd):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locks.hold(path):
        pass
    assert "this file system has no locks; do not start the same thing twice" in capfd.readouterr().err

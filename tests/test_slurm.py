"""What `sdpg` does in a job of Slurm, with stand-ins for Slurm's commands. A real cluster: tests/workflow/test_cluster.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpg import cli, slurm
from sdpg.config import resolve
from sdpg.experiment import evaluate, launch
from sdpg.experiment.workflow import Scale
from sdpg.progress import Interrupted

ROOT = Path(__file__).resolve().parents[1]
JOB = {"SLURM_JOB_ID": "7", slurm.REQUEUE: "1"}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A function that puts a command on the PATH: it says `says`, notes its arguments in calls.txt, and ends with `code`."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", slurm.REQUEUE, slurm.ON_EACH_NODE, "RANK"):
        monkeypatch.delenv(name, raising=False)

    def put(name: str, says: str = "", code: int = 0) -> Path:
        file, calls = tmp_path / name, tmp_path / "calls.txt"
        where = " >&2" if code else ""
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{f"echo {says}{where}" if says else ""}\nexit {code}\n')
        file.chmod(0o755)
        return calls

    return put


def ended(code: int) -> int:
    """Run a command that ends with this code -> the code that `sdpg` ends with."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.run(lambda: code)
    finally:
        signal.signal(signal.SIGTERM, before)
    return end.value.code


def test_a_job_that_was_told_to_end_is_queued_again(commands, monkeypatch, capsys):
    commands("squeue", "RUNNING")
    calls = commands("scontrol")
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    assert ended(cli.STOPPED) == cli.STOPPED
    assert calls.read_text().splitlines() == ["squeue --noheader --jobs=7 --format=%T", "scontrol requeue 7"]
    assert capsys.readouterr().err.endswith("job 7 is queued again, and goes on from what was saved\n")


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        (JOB, 0),
        (JOB, 2),  # an error is none of Slurm's
        ({"SLURM_JOB_ID": "7"}, cli.STOPPED),  # somebody's own job, who may have wanted it to stop
        (JOB | {"RANK": "1"}, cli.STOPPED),  # the process that started the others acts for them
        (JOB | {slurm.ON_EACH_NODE: "1"}, cli.STOPPED),
    ],
)
def test_no_other_end_queues_a_job_again(environment, code, commands, monkeypatch):
    commands("squeue", "RUNNING")
    calls = commands("scontrol")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ended(code) == code and not calls.exists()


@pytest.fixture
def a_job(commands, monkeypatch):
    """A function: make this a running job of the workflow that has run, and may still run, for so long -> the calls' file."""

    def put(used: str, left: str) -> Path:
        commands("scontrol")
        calls = commands("squeue")
        squeue = calls.with_name("squeue")
        squeue.write_text(f'#!/bin/sh\ncase "$*" in *%M*) echo "{used} {left}";; *) echo RUNNING;; esac\n')
        for name, value in JOB.items():
            monkeypatch.setenv(name, value)
        return calls

    return put


def stopping(part: str, monkeypatch, folder: Path, saves: bool):
    """Train or evaluate in `folder`, where a signal stops it, after it has saved something or before."""
    monkeypatch.chdir(folder)
    config, kept = resolve("smoke"), folder / "results/smoke/.work"
    if part == "train":
        before, after = kept / "grpo/seed0/state/step000001/state.json", kept / "grpo/seed0/state/step000002/state.json"
    else:
        before, after = kept / "eval/grpo/seed0/step000000-a.parquet", kept / "eval/grpo/seed0/step000001-a.parquet"
    before.parent.mkdir(parents=True)
    before.touch()

    def stopped(*_):
        after.parent.mkdir(exist_ok=True)
        (after if saves else after.with_name(f".{after.name}.7.tmp")).touch()
        raise Interrupted("stopped") if part == "train" else SystemExit(cli.STOPPED)

    monkeypatch.setattr(launch, "_train", stopped)
    monkeypatch.setattr(evaluate, "_evaluation", stopped)
    monkeypatch.setattr(evaluate, "_listen", lambda: None)
    if part == "train":
        return lambda: launch.train(config, "grpo", 0, 1, [])
    return lambda: evaluate.evaluate(config, "grpo", 0, 1, lm_eval=False, words=[])


@pytest.mark.parametrize(("part", "what"), [("train", "step"), ("evaluate", "part")])
@pytest.mark.parametrize(
    ("used", "left", "saves", "again"),
    [
        ("23:50:00", "10:00", False, False),  # ahead of the time limit, for nothing
        ("1-23:50:03", "0:00", False, False),
        ("23:50:00", "10:00", True, True),
        ("20:00", "23:40:00", False, True),  # preempted early: the next start may have the time
        ("2-00:00:00", "UNLIMITED", False, True),
    ],
)
def test_a_job_that_saves_nothing_in_its_time_is_not_queued_again(
    part, what, used, left, saves, again, a_job, tmp_path, monkeypatch, capsys
):
    calls = a_job(used, left)
    main = stopping(part, monkeypatch, tmp_path, saves)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    queued = calls.exists() and "scontrol requeue 7" in calls.read_text()
    assert (end.value.code, queued) == ((cli.STOPPED, True) if again else (2, False))
    said = capsys.readouterr().err
    if not again:
        assert "minutes of the job without a whole " + what in said and said.endswith(f"raise resources.runtime.{part}\n")
        assert said.count("\n") == 1


def test_outside_a_job_a_stop_is_a_stop(tmp_path, commands, monkeypatch):
    calls = commands("squeue", "23:50:00 10:00")
    with pytest.raises(SystemExit) as end:
        cli.run(stopping("train", monkeypatch, tmp_path, False))
    assert end.value.code == cli.STOPPED and not calls.exists()


@pytest.mark.parametrize(
    ("text", "value"), [("3:04", 184), ("02:03:04", 7384), ("1-02:03:04", 93_784), ("UNLIMITED", float("inf"))]
)
def test_times_of_squeue_are_read(text, value):
    assert slurm.seconds(text) == value
    with pytest.raises(ValueError):
        slurm.seconds("INVALID")


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PENDING"])
def test_a_job_that_was_cancelled_stays_so(state, commands):
    commands("squeue", state)
    calls = commands("scontrol")
    assert slurm.requeue("7") == f"stopped by Slurm; job 7 is {state}"
    assert "scontrol" not in calls.read_text()


@pytest.mark.parametrize(
    ("squeue", "scontrol", "why"),
    [
        (("RUNNING",), ("Requested operation is presently disabled", 1), "(Requested operation is presently disabled)"),
        (("slurm_load_jobs error", 1), (), "(squeue does not know job 7: slurm_load_jobs error)"),
    ],
)
def test_what_slurm_refuses_is_said_in_one_line(squeue, scontrol, why, commands):
    commands("squeue", *squeue)
    commands("scontrol", *scontrol)
    said = slurm.requeue("7")
    assert said.startswith("job 7 is not queued again") and why in said and "\n" not in said


def test_the_number_of_nodes_is_asked_for_where_the_job_step_dropped_it(commands, monkeypatch):
    assert slurm.nodes() == 1
    commands("squeue", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm.nodes() == 4
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    assert slurm.nodes() == 2


def test_only_the_command_is_told_and_all_above_it_wait(commands):
    """As in a job: a shell with the prefix, `tee`, and a command all get SIGTERM and SIGUSR1."""
    commands("squeue", "RUNNING")
    calls = commands("scontrol")
    body = "import time; from sdpg import cli; cli.run(lambda: print('ready', flush=True) or time.sleep(60))"
    shell = f'{slurm.PREFIX}{sys.executable} -c "{body}" 2>&1 | tee -i /dev/null'
    job = subprocess.Popen(
        ["bash", "-c", shell], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | JOB
    )
    assert job.stdout.readline() == "ready\n"
    for number in (signal.SIGUSR1, signal.SIGTERM):  # the first is for training alone
        os.killpg(job.pid, number)
        time.sleep(0.2)
    said, _ = job.communicate(timeout=30)
    assert job.returncode == cli.STOPPED and said == "job 7 is queued again, and goes on from what was saved\n"
    assert "scontrol requeue 7" in calls.read_text()


def test_what_the_jobs_of_a_scale_take():
    paper = Scale("paper-qwen3-4b", {})
    assert paper.takes("train") == {"mem_mb": 256000, "gpu": 8, "nodes": 1, "runtime": 1440}
    assert paper.takes("evaluate") == {"mem_mb": 256000, "gpu": 8, "nodes": 1, "runtime": 1440}
    assert paper.takes("evaluate", one=True)["gpu"] == 1 and paper.takes("base_model")["gpu"] == 1
    nodes = Scale("paper-qwen3-4b", {"resources.nodes": 4, "resources.runtime.train": 600})
    several = {"nodes": 4, "tasks": 4, "mpi": "srun", "tasks_per_gpu": 0, "gpu": 32, "gres": "gpu:8", "runtime": 600}
    assert nodes.takes("train") == {"mem_mb": 256000} | several
    assert "mpi" not in nodes.takes("evaluate") and nodes.takes("evaluate")["gpu"] == 8  # those of one node
    assert {Scale("smoke", {}).takes(stage)["gpu"] for stage in ("base_model", "train", "evaluate")} == {0}
    assert "gres" not in Scale("smoke", {"resources.nodes": 2}).takes("train")


def test_a_job_is_not_shorter_than_the_signal_comes_ahead():
    with pytest.raises(ValueError, match="resources.runtime.train"):
        resolve("cpu", {"resources.runtime.train": 10})

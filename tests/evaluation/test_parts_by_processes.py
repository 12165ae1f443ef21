"""Evaluations by one process and by two, stopped and killed: always the same bytes, and nothing is sampled twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sdpg import cli, slurm
from sdpg.config import resolve
from sdpg.evaluation.checkpoints import load_checkpoints
from sdpg.evaluation.parts import BATCHES, Part, claim, make_parts, read_part
from sdpg.evaluation.run import Evaluation
from sdpg.evaluation.setup import load_sets
from sdpg.experiment import evaluate, gpus
from sdpg.rollout.placement import IN_PROCESS_ROWS
from tests.evaluation.conftest import STEPS
from tests.scale import evaluated

ROOT = Path(__file__).parents[2]
SCALE = evaluated("two", "chain", "chain-2", samples=64)
SCALE["train"]["steps"] = STEPS
PARTS = 2 * 2 * 2  # checkpoints, sets, and 100 problems in parts of 64


class Place:
    """A folder with a scale and its finished run, and the command in it."""

    def __init__(self, folder: Path, run):
        self.folder, self.root = folder, folder / "results" / "two"
        (folder / "two.yaml").write_text(yaml.safe_dump(SCALE))
        shutil.copytree(run.data_dir, self.root / "data")
        shutil.copytree(run.run_dir, self.root / "runs/grpo/seed0")
        self.work, self.out = self.root / ".work/eval/grpo/seed0", self.root / "eval/grpo/seed0"

    def start(self, *options: str, **environment: str) -> subprocess.Popen:
        words = ["evaluate", "--scale", "two.yaml", "--method", "grpo", "--seed", "0", *options]
        dropped = ("RANK", "SLURM_JOB_ID", slurm.REQUEUE)
        clean = {key: value for key, value in os.environ.items() if key not in dropped} | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "sdpg", *words]
        return subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True, env=clean | environment)

    def finish(self, *options: str, **environment: str) -> str:
        job = self.start(*options, **environment)
        _, said = job.communicate(timeout=300)
        assert job.returncode == 0, said
        assert not self.work.exists()
        return said

    def parts(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.work.glob("step*.parquet")}

    def wait_for_parts(self, job: subprocess.Popen, count: int) -> None:
        end = time.monotonic() + 240
        while len(self.parts()) < count:
            assert job.poll() is None and time.monotonic() < end, job.stderr.read()
            time.sleep(0.02)

    def bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()}


TWO = ("--set", "resources.processes=2")


@pytest.fixture(scope="module")
def expected(finished, tmp_path_factory) -> dict[str, bytes]:
    """What one undisturbed process leaves."""
    place = Place(tmp_path_factory.mktemp("one"), finished)
    place.finish()
    return place.bytes()


@pytest.fixture
def place(finished, tmp_path) -> Place:
    return Place(tmp_path, finished)


def living(word: str) -> list[int]:
    """Processes with this word in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if word in process.environ().values() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_two_processes_leave_the_bytes_of_one(place, expected):
    said = place.finish(*TWO)
    assert place.bytes() == expected and set(expected) == {"chain.parquet", "chain-2.parquet"}
    assert said.count("problem 400/400") == 1 and "error" not in said
    frame = pd.read_parquet(place.out / "chain.parquet")
    assert len(frame) == 2 * 100 * 64


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_evaluation_goes_on_from_its_parts(place, expected):
    """Killed twice, as by a power cut: two processes, then one, then finished by two."""
    mark = f"mark-{os.getpid()}"
    for options in (TWO, ()):
        before = place.parts()
        job = place.start(*options, MARK=mark)
        place.wait_for_parts(job, len(before) + 2)
        job.kill()
        job.communicate(timeout=10)
        end = time.monotonic() + 10
        while living(mark):  # its processes go with it
            assert time.monotonic() < end
            time.sleep(0.05)
        assert before.items() <= place.parts().items()  # nothing was sampled twice
        assert not place.out.exists()
    assert 4 <= len(before := place.parts()) < PARTS
    job = place.start(*TWO)
    place.wait_for_parts(job, len(before) + 1)
    assert before.items() <= place.parts().items()
    _, said = job.communicate(timeout=300)
    assert job.returncode == 0 and place.bytes() == expected, said


SIGNALS = [((), signal.SIGINT), pytest.param((), signal.SIGUSR1, marks=pytest.mark.long), (TWO, signal.SIGTERM)]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "number"), SIGNALS)
def test_a_signal_ends_it_at_once_and_nothing_is_lost(place, options, number):
    job = place.start(*options)
    place.wait_for_parts(job, 2)
    job.send_signal(number)
    _, said = job.communicate(timeout=30)
    assert job.returncode == cli.STOPPED and said.splitlines()[-1] == evaluate.GOES_ON, said
    assert said.count("stopped") == 1 and "Traceback" not in said
    assert 2 <= len(place.parts()) < PARTS and not place.out.exists()


@pytest.mark.slow
@pytest.mark.long
def test_slurm_queues_it_again_ahead_of_its_time_limit(place, tmp_path):
    """The whole job is told, as by `--signal`: what waits above ignores it, and the first process asks for it once."""
    for name, says in (("squeue", "echo RUNNING"), ("scontrol", f"echo $* >> {tmp_path}/calls")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    job = place.start(*TWO, PATH=path, SLURM_JOB_ID="7", MARK=f"queue-{os.getpid()}", **{slurm.REQUEUE: "1"})
    place.wait_for_parts(job, 1)
    for pid in living(f"queue-{os.getpid()}"):
        os.kill(pid, signal.SIGUSR1)
    _, said = job.communicate(timeout=30)
    assert job.returncode == cli.STOPPED and "job 7 is queued again" in said and "Traceback" not in said, said
    assert (tmp_path / "calls").read_text() == "requeue 7\n"


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_evaluation_and_is_named(place):
    job = place.start(*TWO)
    place.wait_for_parts(job, 1)
    (victim,) = living("1/2")
    os.kill(victim, signal.SIGKILL)
    _, said = job.communicate(timeout=30)
    assert job.returncode == 1 and "error: process 1 was ended by SIGKILL (out of memory?)" in said
    assert len(place.parts()) >= 1 and "Traceback" not in said


@pytest.mark.slow
def test_what_is_wrong_is_said_once_before_any_process_starts(place):
    job = place.start(*TWO, "--set", "train.max_prompt_tokens=5")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 2 and said.count("\n") == 1 and "has a prompt of 6 tokens" in said


# --- parts


@pytest.fixture
def made(run, tmp_path):
    """A function that lists the parts of the run, with other settings."""

    def make(**identity) -> list[Part]:
        checkpoints = load_checkpoints(run.run_dir, verify=False)
        _, sets = load_sets(run.settings, checkpoints[0].path, run.data_dir)
        return make_parts(checkpoints, sets, tmp_path, samples=8, identity={"seed": 0} | identity)

    return make


def evaluation(run, tmp_path, seed=0, **more) -> Evaluation:
    return Evaluation(run.run_dir, run.settings, seed=seed, data_dir=run.data_dir, work_dir=tmp_path, **more)


def change_samples(run, tmp_path):
    run.config["evaluation"]["samples"] = 4


def change_temperature(run, tmp_path):
    run.config["evaluation"]["temperature"] = 0.5


def change_response(run, tmp_path):
    run.config["train"]["max_response_tokens"] = 20


def change_engine(run, tmp_path):
    run.config["evaluation"]["engine"] = "vllm"


def change_task(run, tmp_path):
    run.config["task"]["verifier"] = "exact"


def change_checkpoints(run, tmp_path):
    shutil.copytree(run.run_dir, tmp_path / "copy")
    object.__setattr__(run, "run_dir", tmp_path / "copy")
    index = run.run_dir / "checkpoints" / "checkpoints.json"
    content = json.loads(index.read_text())
    for entry in content["checkpoints"]:
        entry["sha256"]["model.safetensors"] = "0" * 64
    index.write_text(json.dumps(content))


def change_problems(run, tmp_path):
    shutil.copytree(run.data_dir, tmp_path / "copy")
    object.__setattr__(run, "data_dir", tmp_path / "copy")
    for path in (run.data_dir / "eval").iterdir():
        frame = pd.read_parquet(path)
        frame.loc[3, "answer"] = "another"
        frame.to_parquet(path)


CHANGES = [change_samples, change_temperature, change_response, change_engine, change_task, change_checkpoints, change_problems]


@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_another_config_checkpoint_or_problem_are_not_taken(change, run, tmp_path):
    before = {part.path for part in evaluation(run, tmp_path / "work").parts}
    change(run, tmp_path)
    assert not before & {part.path for part in evaluation(run, tmp_path / "work").parts}


def test_parts_of_another_seed_or_code_are_not_taken(run, tmp_path):
    kinds = [{}, {"seed": 1}, {"code": {"files": ["a 1"]}}, {"code": {"files": ["a 2"]}}]
    names = [{part.path.name for part in evaluation(run, tmp_path, **kind).parts} for kind in kinds]
    assert len(set().union(*names)) == sum(map(len, names))
    said = evaluate.code_of(resolve("smoke"))
    assert {"torch", "transformers"} <= set(said["versions"])
    assert any(line.startswith("sdpg/evaluation/sampling.py ") for line in said["files"])


def test_what_decides_no_sample_takes_the_parts_that_are_there(run, tmp_path):
    before = [part.path for part in evaluation(run, tmp_path).parts]
    run.config["evaluation"] |= {"pass_k": [1], "lm_eval": None}
    run.config["data"]["evaluation"].pop("chain-2")
    now = [part.path for part in evaluation(run, tmp_path).parts]
    assert now == [path for path in before if "-chain-0-" in path.name] and len(now) == 2


def test_parts_are_whole_batches_of_the_in_process_engine(run, made, monkeypatch):
    monkeypatch.setattr("sdpg.evaluation.parts.IN_PROCESS_ROWS", 80)
    parts = made()
    firsts = [int(part.path.name.split("-")[-2]) for part in parts]
    assert firsts == 4 * [0, 10 * BATCHES, 20 * BATCHES] and IN_PROCESS_ROWS == 1024
    whole = [problem.id for part in parts[:3] for problem in part.set.problems]
    assert len(set(whole)) == len(whole) == sum(len(part.set.prompts) for part in parts[:3]) == 100


def test_a_part_is_claimed_once(tmp_path):
    (tmp_path / "claims").mkdir()
    assert [claim(tmp_path / "x"), claim(tmp_path / "x"), claim(tmp_path / "y")] == [True, False, True]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PAR1"), lambda path: short(path)])
def test_a_damaged_part_is_named_and_deleted(damage, made):
    part = made()[0]
    part.path.write_bytes(b"")
    damage(part.path)
    with pytest.raises(ValueError, match=r"step000000-chain-0-\w+\.parquet could not be read .* samples it again"):
        read_part(part, 8)
    assert not part.path.exists()


def short(path: Path) -> None:
    pd.DataFrame({"step": [0]}).to_parquet(path)


def test_only_checkpoints_that_are_still_needed_are_read(run, tmp_path):
    job = evaluation(run, tmp_path / "work")
    job.verify()
    for part in job.parts[:2]:
        part.path.write_bytes(b"there")
    shutil.copytree(run.run_dir, tmp_path / "run")
    object.__setattr__(run, "run_dir", tmp_path / "run")
    weights = run.run_dir / "checkpoints" / "step000000" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    evaluation(run, tmp_path / "work").verify()
    job.parts[0].path.unlink()
    with pytest.raises(ValueError, match="step000000.model.safetensors is corrupt"):
        evaluation(run, tmp_path / "work").verify()


def test_each_process_sees_one_gpu_of_the_job(run, tmp_path, monkeypatch):
    started = []

    class Started:
        def __init__(self, command, env):
            started.append((command, env))

        def poll(self):
            return 0

        wait = poll

    monkeypatch.setattr(evaluate.subprocess, "Popen", Started)
    monkeypatch.setenv(slurm.REQUEUE, "1")
    devices = [gpus.Device(str(i), f"GPU-{i}", "NVIDIA H100", 80) for i in (3, 5)]
    assert evaluate._in_processes(evaluation(run, tmp_path), "x", 2, devices, ["evaluate", "--seed", "0"]) == 0
    assert [env[gpus.VARIABLE] for _, env in started] == ["3", "5"]
    assert [env[evaluate.PLACE] for _, env in started] == ["0/2", "1/2"]
    assert not any(slurm.REQUEUE in env for _, env in started)  # the one that waits acts for all
    assert started[0][0][-4:] == ["sdpg", "evaluate", "--seed", "0"]

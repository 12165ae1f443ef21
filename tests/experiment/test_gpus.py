"""Which GPUs a job takes: its own, never fewer than asked for. `nvidia-smi` is a script here."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpg.config import resolve
from sdpg.experiment import gpus, launch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with four GPUs of 80 GiB."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    lines = "".join(f"echo '{i}, GPU-{i}{i}, NVIDIA H100 80GB HBM3, 81559'\n" for i in range(4))
    script.write_text(f"#!/bin/sh\n{lines}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    return script


def test_what_the_driver_tells(machine):
    first = gpus.visible()[0]
    assert (first.name, first.uuid, round(first.memory)) == ("0", "GPU-00", 80)
    assert [device.name for device in gpus.visible()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("value", "names"), [("2,0", ["2", "0"]), ("GPU-33", ["3"]), ("", [])])
def test_the_users_own_choice_is_kept(machine, monkeypatch, value, names):
    monkeypatch.setenv(gpus.VARIABLE, value)
    assert [device.name for device in gpus.visible()] == names
    monkeypatch.setenv(gpus.VARIABLE, "7")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES=7 names a GPU that is not there; this machine has 0, 1, 2, 3"):
        gpus.visible()


LISTED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-00)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-aaaa)"""
WHOLE = "0, GPU-00, NVIDIA A100-SXM4-40GB, 40960"


def divided(script, listed: str) -> None:
    """Have the driver list one GPU, and `listed` for -L."""
    script.write_text(f"#!/bin/sh\ncase $1 in -L) cat <<END\n{listed}\nEND\n;; *) echo '{WHOLE}';; esac\n")


@pytest.mark.parametrize(
    ("value", "memory"),
    [("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", 20), ("MIG-c6d4", 20), ("MIG-aaaa", 5), ("MIG-GPU-00/1/0", None)],
)
def test_a_part_of_a_gpu_is_taken_by_its_name(machine, monkeypatch, value, memory):
    """As Slurm names it; older drivers' names are not listed, and their memory is not known."""
    divided(machine, LISTED)
    monkeypatch.setenv(gpus.VARIABLE, value)
    (part,) = gpus.visible()
    assert (part.memory, part.uuid.startswith(value), part.model.startswith("MIG")) == (memory, True, True)
    with gpus.taken(1):
        assert os.environ[gpus.VARIABLE] == part.uuid
        assert not gpus._lock(part, contextlib.ExitStack())  # another job finds it taken
    assert os.environ[gpus.VARIABLE] == value


def test_a_part_that_the_driver_lists_nothing_of_is_taken_too(machine, monkeypatch):
    divided(machine, "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-00)")
    monkeypatch.setenv(gpus.VARIABLE, "MIG-bbbb,0")
    assert [(device.name, device.memory) for device in gpus.visible()] == [("MIG-bbbb", None), ("0", 40)]


def test_memory_that_the_driver_does_not_know_is_not_checked(machine, capsys):
    machine.write_text("#!/bin/sh\necho '0, GPU-00, NVIDIA GB10, [N/A]'\n")
    (device,) = gpus.visible()
    assert device.memory is None
    launch.check_memory(resolve("paper-qwen3-4b"), "grpo", device)
    assert capsys.readouterr().err == "memory is not planned: the driver does not say how much GPU 0 has\n"


def test_a_driver_that_hangs_is_told_of(machine, monkeypatch, capsys):
    monkeypatch.setattr(gpus, "ANSWERS_WITHIN", 0.2)
    machine.write_text("#!/bin/sh\nexec sleep 30\n")
    assert gpus.visible() == []
    assert capsys.readouterr().err == "nvidia-smi does not answer within 0.2 s; no GPU is used\n"


def test_gpus_are_taken_as_long_as_a_process_that_the_job_started_lives(machine, monkeypatch):
    """It may save its state, on the GPU, when what started it was killed."""
    monkeypatch.setattr(gpus, "LOOK_EVERY", 0.05)
    child = (
        "import os, time; from sdpg.experiment.gpus import kept\nwith kept(): print(os.getpid(), flush=True); time.sleep(60)"
    )
    code = "import subprocess, sys; from sdpg.experiment.gpus import taken\n"
    code += f"with taken(3): subprocess.run([sys.executable, '-c', {child!r}])"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    with gpus.taken(1) as one:
        assert one[0].name == "3"
    started = time.monotonic()
    ends = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {worker}"])
    with gpus.taken(4):
        assert time.monotonic() - started > 0.9
    ends.wait()
    assert gpus.LOCKS not in os.environ


def test_jobs_side_by_side_take_different_gpus(machine, monkeypatch):
    names = []
    with contextlib.ExitStack() as jobs:
        for count in (2, 1, 1):
            names += [device.name for device in jobs.enter_context(gpus.taken(count))]
            assert os.environ[gpus.VARIABLE] == ",".join(names[-count:])
            monkeypatch.delenv(gpus.VARIABLE)  # another job is another process
    assert names == ["0", "1", "2", "3"]
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    with gpus.taken(4) as again:
        assert len(again) == 4
    assert gpus.VARIABLE not in os.environ


@pytest.mark.parametrize(
    "script", ["echo 'NVIDIA-SMI has failed' >&2; exit 9", "echo 'Unable to determine the device'; exit 15"]
)
def test_a_driver_that_fails_is_told_of(machine, script, capsys):
    machine.write_text(f"#!/bin/sh\n{script}\n")
    assert gpus.visible() == []
    said = capsys.readouterr().err
    assert said.startswith("nvidia-smi ended with exit status") and "no GPU is used" in said
    with pytest.raises(ValueError, match="resources.gpus=1, but this machine has 0 GPUs"), gpus.taken(1):
        pass


def test_a_scale_without_gpus_sees_none(machine):
    with gpus.taken(0) as devices:
        assert devices == [] and os.environ[gpus.VARIABLE] == ""


def test_a_job_waits_for_gpus_that_another_process_has_and_says_so(machine, capfd):
    code = (
        "import time\nfrom sdpg.experiment.gpus import taken\nwith taken(3):\n    print('ready', flush=True)\n    time.sleep(9)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "ready\n"
    with gpus.taken(1) as one:
        assert one[0].name == "3"
    started = time.monotonic()
    other_ends = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {other.pid}"])  # the lock goes with the process
    with gpus.taken(2) as two:
        assert len(two) == 2 and time.monotonic() - started > 0.9
    assert "waiting for 2 free GPUs of 4: other jobs have them" in capfd.readouterr().err
    other_ends.wait()
    other.wait()


def test_more_gpus_than_there_are_is_one_clear_line(machine, monkeypatch):
    with (
        pytest.raises(ValueError, match="resources.gpus=8, but this machine has 4 GPUs; run it where there are 8"),
        gpus.taken(8),
    ):
        pass
    monkeypatch.setenv(gpus.VARIABLE, "1")
    with pytest.raises(ValueError, match="resources.gpus=2, but CUDA_VISIBLE_DEVICES=1 gives 1 GPU;"), gpus.taken(2):
        pass


def test_a_run_that_does_not_fit_the_gpu_is_refused_before_anything_is_loaded(machine):
    config = resolve("paper-qwen3-4b", {"resources.gpus": 1})
    with pytest.raises(ValueError, match=r"paper-qwen3-4b does not fit: grpo needs .* GB .*it fits with --set resources.gpus="):
        launch.train(config, "grpo", 0, 1, [])


def test_sdpg_train_says_that_there_is_no_gpu():
    command = [sys.executable, "-m", "sdpg", "train", "--scale", "paper-qwen3-1.7b", "--method", "grpo", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: resources.gpus=8, but CUDA_VISIBLE_DEVICES= gives 0 GPUs" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "here"),
    [
        ([], True),
        (["--executor", "local"], True),
        (["--executor=slurm"], False),
        (["-e", "slurm", "--jobs", "4"], False),
        (["--profile", "PROFILE"], False),
        (["--workflow-profile=PROFILE"], False),
        (["--workflow-profile", "profiles/default"], True),
    ],
)
def test_limits_of_this_machine_are_for_jobs_on_this_machine(tmp_path, arguments, here):
    (tmp_path / "config.yaml").write_text("executor: slurm\njobs: 10\n")
    assert gpus.jobs_run_here([word.replace("PROFILE", str(tmp_path)) for word in arguments]) == here


def test_a_profile_may_be_one_of_several_be_named_or_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.v9+.yaml").write_text("executor: slurm\n")
    (tmp_path / "other.yaml").write_text("jobs: 3\n")
    assert gpus.executors(["-n", "--profile", "other.yaml", "mine", "--jobs", "3"]) == {"slurm"}
    assert gpus.executors(["--profile", "other.yaml"]) == set()
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "mine")
    assert gpus.executors(["-n"]) == {"slurm"} and gpus.executors(["--profile", "other.yaml"]) == set()

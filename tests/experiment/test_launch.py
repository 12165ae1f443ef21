"""`sdpg train` over several processes and nodes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sdpg import cli
from sdpg.config import resolve
from sdpg.core.publish import FILES, KEPT
from sdpg.core.recorder import read_rows
from sdpg.experiment import evaluate, launch
from tests.workflow.conftest import copy_project

TWO = ("--set", "resources.processes=2")


def test_over_nodes_srun_starts_sdpg_once_on_each():
    resources = resolve("paper-qwen3-4b", {"resources.nodes": 4}).resources
    command = launch.over_nodes(resources, ["train", "--method", "grpo", "--seed", "0"])
    assert command[:2] == ["srun", "--ntasks-per-node=1"]
    assert {"--nodes=4", "--ntasks=4", "--kill-on-bad-exit=1", "--gpus-per-task=8"} <= set(command)
    assert command[-7:] == ["-m", "sdpg", "train", "--method", "grpo", "--seed", "0"]


def test_nodes_without_an_allocation_are_refused(monkeypatch):
    config = resolve("smoke", {"resources.nodes": 2})
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    with pytest.raises(ValueError, match="resources.nodes=2, but this is one node; run it in an allocation: salloc --nodes=2"):
        launch.train(config, "grpo", 0, 1, ["train"])


def test_all_nodes_meet_at_the_first_one(tmp_path, monkeypatch):
    assert launch._endpoint(1) == "localhost:0"
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho node7\necho node8\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    assert launch._endpoint(2) == "node7:29856"


LEAVES = [  # of a training, of an evaluation: handler, its exception, by which signal it is asked again, what is said
    (launch._leave, launch.Interrupted, signal.SIGTERM, ""),
    (evaluate._leave, SystemExit, evaluate.AGAIN, f"{evaluate.GOES_ON}\n"),
]


@pytest.mark.parametrize(("leave", "raised", "again", "said"), LEAVES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_comes_in_a_finaliser_is_not_lost(monkeypatch, capfd, leave, raised, again, said, number):
    class Dropped:
        def __del__(self):
            signal.raise_signal(number)

    before = {each: signal.getsignal(each) for each in (*launch.FORWARDED, evaluate.AGAIN)}
    for each in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, leave)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    launch.insist(raised, again)
    try:
        with pytest.raises(raised):
            Dropped()
            time.sleep(30)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert capfd.readouterr().err == said


def test_any_other_exception_of_a_finaliser_is_shown_as_ever(monkeypatch, capfd):
    class Broken:
        def __del__(self):
            raise KeyError("a bug")

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    launch.insist(SystemExit, evaluate.AGAIN)
    Broken()
    assert "KeyError: 'a bug'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("codes", "expected", "said"),
    [
        ({0: 2, 1: -15}, 2, ""),  # one has said what is wrong, the other was ended
        ({0: 75, 1: 2}, 2, ""),
        ({0: 75, 1: -9}, 1, "error: process 1 was ended by SIGKILL (out of memory?)"),
        ({0: -11, 1: 75, 2: -15}, 1, "error: process 0 was ended by SIGSEGV"),
        ({0: 75, 1: 75}, 1, ""),  # each of them has said so
        ({0: -15}, 1, ""),
    ],
)
def test_what_the_processesexit_codes_come_to(codes, expected, said, capsys):
    assert launch.exit_code(codes) == expected
    assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize("codes", [{0: 130, 1: 130}, {0: 75, 1: 130}, {0: 130, 1: -15}])
def test_processes_that_were_asked_to_stop_are_no_error(codes):
    with pytest.raises(SystemExit) as stop:
        launch.exit_code(codes)
    assert stop.value.code == 130


@pytest.mark.parametrize("text", ["[..] Connection closed by peer", "NCCL error: remote process exited", "gloo: timeout"])
@pytest.mark.parametrize("rank", [None, "1"])
def test_a_process_that_loses_the_others_says_so_in_one_line(text, rank, monkeypatch, capsys):
    def lose():
        raise RuntimeError(f"{text}\nwith more lines")

    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
        with pytest.raises(RuntimeError):  # alone it is a bug, and keeps its traceback
            cli.run(lose)
        return
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as stop:
        cli.run(lose)
    error = capsys.readouterr().err
    assert stop.value.code == cli.ALONE and error.count("\n") == 1 and error.startswith("error in process 1: lost the other")


@pytest.mark.parametrize("node", [False, True])
def test_a_node_keeps_itsexit_code_when_srun_ends_it_after_another_one(node):
    """What starts a node's processes has told them of a signal, they have ended, and srun sends it another one."""
    code = "import os, signal, sys; from sdpg.experiment import launch\n"
    code += "with launch.forwarding(lambda number: print(signal.Signals(number).name)): os.kill(os.getpid(), signal.SIGTERM)\n"
    code += "os.kill(os.getpid(), signal.SIGTERM); sys.exit(130)"
    environment = clean_environment() | ({launch.ON_EACH_NODE: "1"} if node else {})
    done = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "SIGUSR1\n" and done.returncode == (130 if node else -signal.SIGTERM)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the data and the base model of scale smoke."""
    folder = copy_project(tmp_path_factory.mktemp("launch")).folder
    for words in (["data"], ["base-model"]):
        subprocess.run([sys.executable, "-m", "sdpg", *words, "--scale", "smoke"], cwd=folder, check=True, capture_output=True)
    return folder


def start(project, *options):
    command = [sys.executable, "-m", "sdpg", "train", "--scale", "smoke", "--seed", "0", "--method", *options]
    return subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True, env=clean_environment())


def wait_for_rows(run, work, count):
    end = time.monotonic() + 60
    while not (work / "metrics.jsonl").exists() or len(read_rows(work / "metrics.jsonl")) < count:
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.1)


def clean_environment():
    return {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}


@pytest.mark.slow
@pytest.mark.long
def test_a_signal_to_the_command_reaches_its_processes_and_the_run_goes_on(project):
    work = project / "results/smoke/.work/grpo/seed0"
    run = start(project, "grpo", *TWO, "--set", "train.steps=400")
    wait_for_rows(run, work, 3)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and said.count("stopped after step") == 1 and "Traceback" not in said
    (state,) = (work / "state").glob("step*/state.json")
    assert json.loads(state.read_text())["processes"] == 2
    run = start(project, "grpo", *TWO, "--set", "train.steps=400")
    step = json.loads(state.read_text())["step"]
    assert f"going on after step {step} of 400" in run.stderr.readline()
    wait_for_rows(run, work, step + 2)
    run.kill()  # its processes save and end by themselves
    assert "stopped after step" in run.stderr.read()


@pytest.mark.slow
def test_an_error_of_the_processes_is_said_once_by_each(project):
    run = start(project, "grpo", *TWO, "--set", "train.max_prompt_tokens=5")
    _, said = run.communicate(timeout=120)
    assert run.returncode == 2 and "Traceback" not in said
    assert said.count("error: problem ") == 1 and said.count("error in process 1: problem ") <= 1


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_with_vllm_through_the_rule(project):
    """Each has an engine, which samples with the weights that it was pushed."""
    config = ["--config", "scale=smoke", "resources={processes: 2}", "train={engine: vllm}"]
    target = "results/smoke/runs/sdpg-ufkl/seed0/run.json"
    command = [sys.executable, "-m", "snakemake", "--cores", "2", target, *config]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, env=clean_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((project / target).read_text())["hardware"]["processes"] == 2
    rows = read_rows((project / target).with_name("metrics.jsonl"))
    assert len(rows) == 4 and max(row["logprob_gap_max"] for row in rows) < 1e-4


@pytest.mark.slow
def test_a_run_whose_job_failed_after_its_training_is_not_trained_again(project):
    """Evaluation in the same job fails, and the workflow deletes what the job had promised. Asked for once more, it trains."""
    once = ["sdpg-ufkl", "--set", "resources.evaluate_at_once=true", "--set", "evaluation={engine: in-process, lm_eval: null}"]
    run = project / "results/smoke/runs/sdpg-ufkl/seed0"
    problems = next((project / "results/smoke/data/eval").glob("*.parquet"))
    moved = problems.rename(problems.with_suffix(".away"))
    _, said = (failed := start(project, *once)).communicate(timeout=120)
    assert failed.returncode != 0 and (run / "run.json").is_file()
    before = {name: (run / name).read_bytes() for name in FILES}
    for name in FILES:
        (run / name).unlink()
    moved.rename(problems)
    _, said = (second := start(project, *once)).communicate(timeout=120)
    assert second.returncode == 0 and "sdpg-ufkl seed 0: trained before, by a job that failed after that" in said
    assert before == {name: (run / name).read_bytes() for name in FILES} and not (run / KEPT).exists()
    _, said = (third := start(project, *once)).communicate(timeout=120)
    assert third.returncode == 0 and "trained before" not in said and "step 4/4" in said

"""Jobs through Slurm. On a real cluster (slurm_cluster.py) where its packages are installed.

SDPG_SLURM=1 has them installed, as root, and runs the long tests, too, which take fifteen minutes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpg import slurm
from sdpg.core.recorder import read_rows
from tests.workflow import slurm_cluster
from tests.workflow.conftest import ROOT, copy_project

ASKED = os.environ.get("SDPG_SLURM") == "1"
on_request = pytest.mark.skipif(not ASKED, reason="minutes on a real Slurm: only with SDPG_SLURM=1")
PROFILE = ("--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "3")
RUN = "results/smoke/runs/sdpg-ufkl/seed0/run.json"


def test_without_sbatch_the_first_command_says_so_in_one_line(tmp_path, monkeypatch):
    project = copy_project(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "bash", "which"):  # what Snakemake and the plugin start
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    output = project.snakemake("-n", "smoke", "--profile", "profiles/slurm", ok=False)
    assert "error: executor slurm: sbatch is not on the PATH of this machine; run it on a host that submits" in output
    assert "Traceback" not in output


def without_slurm(folder: Path, monkeypatch):
    """A copy of the project where Slurm's commands note how they are called, and fail."""
    project = copy_project(folder)
    (folder / "bin").mkdir()
    for name in ("sbatch", *slurm_cluster.COMMANDS, "sacct"):
        (folder / "bin" / name).write_text(f'#!/bin/sh\necho "$*" >> {folder}/{name}.txt\ntest {name} != sbatch\n')
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
    return project


@pytest.mark.slow
def test_a_local_model_writes_solutions_in_a_job_with_one_gpu(tmp_path, monkeypatch):
    """Whatever a run takes: it has one engine, and of the 64 threads for eight GPUs one GPU's share."""
    project, target = without_slurm(tmp_path, monkeypatch), "results/paper-qwen3-1.7b/solutions/solutions.parquet"
    said = project.snakemake(target, *PROFILE, "--retries=0", "--config", "scale=paper-qwen3-1.7b", ok=False)
    (call,) = (tmp_path / "sbatch.txt").read_text().splitlines()
    assert {"--gpus=1", "--cpus-per-task=8"} <= set(call.partition("--wrap=")[0].split()), said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resources", "expected", "absent"),
    [
        ("{threads: 64, gpus: 8}", "--nodes=1 --cpus-per-task=64 --gpus=8", "--ntasks --gres"),
        (
            "{threads: 64, gpus: 4, nodes: 3}",
            "--nodes=3 --ntasks=3 --cpus-per-task=64 --gpus=12 --gres=gpu:4",
            "--ntasks-per-gpu",
        ),
    ],
)
def test_what_a_run_asks_slurm_for(tmp_path, monkeypatch, resources, expected, absent):
    """More threads than this host has are asked for, too."""
    project = without_slurm(tmp_path, monkeypatch)
    for file in ("data/train.parquet", "data/validation/chain.parquet", "model/base0.json"):
        (tmp_path / "results/smoke" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results/smoke" / file).touch()
    said = project.snakemake(RUN, *PROFILE, "--retries=0", "--config", "scale=smoke", f"resources={resources}", ok=False)
    (call,) = (tmp_path / "sbatch.txt").read_text().splitlines()
    options, _, job = call.partition("--wrap=")
    assert set(expected.split()) | {"--signal=USR1@600", "--requeue"} <= set(options.split()), said
    assert not any(word in options for word in absent.split()) and "-t 1440 " in options and "--mem 4000 " in options
    assert "--cores 'all'" in job  # those of the node


@pytest.mark.slow
def test_a_job_does_not_open_the_database(tmp_path):
    """As the plugin starts it; the database stays the main process's, on the host that submits."""
    project = copy_project(tmp_path)
    (tmp_path / "results" / ".snakemake.db").write_text("no database at all")
    job = ("--mode", "remote", "--target-jobs", "data:", "--allowed-rules", "data", "--cores", "1", "--nolock", "--force")
    project.snakemake(*job, "--config", "scale=smoke")
    assert (tmp_path / "results/smoke/data/train.parquet").is_file()
    assert (tmp_path / "results" / ".snakemake.db").read_text() == "no database at all"
    project.snakemake("-n", "--config", "scale=smoke", ok=False)  # so the text above would have been noticed


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if slurm_cluster.missing() and ASKED and os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            slurm_cluster.install()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"Slurm could not be installed: {error}")
    if why := slurm_cluster.missing():
        pytest.skip(f"no Slurm: {why}; SDPG_SLURM=1 has the tests install it, as root")
    with slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def wait_until(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what()
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_slurm_queues_a_preempted_job_again_and_not_a_cancelled_one(cluster, tmp_path):
    """A stand-in for a run, below a shell, `tee` and srun as in a job of the workflow: it ends when it is started again."""
    body = "import time, pathlib, sys; from sdpg import cli; p = pathlib.Path(sys.argv[1]); again = p.exists(); p.touch(); "
    body += "cli.run(lambda: again or time.sleep(300)) if not again else None"
    states, numbers = lambda: {number: job["JobState"] for number, job in cluster.jobs().items()}, []
    for name in ("preempted", "cancelled"):
        started, log = tmp_path / name, tmp_path / f"{name}.log"
        command = shlex.join([sys.executable, "-c", body, str(started)])
        shell = f"{slurm.PREFIX}{command} 2>&1 | tee -i -a {log}"
        submitted = [
            "sbatch",
            "--parsable",
            "--requeue",
            "--partition=low",
            f"--output={tmp_path}/slurm-%j.out",
            f"--chdir={ROOT}",
        ]
        numbers.append(cluster.run(*submitted, "--wrap", f"srun -n1 bash -c {shlex.quote(shell)}").strip())
        wait_until(started.exists, lambda: cluster.logs())
    first, second = numbers
    time.sleep(1)  # from the file to the handler
    cluster.run("scancel", second)
    wait_until(lambda: states()[second] == "CANCELLED", states)
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path}/high.out", "--wrap", "sleep 1")
    wait_until(lambda: states()[first] == "COMPLETED", states)
    jobs = cluster.jobs()
    assert jobs[first]["Restarts"] == "1" and (tmp_path / "preempted.log").read_text().endswith("from what was saved\n")
    assert jobs[second]["JobState"] == "CANCELLED" and "queued again" not in (tmp_path / "cancelled.log").read_text()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with the data and the base model of scale smoke."""
    folder = copy_project(tmp_path_factory.mktemp("project")).folder
    for words in (["data"], ["base-model"]):
        subprocess.run([sys.executable, "-m", "sdpg", *words, "--scale", "smoke"], cwd=folder, check=True, capture_output=True)
    return folder


def snakemake(cluster, folder, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", *PROFILE, *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(run: subprocess.Popen, cluster) -> str:
    said, _ = run.communicate(timeout=500)
    assert run.returncode == 0, f"{said}\n{cluster.jobs()}"
    return said


@on_request
@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_preempted_run_ends_as_an_undisturbed_one(cluster, project, tmp_path, nodes):
    metrics = tmp_path / "preempted/results/smoke/.work/sdpg-ufkl/seed0/metrics.jsonl"
    config = ["train={steps: 100}", f"resources={{nodes: {nodes}}}"]
    for name in ("preempted", "undisturbed"):
        shutil.copytree(project, tmp_path / name)
        run = snakemake(cluster, tmp_path / name, RUN, "--config", "scale=smoke", *config)
        if name == "preempted":
            wait_until(lambda: metrics.exists() and len(read_rows(metrics)) >= 20, lambda: cluster.jobs())
            high = ["--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path}/high.out", "--wrap", "sleep 5"]
            cluster.run("sbatch", *high)
        assert "Error" not in finish(run, cluster)
        log = (tmp_path / name / "results/smoke/logs/train/sdpg-ufkl-seed0.log").read_text()
        assert ("going on after step" in log) == (name == "preempted")
        assert json.loads((tmp_path / name / RUN).read_text())["hardware"]["processes"] == nodes
    rows = [read_rows((tmp_path / name / RUN).with_name("metrics.jsonl")) for name in ("preempted", "undisturbed")]
    own = ("seconds", "tokens_per_second", "peak_memory")
    first, second = [[{key: row[key] for key in row if not key.startswith(own)} for row in some] for some in rows]
    assert len(first) == 100 and first == second


@on_request
@pytest.mark.slow
def test_everything_at_scale_smoke(cluster, tmp_path):
    project = copy_project(tmp_path)
    said = finish(snakemake(cluster, tmp_path, "smoke"), cluster)
    assert (tmp_path / "results/smoke/report.html").is_file() and "Trying to restart" not in said
    assert said.count("has been submitted with SLURM jobid") == 6  # a base model and its lm-eval, two runs, two evaluations
    assert project.sdpg("verify", "--scale", "smoke").returncode == 0
    assert "Nothing to be done" in project.snakemake("-n", "smoke")

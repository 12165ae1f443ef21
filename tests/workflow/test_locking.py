"""Two Snakemakes in one place, one that was killed, and what it left at work; and calls from another folder."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from sdpg import locks
from tests.workflow.conftest import copy_project

pytestmark = pytest.mark.slow
LONG = ("results/smoke/model/base0.json", "--config", "scale=smoke", "model={warm_start: {steps: 1000000}}")
TARGET = ("data", "--config", "scale=smoke")


@pytest.fixture
def project(tmp_path):
    return copy_project(tmp_path / "project")


def rows(project) -> int:
    with closing(sqlite3.connect(project.folder / "results/.snakemake.db")) as connection:
        return connection.execute("SELECT COUNT(*) FROM snakemake_locks").fetchone()[0]


def start(project, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command, cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def holder(project, job: str) -> locks.Holder:
    """Who works at a job, once somebody does."""
    path, end = project.folder / "results/smoke" / locks.FOLDER / job, time.monotonic() + 90
    while not (locks.is_held(path) and locks.holder_of(path)):
        assert time.monotonic() < end
        time.sleep(0.2)
    return locks.holder_of(path)


@pytest.mark.long
def test_a_second_call_is_told_and_a_killed_one_keeps_nobody_away(project):
    first = start(project, "snakemake", *LONG)
    try:
        orphan = holder(project, "base0")
        output = project.snakemake(*TARGET, ok=False)
        (line,) = [line for line in output.splitlines() if line.startswith("error")]
        assert line.startswith(f"error: workflow in results/smoke is held by process {first.pid} since ")
        assert "snakemake results/smoke/model/base0.json" in line and line.endswith("; wait until it has ended, or end it")
        assert "Traceback" not in output and "LockException" not in output
        assert f"workflow in results/smoke is held by process {first.pid}" in project.snakemake("-n", *TARGET)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert rows(project) > 0
    assert "1 of 1 steps (100%) done" in project.snakemake(*TARGET)  # the very next call goes on
    assert rows(project) == 0
    again = start(project, "sdpg", "base-model", "--scale", "smoke")
    try:  # what the killed one left at work has its place
        assert again.stderr.readline().startswith(f"base0 in results/smoke is held by process {orphan.pid} since ")
    finally:
        for process in (orphan.pid, again.pid):
            os.kill(process, signal.SIGKILL)
        again.wait()


def test_rows_of_nobody_known_are_removed_where_no_other_snakemake_can_be(project, tmp_path):
    project.snakemake("-n", *TARGET)
    where = str(project.folder / ".snakemake")
    train = "results/smoke/data/train.parquet"
    with closing(sqlite3.connect(project.folder / "results/.snakemake.db")) as connection, connection:
        connection.execute("INSERT INTO snakemake_locks VALUES (?, ?, 'output')", (where, train))
    if locks.is_shared(tmp_path):
        assert "it is not known who has it" in project.snakemake(*TARGET, ok=False)
    else:
        project.snakemake(*TARGET)
        assert rows(project) == 0


def test_a_database_that_cannot_be_used_is_one_line(project):
    (project.folder / "results/.snakemake.db").write_text("no database at all, but a text")
    output = project.snakemake("-n", *TARGET, ok=False)
    assert re.search(r"^error: results/.snakemake.db, .* cannot be used: file is not a database; ", output, re.MULTILINE)
    assert "Traceback" not in output


@pytest.mark.parametrize("way", [pytest.param("-s", marks=pytest.mark.long), "--directory"])
def test_from_elsewhere_results_lie_in_the_working_directory(project, tmp_path, way):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sdpg").mkdir(parents=True)  # another checkout, say: the code is that of the Snakefile
    (elsewhere / "sdpg" / "__init__.py").write_text("raise ImportError")
    (elsewhere / "mine.yaml").write_text("name: mine\nextends: smoke\n")
    called = {"-s": elsewhere, "--directory": project.folder}[way]
    words = {"-s": ["-s", str(project.folder / "Snakefile")], "--directory": ["--directory", str(elsewhere)]}[way]
    command = [sys.executable, "-P", "-m", "snakemake", *words]
    for target in (["data"], ["-n", "reproduce-all"]):
        done = subprocess.run([*command, *target, "--config", "scale=mine.yaml"], cwd=called, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "published_curves" in done.stdout + done.stderr  # planned, with the project's published numbers
    assert (elsewhere / "results/mine/data/train.parquet").is_file()
    assert not (project.folder / "results/mine").exists()


def test_published_numbers_are_found_from_elsewhere(tmp_path):
    code = "from sdpg.artefacts.declare import PUBLISHED_CURVES as p; print(p)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment).stdout
    assert Path(found.strip()).is_absolute() and Path(found.strip()).is_file()

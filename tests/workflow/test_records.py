"""Snakemake's records: that the pinned version writes them as sdpg/provenance/records.py reads them, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sdpg.io import ROOT, sha256
from sdpg.provenance.records import FORM, adopt_records, code_params, config_param, foreign_results, read_records
from sdpg.provenance.sources import fingerprint
from tests.workflow.conftest import copy_project

SNAKEFILE = """
from sdpg.provenance.records import code_params, config_param
rule made:
    input: "in.txt"
    output: "results/x/out.txt", "results/x/runs/grpo/seed0/run.json"
    log: "results/x/logs/made.log"
    params:
        "stage=made", *code_params(["sdpg/io.py"]),
        config=lambda wildcards: config_param({"b": 1, "a": {"c": [1, 2]}}),
        caption="code is not what this says",
    shell: "cp {input} {output[0]}; cp {input} {output[1]}"
"""
BACKEND = ("--persistence-backend", "db", "--persistence-backend-db-url", "sqlite:///results/.snakemake.db")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of one rule, which the pinned Snakemake has run."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "in.txt").write_text("content")
    (folder / "results").mkdir()
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *BACKEND]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_pinned_snakemake_writes_what_is_read(project):
    record = read_records(project / "results" / ".snakemake.db")["results/x/out.txt"]
    assert record.log == "results/x/logs/made.log"
    assert (record.rule, record.stage) == ("made", "made")
    assert record.inputs == {"in.txt": sha256(project / "in.txt")}
    assert record.code == [f"sdpg/io.py {fingerprint('sdpg/io.py')}"]
    assert record.config == {"a": {"c": [1, 2]}, "b": 1}


@pytest.mark.slow
def test_results_with_records_can_be_continued_and_others_not(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    database, root = Path("results/.snakemake.db"), Path("results/x")
    assert foreign_results(database, root) is None
    assert foreign_results(database, Path("results/none")) is None
    assert "without their records" in foreign_results(tmp_path / "none.db", root)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE snakemake_metadata SET params = replace(params, ?, 'record=1')", (FORM,))
    assert "made by an earlier version of the project" in foreign_results(database, root)


def test_equal_values_give_equal_params():
    assert config_param({"a": 1, "b": 2}) == config_param({"b": 2, "a": 1}) != config_param({"a": 1, "b": 3})
    assert code_params(["sdpg/io.py"]) == [FORM, f"code=sdpg/io.py {fingerprint('sdpg/io.py')}"]


def test_records_of_another_place_are_adopted_and_its_locks_dropped(tmp_path):
    database = tmp_path / "results" / ".snakemake.db"
    adopt_records(database, tmp_path)  # no database yet: only its folder is made
    assert database.parent.is_dir()
    here = str(tmp_path / ".snakemake")
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE snakemake_metadata (namespace TEXT, target TEXT, PRIMARY KEY (namespace, target))")
        connection.execute("CREATE TABLE snakemake_locks (namespace TEXT)")
        connection.executemany("INSERT INTO snakemake_metadata VALUES (?, ?)", [("/old", "a"), ("/old", "b"), (here, "b")])
        connection.executemany("INSERT INTO snakemake_locks VALUES (?)", [("/old",), (here,)])
    adopt_records(database, tmp_path)
    with sqlite3.connect(database) as connection:
        records = connection.execute("SELECT * FROM snakemake_metadata ORDER BY target").fetchall()
        locks = connection.execute("SELECT * FROM snakemake_locks").fetchall()
    assert records == [(here, "a"), (here, "b")]
    assert locks == [(here,)]


@pytest.mark.slow
def test_results_of_an_earlier_version_stop_a_dry_run_with_one_line(tmp_path):
    project = copy_project(tmp_path)
    run = tmp_path / "results" / "smoke" / "runs" / "grpo" / "seed0"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    output = project.snakemake("-n", "--config", "scale=smoke", ok=False)
    assert "the results in results/smoke are without their records" in output
    assert "Traceback" not in output
    assert (run / "run.json").read_text() == "{}"
    assert "with --touch" in output

"""Snakemake's records of the jobs that it ran (results/.snakemake.db), and the params by which they say what a job depends on.

The only file that knows Snakemake's tables; tests/workflow/test_records.py holds it against the pinned version. A job's
params are strings that begin with a word for what they are:

    record=2                             the form of these strings
    stage=train                          the stage of the workflow, or the artefact's name
    code=baselines/grpo.py 3f2a90c1d5e7  a source file and its fingerprint, one param for each
    config={"seeds": [0], ...}           the part of the config that the job depends on, as JSON
"""

from __future__ import annotations

import ast
import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sdpg.provenance.sources import fingerprints

FORM = "record=2"


class Record(NamedTuple):
    """What Snakemake recorded of the job that made a file; code: fingerprints; inputs: path -> SHA-256, None if unknown."""

    log: str
    rule: str
    stage: str
    inputs: dict[str, str | None]
    code: list[str]
    config: dict[str, Any]


def code_params(files: Iterable[str]) -> list[str]:
    """Return the params that make a job depend on the content of source files."""
    return [FORM, *(f"code={entry}" for entry in fingerprints(files))]


def config_param(value: Any) -> str:
    """Return the param that makes a job depend on a part of the config; equal values give equal text."""
    return f"config={json.dumps(value, sort_keys=True)}"


def read_records(database: Path) -> dict[str, Record]:
    """Return the record of every file that a finished job made. Raises ValueError if there is no database."""
    rows = _finished(database, "target, rule, input, log, params, input_checksums")
    return {target: _record(*rest) for target, *rest in rows}


class Time(NamedTuple):
    """When the job that made a file ran: its log, by which the files of one job are known, and seconds since 1970 (UTC)."""

    log: str
    rule: str
    start: float
    end: float


def read_times(database: Path) -> dict[str, Time]:
    """Return of every file that a finished job made when that job ran. Raises ValueError if there is no database."""
    rows = _finished(database, "target, log, rule, starttime, endtime")
    return {
        target: Time((json.loads(log or "[]") or [rule])[0], rule, *times) for target, log, rule, *times in rows if all(times)
    }


def _finished(database: Path, columns: str) -> list[tuple]:
    """Return columns of Snakemake's records, a row for each file that a finished job made."""
    if not database.is_file():
        raise ValueError(f"{database} is missing: Snakemake's records of what it ran; run `snakemake reproduce-all`")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(f"SELECT {columns} FROM snakemake_metadata WHERE NOT incomplete").fetchall()


def _record(rule: str, inputs: str, log: str, params: str, checksums: str) -> Record:
    hashes = json.loads(checksums or "{}")
    values = [ast.literal_eval(text) for text in json.loads(params or "[]")]
    texts = [str(text) for value in values for text in (value if isinstance(value, list) else [value])]
    said = {
        word: [text.partition("=")[2] for text in texts if text.startswith(f"{word}=")] for word in ("stage", "code", "config")
    }
    logs = json.loads(log or "[]")
    return Record(
        log=logs[0] if logs else rule,
        rule=rule,
        stage=said["stage"][0] if said["stage"] else rule,
        inputs={path: hashes.get(path, "").removeprefix("sha256:") or None for path in json.loads(inputs or "[]")},
        code=sorted(said["code"]),
        config=json.loads(said["config"][0]) if said["config"] else {},
    )


def adopt_records(database: Path, workdir: Path) -> None:
    """Make Snakemake's records of earlier runs valid here after the results were copied or moved.

    The records lie inside results/, so that they travel with it, but Snakemake files them under the absolute path of
    the project's .snakemake folder. All records in this database belong to this project: they get its present path.
    """
    if not database.is_file():
        database.parent.mkdir(parents=True, exist_ok=True)
        return
    here = (str(workdir.absolute() / ".snakemake"),)
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        tables = _tables(connection)
        if "snakemake_metadata" in tables:
            foreign = connection.execute("SELECT 1 FROM snakemake_metadata WHERE namespace != ? LIMIT 1", here)
            if foreign.fetchone():
                connection.execute("UPDATE OR REPLACE snakemake_metadata SET namespace = ?", here)
        if "snakemake_locks" in tables:  # a lock held elsewhere when the copy was made says nothing about this place
            connection.execute("DELETE FROM snakemake_locks WHERE namespace != ?", here)


def check_database(database: Path) -> None:
    """Raise ValueError unless Snakemake can write its records."""
    if not os.path.lexists(database):
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        raise ValueError(
            f"{database}, Snakemake's records of what it ran, cannot be used: {error}; make it writable, or put a copy of it "
            "back; without one, delete it and run the same command with --touch to keep the results as if made now"
        ) from error


def foreign_results(database: Path, root: Path) -> str | None:
    """Return why the results in `root` cannot be continued by this version of the project, None if they can.

    They cannot if their records have another form, or if runs lie there without any record: Snakemake would take them for
    its own without knowing what made them.
    """
    if not any(root.glob("runs/*/*/run.json")):
        return None
    total = known = 0
    if database.is_file():
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            if "snakemake_metadata" in _tables(connection):
                query = "SELECT COUNT(*), COALESCE(SUM(params LIKE ?), 0) FROM snakemake_metadata WHERE target GLOB ?"
                total, known = connection.execute(query, (f"%{FORM}%", f"{root.as_posix()}/*")).fetchone()
    if total and known:
        return None
    why = "made by an earlier version of the project" if total else f"without their records ({database})"
    return (
        f"the results in {root} are {why}, so that it is not known what they depend on; nothing was changed. Keep them as if "
        f"made now (the same command with --touch), move them away (`mv {root} {root}-old`; `sdpg make report --results "
        f"{root}-old` still reads them), or give the scale another name"
    )


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

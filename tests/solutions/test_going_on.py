"""Worked solutions that are stopped, killed or asked for anew: nothing that was paid for is lost, or asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpg.config import resolve
from sdpg.experiment import solutions
from tests.solutions.scripted import KEY, asked_of, endpoint, make, refusal, says, scale_of, solved, write_scale

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, path: Path, *more: str) -> subprocess.Popen:
    environment = {**os.environ, "TEST_KEY": KEY, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "sdpg", "solutions", "--scale", str(path), *more]
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


STOPS = [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGTERM))]


@pytest.mark.parametrize("number", STOPS, ids=str)
def test_a_run_that_is_killed_goes_on_and_asks_nothing_twice(tmp_path, number):
    slow = {4: 30.0 if number == signal.SIGKILL else 1.5}

    def script(n, question):
        reply = solved(question)
        reply.after = slow.pop(n, 0.0)
        return reply

    with endpoint(script) as server:
        path = write_scale(tmp_path, asked_of(server, timeout=60), problems=8)
        process = command(tmp_path, path)
        wait_for(lambda: len(server.asked) == 5)
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
        kept = tmp_path / "results" / "mine" / "solutions"
        answered = sum('"answered"' in line for line in (kept / "journal.jsonl").read_text().splitlines())
        assert not (kept / "solutions.parquet").exists() and KEY not in said
        if number == signal.SIGKILL:  # the request on its way is lost, and counted
            assert answered == 4 and process.returncode == -signal.SIGKILL
        else:  # and is waited for where that can be
            assert answered == 5 and process.returncode == 130, said
            assert "stopped, problems not done: 3; every answer is kept" in said
        said = solutions.make_solutions(resolve(path), tmp_path / "results" / "mine")
        assert "8 of 8 problems" in said and "cost" in said
        lost = number == signal.SIGKILL
        assert len(server.asked) == 8 + lost
        assert sorted(map(server.asked.count, {*server.asked})) == [1] * (8 - lost) + [2] * lost
        report = json.loads((kept / "report.json").read_text())
        assert report["without_answer"] == lost and report["accepted"] == 8
        before = (kept / "solutions.parquet").read_bytes()
        solutions.make_solutions(resolve(path), tmp_path / "results" / "mine")
        assert len(server.asked) == 8 + lost and (kept / "solutions.parquet").read_bytes() == before


def test_a_half_written_line_is_asked_again_and_a_broken_one_is_named(tmp_path):
    with endpoint() as server:
        make(tmp_path, asked_of(server))
        file = tmp_path / "out" / "solutions" / "journal.jsonl"
        whole = file.read_bytes()
        file.write_bytes(whole[:-40])
        _, report, table = make(tmp_path, asked_of(server))
        assert len(server.asked) == 5 and len(table) == 4 and report["without_answer"] == 1
        lines = whole.splitlines(keepends=True)
        for broken in (
            b"{half\n",
            b"[1]\n",
            b'{"event": "paid", "request": "x"}\n',
            b'{"event": "answered", "request": "x"}\n',
            b"\xff\n",
        ):
            file.write_bytes(lines[0] + broken + b"".join(lines[1:]))
            said = refusal(tmp_path, asked_of(server))
            assert "journal.jsonl, line 2 is no line of this journal" in said and "take that line out" in said
        assert len(server.asked) == 5


def test_other_settings_ask_anew_and_the_first_ones_find_their_answers_again(tmp_path):
    with endpoint(lambda number, question: says("\\boxed{0}")) as server:
        make(tmp_path, asked_of(server, tries=1))
        make(tmp_path, asked_of(server, tries=2, max_cost=99, requests_per_minute=99999))
        assert len(server.asked) == 8  # the second try alone
        make(tmp_path, asked_of(server, tries=1, temperature=0.5))
        assert len(server.asked) == 12
        make(tmp_path, asked_of(server, tries=2))
        assert len(server.asked) == 12


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with endpoint() as server:
        config = scale_of(tmp_path, asked_of(server))
        monkeypatch.setattr("sdpg.solutions.journal.os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*journal\.jsonl"):
            solutions.make_solutions(config, tmp_path / "out")
    assert not server.asked

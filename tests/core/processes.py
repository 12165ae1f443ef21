"""Runs a job of tests/core/jobs.py in one process, or in several that are joined by gloo as torchrun would join them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 240  # of a whole job; a deadlock lasts longer


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Processes:
    """The processes of one job, which read `arguments` (JSON) and whose output is kept in `folder`."""

    def __init__(self, job: str, count: int, folder: Path, arguments: dict | None = None, *, nodes: int = 1):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.started = folder, time.monotonic()
        common = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count // nodes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        command = [sys.executable, "-m", "tests.core.jobs", job, json.dumps(arguments or {}), str(folder)]
        self.children = []
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank % (count // nodes))}
            with (folder / f"log{rank}.txt").open("w") as log:
                self.children.append(
                    subprocess.Popen(command, env={**common, **place}, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
                )

    def send(self, number: signal.Signals) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        for child in self.children:
            child.wait()

    def wait(self, seconds: float = SECONDS) -> list[int]:
        """Return the exit codes; AssertionError with what each printed last if they do not end in time."""
        try:
            while any(child.poll() is None for child in self.children):
                failed = [child for child in self.children if child.poll() not in (None, 0)]
                if failed:  # the others would wait for it: a moment to end by themselves, as under torchrun
                    self._end(5)
                assert time.monotonic() - self.started < seconds, f"a deadlock? {self.logs()}"
                time.sleep(0.05)
        finally:
            self.kill()
        return [child.returncode for child in self.children]

    def _end(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(child.poll() is None for child in self.children):
            time.sleep(0.05)
        self.kill()

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}: {p.read_text()[-3000:]}" for p in sorted(self.folder.glob("log*.txt")))


def run(job: str, count: int, folder: Path, arguments: dict | None = None, *, nodes: int = 1) -> dict:
    """Run a job to its end -> what its first process returned."""
    processes = Processes(job, count, folder, arguments, nodes=nodes)
    codes = processes.wait()
    assert codes == [0] * count, processes.logs()
    return json.loads((folder / "result.json").read_text())

"""Processes that take turns: one side starts workers and asks them, the other answers. Standard library only.

A worker runs in any Python environment, is asked by one JSON line on its standard input and answers by one JSON line, so that
ours and a peer's alternate call by call although they live in different environments. An answer {"error": text} is the
worker's own plain refusal ("needs CUDA").
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers"
QUIET = {"TOKENIZERS_PARALLELISM": "false", "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # no helpers beside the timing
TAIL = 2000  # characters of a broken worker's output that its error shows


def peer_python() -> Path:
    """The Python of the peers' environment; ValueError if `make bench` has not made it."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        raise ValueError(f"{python} is missing: the peers are not installed; run `make peers` (`make bench` does)")
    return python


class Worker:
    """A module of the project (its file as text), or any script (a Path), as a process; `ready` is its first line."""

    def __init__(
        self,
        python: str | Path,
        script: str | Path,
        arguments: list[str],
        *,
        threads: int,
        variables: dict[str, str] | None = None,
    ):
        """Start it. threads: of OpenMP and MKL; variables: more of its environment."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads)) | QUIET | {"PYTHONPATH": str(ROOT)} | (variables or {})
        run = [str(script)] if isinstance(script, Path) else ["-m", script.removesuffix(".py").replace("/", ".")]
        self.script = str(script)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the worker)
        self._process = subprocess.Popen(
            [str(python), *run, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._ready: dict | None = None

    @property
    def ready(self) -> dict:
        """Wait for its first line, once, and return it."""
        if self._ready is None:
            self._ready = self._read()
        return self._ready

    def ask(self, **request) -> dict:
        """Send one request and wait for its answer."""
        self.send(**request)
        return self.answer()

    def send(self, **request) -> None:
        """Send one request."""
        assert self.ready
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict:
        """Wait for the answer to the last request."""
        return self._read()

    def close(self) -> None:
        """End the worker and wait for it."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._log.seek(0)
        text = self._log.read()[-TAIL:]
        raise RuntimeError(f"{self.script} ended with exit status {code} before it answered; its output ends:\n{text}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Channel:
    """The worker's side: everything else that is printed goes to standard error."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, **answer) -> None:
        """One answer."""
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()

    def request(self) -> dict | None:
        """The next request; None when there are no more."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def requests(self) -> Iterator[dict]:
        """All requests until the other side closes."""
        while (request := self.request()) is not None:
            yield request


class Group:
    """Workers that do one thing together: the processes of one run, joined as torchrun would join them."""

    def __init__(self, count: int, script: str, arguments: list[str], *, threads: int):
        """Start them in this environment. threads: of each."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        together = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        places = [together | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
        variables = [{key: str(value) for key, value in place.items()} for place in places]
        self.workers = [Worker(sys.executable, script, arguments, threads=threads, variables=own) for own in variables]

    def ask(self, **request) -> dict:
        """Send all the same request -> the first one's answer, once all have answered."""
        for worker in self.workers:
            worker.send(**request)
        return [worker.answer() for worker in self.workers][0]

    def close(self) -> None:
        """End all."""
        for worker in self.workers:
            worker.close()


def take_turns(workers: dict, repeats: int, **request) -> dict[str, list[dict]]:
    """Ask every worker `repeats` times, in turns, another one first each time -> the answers by name."""
    names = list(workers)
    answers = {name: [] for name in names}
    for i in range(repeats):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            answers[name].append(workers[name].ask(**request))
    return answers

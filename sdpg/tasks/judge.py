"""Judging model text with libraries that can hang or crash, in a separate process with a real time limit.

math-verify's own time limit uses signals, which work in a main thread only and cannot interrupt a long computation in C.
Here the library runs in a child process (`sdpg.tasks.judge_worker`); a request that takes too long ends the child, and the
next request starts another. Requests and replies are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

START_SECONDS = 120.0  # imports of sympy and reasoning-gym on a cold, busy machine
JUDGE_SECONDS = 5.0  # per response; math-verify's own default


class JudgeError(RuntimeError):
    """The judge could not come to a verdict: it raised, ran out of time or memory, or died."""


class Judge:
    """One child process, started at the first request. Safe to use from several threads; a fork starts its own child.

    kind: the verifier's name. seconds: the time limit of one request.
    """

    def __init__(self, kind: str, seconds: float = JUDGE_SECONDS):
        self.kind, self.seconds = kind, seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen | None = None
        self._owner = os.getpid()
        self._finalizer = None

    def ask(self, **fields: str) -> bool:
        """Return the verdict on one response; the fields are the arguments of the verifier's `judge`. Raises JudgeError."""
        request = json.dumps(fields).encode() + b"\n"
        with self._lock:
            if self._owner != os.getpid():  # a fork shares the parent's pipe: leave that child to the parent
                self._child, self._owner = None, os.getpid()
            if self._child is None:
                self._start()
            try:
                self._child.stdin.write(request)
                reply = self._read(self.seconds)
            except BaseException as error:  # also Ctrl-C: a late reply must not be taken for the next one's
                self._stop()
                if isinstance(error, (OSError, JudgeError)):
                    raise JudgeError(f"{self.kind}: {error}") from error
                raise
        if "error" in reply:
            raise JudgeError(f"{self.kind}: {reply['error']}")
        return bool(reply["correct"])

    def close(self) -> None:
        """End the child process, if there is one."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        quiet = {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-c", f"from sdpg.tasks.judge_worker import main; main({self.kind!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # Ctrl-C is for the trainer, which then closes this child
        )
        self._finalizer = weakref.finalize(self, _end, self._child)
        try:
            self._read(START_SECONDS)
        except JudgeError as error:
            self._stop()
            raise RuntimeError(f"the judging process of {self.kind} did not start: {error}") from error

    def _read(self, seconds: float) -> dict:
        """Return one line of JSON from the child, within `seconds`."""
        end = time.monotonic() + seconds
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise JudgeError(f"no verdict within {seconds:g} s")
                chunk = os.read(self._child.stdout.fileno(), 65536)
                if not chunk:
                    raise JudgeError("the judging process died")
                line += chunk
        return json.loads(line)

    def _stop(self) -> None:
        if self._child is not None:
            self._finalizer()
            self._child = None


def _end(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()

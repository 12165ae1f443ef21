"""Judging model text with libraries that can hang or crash, in separate processes with a real time limit.

math-verify's own time limit uses signals, which work in a main thread only and cannot interrupt a long computation in C.
Here the library runs in child processes (`sdpg.tasks.judge_worker`), several side by side where there is much to judge. The
limit is processor time of the one request: an ordinary answer gets its verdict however busy the machine is, and a request that
takes too long costs itself and a fork of the child. Requests and replies are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

START_SECONDS = 120.0  # imports of sympy and reasoning-gym on a cold, busy machine
JUDGE_SECONDS = 1.0  # of processor time per response; an ordinary one takes a hundredth
STUCK_SECONDS = 120.0  # after which a child that spends no processor time either is given up
MOST = 8  # children of one process
GROW_SECONDS = 0.5  # as long must requests have waited before another child is started, which takes about as much

Item, Result = TypeVar("Item"), TypeVar("Result")


class Unjudged(ValueError):
    """A verifier cannot say whether an answer is right. The message, the reason, is without the answer: it is counted."""


class JudgeError(RuntimeError):
    """The judge could not come to a verdict: it raised, ran out of time or memory, or died."""


class JudgeLost(JudgeError):
    """The judging process died or hung; another try may come to a verdict."""


def side_by_side() -> int:
    """Return how many children one process may have: the machine's cores shared out over its processes, from 1 to MOST."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's, on this machine
    return max(1, min(MOST, len(os.sched_getaffinity(0)) // processes))


class Judges:
    """Up to `most` child processes that judge side by side; one more is started when requests have waited for GROW_SECONDS.

    kind: the verifier's name. seconds: the limit of one request, processor time. most: None for `side_by_side`. Safe to use
    from several threads; a fork starts its own children.
    """

    def __init__(self, kind: str, seconds: float = JUDGE_SECONDS, most: int | None = None):
        self.kind, self.seconds, self.most = kind, seconds, side_by_side() if most is None else most
        self._begin()
        _everyone.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()  # guards what follows
        self._children: list[_Child] = []
        self._free: list[_Child] = []  # the last one used comes last
        self._waiting = 0  # requests without a child
        self._since = math.inf  # since when there are some; at first nobody is impatient before a child has judged
        self._closed = 0  # times

    def ask(self, **fields: str) -> bool:
        """Return the verdict on one response; the fields are the arguments of the verifier's `judge`. Raises JudgeError, and
        RuntimeError if a child does not start, or `close` is called meanwhile.
        """
        child = self._take()
        try:
            reply = child.ask(fields, self.seconds)
        except (OSError, JudgeError) as error:
            if child.closed:
                raise self._closing() from error
            raise JudgeLost(f"{self.kind}: {error}") from error
        finally:
            self._give(child)
        if "late" in reply:
            raise JudgeError(f"{self.kind}: no verdict within {self.seconds:g} s")
        if "error" in reply:
            raise JudgeError(f"{self.kind}: {reply['error']}")
        return bool(reply["correct"])

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return function(item) of all items, in their order, for a function that asks; `most` of them run at once.

        Items are drawn in this thread. An error, or Ctrl-C, ends the children and leaves out what was not judged yet.
        """
        if self.most == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(self.most, "judge") as threads:
            try:
                futures = [threads.submit(function, item) for item in items]
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise

    def close(self) -> None:
        """End the child processes, also those that are judging. The next request starts another one."""
        with self._changed:
            self._closed += 1
            for child in self._children:
                child.close()
            for child in self._free:
                child.end()
                self._children.remove(child)
            self._free.clear()
            self._changed.notify_all()

    def _take(self) -> _Child:
        """Return a child that is free, or a new one, or the first that becomes free."""
        with self._changed:
            closed = self._closed
            if not self._waiting and self._since < math.inf:
                self._since = time.monotonic()
            self._waiting += 1
            for child in [child for child in self._free if child.process.poll() is not None]:  # killed by somebody else
                child.end()
                self._free.remove(child)
                self._children.remove(child)
            try:
                while not self._free:
                    if self._closed != closed:
                        raise self._closing()
                    room = len(self._children) < self.most
                    patience = self._since + GROW_SECONDS - time.monotonic() if self._children else 0.0
                    if room and patience <= 0:
                        self._children.append(_Child(self.kind))
                        return self._children[-1]
                    self._changed.wait(patience if room and patience < math.inf else None)
                return self._free.pop()
            finally:
                self._waiting -= 1

    def _give(self, child: _Child) -> None:
        with self._changed:
            if child.ended:
                self._children.remove(child)
            else:
                self._free.append(child)
            self._since = min(self._since, time.monotonic())
            self._changed.notify_all()

    def _closing(self) -> RuntimeError:
        return RuntimeError(f"{self.kind}: the judges were closed before a response was judged; judge it again")

    def _leave(self) -> None:
        """Leave the children to the process that this one was forked from, whose pipes they read and write."""
        for child in self._children:
            child.leave()
        self._begin()


class _Child:
    """One child process with its fork, started with the object; for one thread at a time. No reply ends both."""

    def __init__(self, kind: str):
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        quiet = {
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "ignore",
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.kind, self.ready, self.ended, self.closed = kind, False, False, False
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from sdpg.tasks.judge_worker import main; main({kind!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # Ctrl-C is for the trainer, which then ends this child
        )
        self._finalizer = weakref.finalize(self, _end, self.process)

    def ask(self, fields: dict[str, str], seconds: float) -> dict:
        """Return the reply to one request. Raises JudgeError, OSError, and RuntimeError if the child does not start."""
        try:
            if not self.ready:
                self._start()
            self.process.stdin.write(json.dumps({"seconds": seconds, "fields": fields}).encode() + b"\n")
            return self._read(STUCK_SECONDS + 20 * seconds)
        except BaseException:  # also Ctrl-C: a late reply must not be taken for the next one's
            self.end()
            raise

    def close(self) -> None:
        """Kill the process, also from another thread than the one that asks, which then finds it dead."""
        self.closed = True
        _kill(self.process)

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self.ended = True
        self._finalizer()

    def leave(self) -> None:
        """Forget the process: it is another one's child."""
        self._finalizer.detach()
        self.process.returncode = 0  # nothing to wait for

    def _start(self) -> None:
        try:
            self._read(START_SECONDS)
        except JudgeError as error:
            raise RuntimeError(f"the judging process of {self.kind} did not start: {error}") from error
        self.ready = True

    def _read(self, seconds: float) -> dict:
        """Return one line of JSON from the child, within `seconds`."""
        end = time.monotonic() + seconds
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise JudgeError(f"no reply within {seconds:g} s")
                chunk = os.read(self.process.stdout.fileno(), 65536)
                if not chunk:
                    raise JudgeError("the judging process died")
                line += chunk
        return json.loads(line)


def _kill(process: subprocess.Popen) -> None:
    """Kill a child and its fork, which is of its session."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen) -> None:
    _kill(process)
    process.wait()
    process.stdin.close()
    process.stdout.close()


_everyone: weakref.WeakSet[Judges] = weakref.WeakSet()


def _leave_all() -> None:
    for judges in _everyone:
        judges._leave()


os.register_at_fork(after_in_child=_leave_all)

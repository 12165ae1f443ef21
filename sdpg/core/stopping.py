"""Asking a run to stop, by Ctrl-C, SIGTERM or SIGUSR1 (Slurm's, ahead of the end): at the next safe point of all processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sdpg.core import distributed

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """All processes give up the unfinished step, with the weights of the last one."""


class _Now(BaseException):
    """Leaves sampling at once."""


class Stopper:
    """Knows whether this process was asked to stop. A second Ctrl-C ends it at once."""

    def __init__(self, *, leave_sampling: bool = True):
        """leave_sampling: a signal may end sampling. Not so where processes sample together, and wait for each other."""
        self.leave_sampling, self.asked, self._sampling = leave_sampling, False, False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of dying of them; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        if self._sampling:
            self._sampling = False
            raise _Now

    def sample(self, generate: Callable[[], T]) -> T | None:
        """Return what `generate` does; None if a signal came before or meanwhile: the next `check` raises.

        Where processes sample together, one that was asked before it began samples all the same: the others wait for it.
        """
        try:
            try:
                self._sampling = self.leave_sampling
                return None if self.asked and self.leave_sampling else generate()
            finally:
                self._sampling = False
        except _Now:
            return None

    def check(self) -> None:
        """Raise Stopped in all processes if any was asked to stop. Collective."""
        if distributed.agree(self.asked):
            raise Stopped

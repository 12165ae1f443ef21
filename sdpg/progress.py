"""Progress of long work: a bar where stderr is a terminal, elsewhere (a log, a pipe) one line every ten seconds."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY = 10.0  # seconds


class Interrupted(Exception):
    """Long work was asked to stop, and did after saving its state."""


class Progress:
    """Counts `total` units of work. Use as a context manager, or call `close`."""

    def __init__(self, total: int, title: str, unit: str, *, done: int = 0):
        """Start at `done`, the units that an earlier process did; they do not count for the rate."""
        self.total, self.title, self.unit, self.done, self.before = total, title, unit, done, done
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=title, unit=unit, dynamic_ncols=True)
        self.started = time.perf_counter()
        self.last_line = self.started

    def update(self, n: int, facts: str) -> None:
        """Count `n` more units; `facts` says what is worth watching ("reward 0.4, accuracy 0.4")."""
        self.done += n
        if self.bar is not None:
            self.bar.set_postfix_str(facts, refresh=False)
            self.bar.update(n)
            return
        now = time.perf_counter()
        if now - self.last_line < LINE_EVERY and self.done < self.total:
            return
        rate = (self.done - self.before) / max(now - self.started, 1e-9)
        eta = (self.total - self.done) / rate
        line = f"{self.title}: {self.unit} {self.done}/{self.total}, {rate:.3g}/s, ETA {eta:.0f} s, {facts}"
        print(line, file=sys.stderr, flush=True)
        self.last_line = now

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

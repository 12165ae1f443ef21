"""What a run leaves to read: metrics.jsonl, what its trackers keep, and its progress on stderr."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from sdpg.core.trackers import Trackers, Tracking
from sdpg.io import write_atomic
from sdpg.progress import Progress


class Recorder:
    """Appends one JSON row per step; a row is flushed before the next step starts."""

    def __init__(self, folder: Path, *, steps: int, done: int, title: str, tracking: Tracking):
        """Open the files in `folder`; rows after step `done` (left by a killed run) are dropped. title: shown in the bar.

        tracking: where the rows go beside metrics.jsonl.
        """
        self.path = folder / "metrics.jsonl"
        before = read_rows(self.path) if self.path.exists() else []
        rows = [row for row in before if row["step"] <= done]
        if [row["step"] for row in rows] != list(range(1, done + 1)):
            raise ValueError(f"{self.path}: expected rows for steps 1..{done}, got {len(rows)}; delete {folder} to restart")
        with write_atomic(self.path) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self.file = self.path.open("a", encoding="utf-8")
        self.trackers = Trackers(tracking, folder, before, done=done, title=title) if done < steps else None
        self.progress = Progress(steps, title, "step", done=done)

    def write(self, row: dict) -> None:
        """Record one step."""
        try:
            self.file.write(json.dumps(row, allow_nan=False) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(f"could not write {self.path}: {error}") from error
        if self.trackers:
            self.trackers.log(row)
        shown = (("reward {:.3f}", "reward"), ("accuracy {:.3f}", "accuracy"), ("{:.0f} tokens/s", "tokens_per_second"))
        self.progress.update(1, ", ".join(text.format(row[key]) for text, key in shown if row[key] is not None))

    def close(self) -> None:
        """Flush and close everything."""
        self.progress.close()
        self.file.close()
        if self.trackers:
            self.trackers.close()


def read_rows(path: Path) -> list[dict]:
    """Return rows of a metrics.jsonl; a last line that was cut off by a kill is left out, any other broken line is a
    ValueError.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for i, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if i + 1 == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}, line {i + 1}: not valid JSON ({error}); delete the run's folder to restart") from error
    return rows


class Clock:
    """Seconds by phase of a step; on a GPU a phase ends when its kernels have."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str):
        start = self._now()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

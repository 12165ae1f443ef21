"""What a run leaves to read: metrics.jsonl, TensorBoard events, and its progress on stderr."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from sdpg.io import naming, write_atomic
from sdpg.progress import Progress


class Recorder:
    """Appends one JSON row per step; a row is flushed before the next step starts."""

    def __init__(self, folder: Path, *, steps: int, done: int, title: str):
        """Open the files in `folder`; rows after step `done` (left by a killed run) are dropped. title: shown in the bar."""
        from torch.utils.tensorboard import SummaryWriter  # here: steps that nobody records do without TensorBoard

        self.path = folder / "metrics.jsonl"
        rows = [row for row in read_rows(self.path) if row["step"] <= done] if self.path.exists() else []
        if [row["step"] for row in rows] != list(range(1, done + 1)):
            raise ValueError(f"{self.path}: expected rows for steps 1..{done}, got {len(rows)}; delete {folder} to restart")
        with write_atomic(self.path) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self.file = self.path.open("a", encoding="utf-8")
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self.progress = Progress(steps, title, "step", done=done)

    def write(self, row: dict) -> None:
        """Record one step."""
        try:
            self.file.write(json.dumps(row, allow_nan=False) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(f"could not write {self.path}: {error}") from error
        with naming(self.path.with_name("tensorboard")):
            for key, value in row.items():
                if key != "step" and isinstance(value, (int, float)):
                    self.tensorboard.add_scalar(key, value, row["step"])
        shown = (("reward {:.3f}", "reward"), ("accuracy {:.3f}", "accuracy"), ("{:.0f} tokens/s", "tokens_per_second"))
        self.progress.update(1, ", ".join(text.format(row[key]) for text, key in shown if row[key] is not None))

    def close(self) -> None:
        """Flush and close everything."""
        self.progress.close()
        self.file.close()
        with naming(self.path.with_name("tensorboard")):
            self.tensorboard.close()


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

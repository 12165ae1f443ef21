"""Where a run's metrics go beside metrics.jsonl: TensorBoard, trackio, W&B, as the scale's `track` says.

Nothing here changes a result: a tracker that fails is told of once and left out, and the training goes on. trackio and W&B are
the user's own packages, used offline unless the user's environment says otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from sdpg.io import read_json, write_json
from sdpg.redact import redacted

FILE = "tracking.json"  # in a run that is not finished: its id, and the rows that each tracker has


class Tracker(Protocol):
    """Takes a run's rows in the order of their steps."""

    def log(self, row: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Tracking:
    """What a run is tracked by and as. names: of TRACKERS; group: the runs that differ from it in their seed alone."""

    names: tuple[str, ...] = ("tensorboard",)
    project: str = "sdpg"
    group: str = "run"
    name: str = "run"
    config: Mapping[str, Any] = field(default_factory=dict)


class TensorBoard:
    """Events in the run's folder."""

    def __init__(self, about: Tracking, folder: Path, id: str, had: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=had + 1)

    def log(self, row: Mapping[str, float], step: int) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class Trackio:
    """A project of trackio, in its own folder on this machine unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""

    def __init__(self, about: Tracking, folder: Path, id: str, had: int):
        import trackio

        with _unheard():  # the address of its dashboard may carry a key
            self.run = trackio.init(
                project=about.project,
                name=f"{about.name}-{id}",
                group=about.group,
                config=dict(about.config),
                resume="allow",
                private=True,
            )

    def log(self, row: Mapping[str, float], step: int) -> None:
        self.run.log(dict(row), step=step)

    def close(self) -> None:
        with _unheard():
            self.run.finish()


class Wandb:
    """A run of W&B, in the run's folder `wandb` until `wandb sync` uploads it, or as WANDB_MODE says."""

    def __init__(self, about: Tracking, folder: Path, id: str, had: int):
        import wandb

        mode = os.environ.get("WANDB_MODE") or "offline"
        self.run = wandb.init(
            project=about.project,
            name=about.name,
            group=about.group,
            id=f"{about.name[:100]}-{id}",  # of at most 128 characters
            config=dict(about.config),
            dir=str(folder),
            mode=mode,
            resume=None if mode == "offline" else "allow",  # offline the id alone says it
            settings=wandb.Settings(silent=True, console="off", save_code=False, login_timeout=30),
        )

    def log(self, row: Mapping[str, float], step: int) -> None:
        self.run.log(dict(row), step=step)

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Tracking, Path, str, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}
REWINDS = {"tensorboard"}  # a row that a resumed run makes again takes the place of the first; the others would have it twice


def check_trackers(names: Iterable[str]) -> None:
    """Raise ValueError, saying what to install, for a tracker whose package is not there."""
    for name in names:
        spec = None if sys.modules.get(name, True) is None else importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # the latter: a folder of that name, where the command is called
            raise ValueError(
                f"track: the package {name} is not installed; add it to the environment (.venv/bin/uv pip install -c "
                f"requirements/cpu.lock {name}; see docs/sharing.md), or take {name} out of `track`"
            )


class Trackers:
    """The trackers of one run. Every error of theirs is told once, and is the end of that tracker alone."""

    def __init__(self, about: Tracking, folder: Path, rows: list[dict], *, done: int, title: str):
        """Open them; a run that goes on is the same run in each, and each gets what it lacks of the first `done` steps.

        rows: all that metrics.jsonl had, which may go beyond step `done`. title: of the run, in messages.
        """
        self.path, self.title = folder / FILE, title
        known = self._read()
        self.id = known.get("id") or uuid.uuid4().hex[:8]
        self.had: dict[str, int] = {}  # by tracker: the last step that it has
        self.open: dict[str, Tracker] = {}
        last = max((row["step"] for row in rows), default=0)
        for name in about.names:
            entry = known.get("trackers", {}).get(name, {"had": 0, "open": False})
            had = max(entry["had"], last) if entry["open"] else entry["had"]
            self.had[name] = min(had, done) if name in REWINDS else had
            with self._guarded(name, done + 1):
                self.open[name] = TRACKERS[name](about, folder, self.id, self.had[name])
        for row in rows[:done]:
            self.log(row)
        self._write()

    def log(self, row: Mapping[str, Any]) -> None:
        """Give a row to every tracker that does not have it; what is no number is left out."""
        step = row["step"]
        numbers = {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
        for name, tracker in list(self.open.items()):
            if step > self.had[name]:
                with self._guarded(name, step):
                    tracker.log(numbers, step)
                    self.had[name] = step

    def close(self) -> None:
        """Close them."""
        for name, tracker in list(self.open.items()):
            with self._guarded(name, self.had[name] + 1):
                tracker.close()

    @contextmanager
    def _guarded(self, name: str, step: int):
        try:
            yield
        except Exception as error:  # whatever another package raises
            self.open.pop(name, None)
            reason = redacted(f"{type(error).__name__}: {error}")
            print(
                f"{self.title}: {name} failed and is left out from step {step} on ({reason}); training goes on, and "
                "metrics.jsonl has every row",
                file=sys.stderr,
                flush=True,
            )
            self._write()

    def _read(self) -> dict[str, Any]:
        try:
            known = read_json(self.path)
            return known if isinstance(known["id"], str) and isinstance(known["trackers"], dict) else {}
        except (OSError, ValueError, KeyError, TypeError):  # none, or of a run that was not tracked
            return {}

    def _write(self) -> None:
        state = {name: {"had": had, "open": name in self.open} for name, had in self.had.items()}
        with suppress(OSError):
            write_json(self.path, {"id": self.id, "trackers": state})


@contextmanager
def _unheard():
    """Leave out what is printed."""
    before, sys.stdout = sys.stdout, StringIO()
    try:
        yield
    finally:
        sys.stdout = before

"""Is there room on the disk for a run's checkpoints and state? Asked before it starts: a full disk ends it hours later."""

from __future__ import annotations

import shutil
from pathlib import Path

from sdpg.config import Config
from sdpg.experiment.machine import card, placement
from sdpg.experiment.plan_time import checkpoints
from sdpg.experiment.planner import make_plan, resume_bytes


def run_bytes(config: Config, method: str, steps_kept: int | None = None) -> float:
    """Return the bytes that a run writes: its checkpoints, and two states to resume from, the newer beside the older.

    steps_kept: checkpoints that stay; by default those of `train.keep`. Raises ValueError for a model of unknown sizes.
    """
    gpu = card(None, None)
    job = make_plan(config, gpu=gpu, place=placement(config, gpu), methods=[method]).job
    return (steps_kept or checkpoints(job.train)) * job.b * job.model.parameters + 2 * resume_bytes(job)


def check_disk(config: Config, method: str, seed: int) -> None:
    """Raise ValueError, in one line, if the disk has less room than what is still to be written. Other jobs are not reckoned
    with. A model that cannot be planned is not checked.
    """
    root = Path("results") / config.name
    try:
        needed = run_bytes(config, method)
        least = run_bytes(config, method, steps_kept=3)  # the first, the last, and the one that is being written
    except ValueError:
        return
    folder = root / ".work" / method / f"seed{seed}"
    there = sum(path.stat().st_size for path in _kept(folder))
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    if needed - there <= free:
        return
    advice = f"train.keep=last needs {_gb(least)}, or a larger train.checkpoint_every" if least - there <= free else "make room"
    raise ValueError(
        f"{method} seed {seed} writes {_gb(needed)} of checkpoints and states to {root}, of which {_gb(there)} are there, and "
        f"{_gb(free)} are free on that disk; {advice}, or put results elsewhere (snakemake --directory)"
    )


def _kept(folder: Path) -> list[Path]:
    """Return an unfinished run's files. What a killed process was writing (`.step...`) is written again, and not among them."""
    return [p for p in folder.rglob("*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(folder).parts)]


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"

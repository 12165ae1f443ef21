"""Starting quickly, and the right code."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large packages without the garbage collector.

    It would go through all that is loaded again and again and find nothing: 1 s of importing torch and transformers, 2 to 3 s
    with vLLM.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def own_code_in_jobs(folder: str) -> None:
    """Make the processes that this one starts import the code in `folder`, whatever lies in their working directory."""
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != folder]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *others])
    os.environ["PYTHONSAFEPATH"] = "1"


def without_job_rate(scheduler: Any) -> None:
    """Take Snakemake's own limit of jobs per second out of its scheduler; one that a user gave stays.

    For the sake of that limit (100 a second) Snakemake sets one more timer after each job, each of which looks for jobs to
    start every second until the end: after a hundred jobs that takes a third of a core from those that run.
    """
    limit = getattr(scheduler, "job_rate_limiter", None)
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduler.job_rate_limiter = None

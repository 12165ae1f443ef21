"""Starting quickly, and the right code."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


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

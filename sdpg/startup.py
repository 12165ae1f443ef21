"""Starting quickly."""

from __future__ import annotations

import gc
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

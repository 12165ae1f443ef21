"""What the tests of `benchmarks/` share: a machine's facts and a small batch."""

from __future__ import annotations

from benchmarks.fixed import Recipe

MACHINE = {
    "hardware": {"processor": "p", "cores": 2, "threads": 1, "gpu": None, "platform": "x"},
    "versions": {"torch": "1"},
    "peers": {"trl": "1"},
}
SMALL = Recipe(2, 4, (5, 8), (12, 16), (3, 7), 64)

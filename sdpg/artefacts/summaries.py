"""The tidy CSVs between the score files and the figures and tables: results/<scale>/<summary>.csv.

Each is a module here with `summarise(results) -> DataFrame`, and `read(results)` for those who draw or print it.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from sdpg.analysis.results import Results
from sdpg.io import write_atomic

SUMMARIES = ("stability", "cost", "decomposition")  # module in sdpg/analysis, and name of the file


def make(name: str, results: Results) -> Path:
    """Write results.root/<name>.csv. Raises ValueError for an unknown name or missing input."""
    if name not in SUMMARIES:
        raise ValueError(f"unknown summary {name!r}; choose one of {', '.join(SUMMARIES)}")
    frame = importlib.import_module(f"sdpg.artefacts.{name}").summarise(results)
    path = results.root / f"{name}.csv"
    with write_atomic(path) as file:
        frame.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
    return path

"""The tables. Each is a module with `build(results) -> Table`; writing is the same for all."""

from __future__ import annotations

import importlib
from pathlib import Path

from sdpg.analysis.results import Results
from sdpg.artefacts.tables.layout import Table, write

TABLES = ("main", "stability", "cost", "power", "lm_eval")  # module here, and name of the files


def build(name: str, results: Results) -> Table:
    """Build one table in memory. Raises ValueError for an unknown name or missing input."""
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; choose one of {', '.join(TABLES)}")
    return importlib.import_module(f"sdpg.artefacts.tables.{name}").build(results)


def make(name: str, results: Results, folder: str | Path | None = None) -> list[Path]:
    """Build one table and write <name>.md, .tex and .csv into `folder` (default: results.root/tables); the three paths."""
    return write(build(name, results), Path(folder or results.root / "tables"), name)

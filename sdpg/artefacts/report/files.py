"""The list of artefacts: every file with a link, its size and its hash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sdpg.analysis.results import Results
from sdpg.artefacts.manifest import artefacts
from sdpg.io import sha256

# Folders of many files: one line each. Their files' hashes stand in manifest.json.
FOLDED = re.compile(r"(runs/[^/]+/seed\d+/(?:checkpoints/[^/]+|tensorboard|wandb)|model/[^/]+)/.")
GROUPS = {
    "Scores, figures and tables": (),
    "Data and base models": ("data", "model"),
    "Runs": ("runs",),
    "Evaluations": ("eval",),
}


def files(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return (group, entries) with entries {path, size, count, sha256}; path as from results.root, count and no hash for a
    folder.

    Runs of methods and seeds that the config does not have, and the report itself, are left out.
    """
    entries: dict[str, dict[str, Any]] = {}
    for path in artefacts(results.root):
        name = path.as_posix()
        if name == "report.html" or not _wanted(path, results):
            continue
        size = (results.root / path).stat().st_size
        if folded := FOLDED.match(name):
            entry = entries.setdefault(folded[1] + "/", {"path": folded[1] + "/", "size": 0, "count": 0, "sha256": None})
            entry["size"] += size
            entry["count"] += 1
        else:
            entries[name] = {"path": name, "size": size, "count": None, "sha256": sha256(results.root / path)}
    return [(group, found) for group in GROUPS if (found := [e for e in entries.values() if _group(e["path"]) == group])]


def _group(name: str) -> str:
    first = name.partition("/")[0]
    return next((group for group, folders in GROUPS.items() if first in folders), next(iter(GROUPS)))


def _wanted(path: Path, results: Results) -> bool:
    """Return False for the files of a run that the config does not have: <runs or eval>/<method>/seed<n>/..."""
    if len(path.parts) < 4 or path.parts[0] not in ("runs", "eval"):
        return True
    return path.parts[1:3] in {(method, f"seed{seed}") for method, seed in results.runs}

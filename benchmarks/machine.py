"""What the benchmarks share: memory of a call at its peak, medians, hardware in words, and the list of headline ratios."""

import ctypes
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

from sdpg.io import read_json, write_json

RESULTS = Path(__file__).resolve().parent / "results"


def extra_memory_mb(call: Callable[[], object]) -> float | None:
    """MiB that a call takes at its peak beyond what was held before it; None where the system does not tell."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give freed memory back, so that the call has to ask for it again
    reset.write_text("5")  # the peak starts anew
    before = _status_mb(status, "VmRSS")
    call()
    return _status_mb(status, "VmHWM") - before


def _status_mb(status: Path, key: str) -> float:
    (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 2**10


def median(values) -> float:
    """The median of an iterable."""
    return statistics.median(list(values))


def machine(threads: int) -> dict:
    """Hardware and versions, as every run records them."""
    from sdpg.core.record import run_record

    record = run_record({}, algorithm={}, threads=threads, processes=1)
    hardware = record["hardware"] | {"platform": f"{platform.system()} {platform.machine()}"}
    return {"hardware": hardware, "versions": record["versions"]}


def in_words(report: dict) -> list[str]:
    """Two Markdown lines: the machine, and the versions."""
    hardware = report["hardware"]
    return [
        f"- Machine: {hardware['processor']}, {hardware['cores']} cores, {hardware['threads']} thread(s), "
        f"GPU: {hardware['gpu'] or 'none'}, {hardware['platform']}",
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    ]


def headline(rows: list[dict], *, names: set[str], folder: Path = RESULTS) -> None:
    """Replace the rows of these names on this hardware in summary.json: {name, value, model, shape, device, hardware}."""
    path = folder / "summary.json"
    kept = read_json(path) if path.is_file() else []
    hardware = {row["hardware"] for row in rows}
    kept = [row for row in kept if row["name"] not in names or row["hardware"] not in hardware]
    write_json(path, sorted([*kept, *rows], key=lambda row: (row["name"], row["hardware"], str(row["shape"]))))

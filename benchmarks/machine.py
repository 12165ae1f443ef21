"""What the benchmarks share: memory of a call at its peak, medians, hardware in words, and the list of headline ratios."""

import ctypes
import gc
import json
import platform
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from sdpg.io import read_json, write_atomic, write_json

RESULTS = Path(__file__).resolve().parent / "results"


def extra_memory_mb(call: Callable[[], object]) -> float | None:
    """MiB that a call takes at its peak beyond what was held before it; None where the system does not tell.

    On the CPU: growth of the resident memory, so the first call in a process also counts the libraries it touches.
    """
    import torch

    gc.collect()

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give freed memory back, so that the call has to ask for it again
    reset.write_text("5")  # the peak starts again
    before = _status_mb(status, "VmRSS")
    call()
    return _status_mb(status, "VmHWM") - before


def _status_mb(status: Path, key: str) -> float:
    (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 2**10


def median(values) -> float:
    """The median of an iterable."""
    return statistics.median(list(values))


def machine(threads: int | None) -> dict:
    """Hardware and versions, as every run records them; threads: None if they differ by row."""
    from sdpg.core.record import run_record

    record = run_record({}, algorithm={}, threads=threads, processes=1)
    hardware = record["hardware"] | {"platform": f"{platform.system()} {platform.machine()}"}
    return {"hardware": hardware, "versions": record["versions"]}


def in_words(report: dict) -> list[str]:
    """Two Markdown lines: the machine, and the versions."""
    hardware = report["hardware"]
    threads = f"{hardware['threads']} thread(s), " if hardware["threads"] else ""
    return [
        f"- Machine: {hardware['processor']}, {hardware['cores']} cores, {threads}"
        f"GPU: {hardware['gpu'] or 'none'}, {hardware['platform']}",
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    ]


def peer_versions() -> dict[str, str]:
    """Versions in the peers' environment, read there; ValueError if its torch is not ours."""
    import torch

    from benchmarks.workers import peer_python

    names = ("trl", "liger_kernel", "torch", "transformers", "triton")
    code = f"from importlib.metadata import version as v; import json; print(json.dumps({{n: v(n) for n in {names!r}}}))"
    done = subprocess.run([peer_python(), "-c", code], capture_output=True, text=True, check=True)
    versions = json.loads(done.stdout)
    if versions["torch"] != torch.__version__:
        raise ValueError(f"the peers have torch {versions['torch']}, the project {torch.__version__}; run `make peers`")
    return versions


def free_memory_mb() -> float:
    """MiB that can still be taken: of the GPU, else of the machine."""
    import psutil
    import torch

    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    return free / 2**20


def exponents(points: list[tuple[float, float, float]]) -> tuple[float, float] | None:
    """(x, y, value) -> (a, b) of value ~ x^a y^b, by least squares of logarithms; None if the points do not decide it."""
    import numpy as np

    if len(points) < 3:
        return None
    table = np.log(np.array(points, dtype=float))
    design = np.column_stack([table[:, :2], np.ones(len(table))])
    if np.linalg.matrix_rank(design) < 3:
        return None
    a, b, _ = np.linalg.lstsq(design, table[:, 2], rcond=None)[0]
    return round(float(a), 3), round(float(b), 3)


def hardware_in_short(report: dict) -> dict[str, str]:
    """The keys `device` and `hardware` of a headline."""
    hardware = report["hardware"]
    return {"device": "cuda" if hardware["gpu"] else "cpu", "hardware": hardware["gpu"] or hardware["processor"]}


def stem(name: str, report: dict) -> str:
    """What a report's files are called, without the ending."""
    return f"{name}-cuda" if report["hardware"]["gpu"] else name


def write_report(folder: Path, name: str, report: dict, text: str) -> None:
    """Write `name`.json and .md, on a GPU `name`-cuda, and show the text."""
    write_json(folder / f"{stem(name, report)}.json", report)
    with write_atomic(folder / f"{stem(name, report)}.md") as file:
        file.write(text)
    print(text)


def headline(rows: list[dict], *, names: set[str], folder: Path = RESULTS) -> None:
    """Replace the rows of these names, models and this hardware in summary.json.

    rows: {name, value, model, shape, device, hardware} each.
    """
    path = folder / "summary.json"
    kept = read_json(path) if path.is_file() else []
    new = {(row["hardware"], row["model"]) for row in rows}
    kept = [row for row in kept if row["name"] not in names or (row["hardware"], row["model"]) not in new]
    order = ("name", "hardware", "model", "shape")
    write_json(path, sorted([*kept, *rows], key=lambda row: [str(row[key]) for key in order]))

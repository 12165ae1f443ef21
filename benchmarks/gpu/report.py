"""The report of benchmarks/gpu_check.py: its name, its two files, and the machine that it is about. No torch at import."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from collections import Counter
from pathlib import Path

from benchmarks.gpu.facts import PARTS
from sdpg.io import write_atomic, write_json

VENDOR = {
    "nvidia",
    "tesla",
    "geforce",
    "quadro",
    "hbm3",
    "hbm3e",
    "hbm2",
    "hbm2e",
    "pcie",
    "sxm",
    "sxm2",
    "sxm4",
    "sxm5",
    "nvl",
}
PACKAGES = ("torch", "transformers", "triton", "numpy", "tensorboard", "pydantic", "vllm", "liger_kernel", "trl")


def short_name(gpu: str, memory: float) -> str:
    """Return what a GPU's files are called: "NVIDIA H100 80GB HBM3" -> "h100-80gb". memory: in bytes, if the name has none."""
    words = [word for word in re.split(r"[^a-z0-9]+", gpu.lower()) if word and word not in VENDOR]
    if not any(re.fullmatch(r"\d+gb", word) for word in words):
        words.append(f"{round(memory / 2**30)}gb")
    return "-".join(words)


def machine() -> dict:
    """Return the machine: the GPU with its driver (None on a CPU), versions of what the checks use, the commit."""
    import torch

    from sdpg.provenance.git import git_commit

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = None
    if torch.cuda.is_available():
        p = torch.cuda.get_device_properties(torch.cuda.current_device())
        gpu = {
            "name": p.name,
            "memory_gib": round(p.total_memory / 2**30, 1),
            "capability": f"{p.major}.{p.minor}",
            "multiprocessors": p.multi_processor_count,
            "driver": _driver(),
            "cuda": torch.version.cuda,
        }
    return {"gpu": gpu, "platform": f"{platform.system()} {platform.machine()}", "versions": versions, "commit": git_commit()}


def _driver() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[0] if done.stdout.split() else None


def write(folder: Path, name: str, report: dict) -> None:
    """Write `name`.json and `name`.md, each in one step, so that a cut-off leaves whole files."""
    write_json(folder / f"{name}.json", report)
    with write_atomic(folder / f"{name}.md") as file:
        file.write(markdown(name, report))


def markdown(name: str, report: dict) -> str:
    """Return the report as Markdown: the table of all checks first, then the tracebacks of those that failed."""
    lines, facts = report["lines"], report["machine"]
    counts = Counter(line["status"] for line in lines)
    gpu = facts["gpu"]
    card = "none (--dry: everything tiny, on the CPU)"
    if gpu:
        card = f"{gpu['name']}, {gpu['memory_gib']} GiB, sm_{gpu['capability'].replace('.', '')}, driver {gpu['driver']}"
    text = [
        f"# GPU check: {name}",
        "",
        "Written by `python -m benchmarks.gpu_check`, where each part is described; all numbers are in the `.json` beside it.",
        "",
        f"{', '.join(f'{n} {status}' for status, n in sorted(counts.items())) or 'nothing was checked'}, "
        f"in {report['seconds'] / 60:.1f} minutes{'' if report['finished'] else '; it was cut off, or is still running'}.",
        "",
        "| part | check | status | measured | expected |",
        "|" + "---|" * 5,
    ]
    for line in lines:
        seen = line["measured"]
        if line["note"]:
            last = line["note"].splitlines()[-1]
            seen = f"{seen}; {last}" if seen else last
        cells = [line["part"], line["check"], f"**{line['status']}**" if line["status"] == "failed" else line["status"]]
        text.append("| " + " | ".join(_cell(cell) for cell in [*cells, seen, line["expected"]]) + " |")
    text += ["", *(f"- {part}: {PARTS[part].title}" for part in report["parts"]), "", f"- GPU: {card}"]
    text += [f"- {facts['platform']}; " + ", ".join(f"{key} {value}" for key, value in facts["versions"].items())]
    text += [f"- Commit: {facts['commit'] or 'unknown'}", ""]
    for line in lines:
        if "\n" in line["note"]:
            text += [f"## {line['part']}, {line['check']}", "", "```", line["note"], "```", ""]
    return "\n".join(text)


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())

"""All benchmarks against others, one after the other: what `make bench` runs.

    python -m benchmarks.bench [--only head step rollout limits] [--quick] [--shapes qwen3-0.6b qwen3-1.7b qwen3-4b]

Each part is also a command with more options (`--help`). --quick: tiny sizes, to see that everything runs; it writes to
results/benchmarks/quick and leaves benchmarks/results alone. --shapes (CUDA): the lm-head, the step and the limits at these
Qwen3 shapes with random weights instead of the small models. Nothing else should run on the machine meanwhile. At the end the
tables of docs/performance.md are filled in again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import RESULTS
from benchmarks.models import QWEN3, qwen3_sizes
from benchmarks.workers import ROOT, peer_python
from sdpg.cli import run

PARTS = ("head", "step", "rollout", "limits")
QUICK_RESULTS = ROOT / "results" / "benchmarks" / "quick"
QUICK = {
    "head": ["--tokens", "64", "--vocabulary", "1000", "--extra", "--hidden", "64", "--repeats", "2"],
    "step": ["--models", "tiny", "--lengths", "mixed", "--divisions", "1", "--repeats", "2"],
    "rollout": ["--models", "tiny", "--quick", "--repeats", "2"],
    "limits": ["--shapes", "tiny", "--quick", "--repeats", "2", "--threads", "1"],
}


def commands(only: list[str], quick: bool, shapes: list[str], out: Path) -> list[list[str]]:
    """The command lines to run: script and arguments."""
    result = []
    for part in PARTS:
        if part not in only:
            continue
        script = ["-m", f"benchmarks.{part}", "--out", str(out)]
        if quick:
            result.append([*script, *QUICK[part]])
        elif not shapes:
            result.append(script)
        else:
            result += [[*script, *arguments] for arguments in large(part, shapes)]
    return result


def large(part: str, shapes: list[str]) -> list[list[str]]:
    """Arguments of a part at the Qwen3 shapes; rollouts are left out: weights that are random sample nothing of interest."""
    if part == "head":
        sizes = ["--tokens", "1024", "4096", "16384", "--vocabulary", "151936", "--extra", "--dtype", "bfloat16"]
        return [[*sizes, "--hidden", str(qwen3_sizes(s)["hidden_size"]), "--name", f"head-{s}"] for s in shapes]
    if part == "step":
        return [["--models", *shapes, "--checkpointing", "--one-at-a-time"]]
    if part == "limits":
        return [["--shapes", *shapes, "--checkpointing", "--one-at-a-time"]]
    return []


def main() -> int:
    """Run the parts; the exit status of the first that fails, after it."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    p.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs (two minutes)")
    p.add_argument("--shapes", nargs="+", choices=tuple(QWEN3), default=[], help="with a GPU: the true Qwen3 shapes")
    args = p.parse_args()
    if args.shapes:
        import torch

        if not torch.cuda.is_available():
            raise ValueError(f"--shapes {' '.join(args.shapes)} needs a GPU, and torch sees none; leave it out")
    peer_python()  # said now, not after the first part
    out = QUICK_RESULTS if args.quick else RESULTS
    for command in commands(args.only, args.quick, args.shapes, out):
        print("\n$ python", " ".join(command), flush=True)
        start = time.perf_counter()
        if code := subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
            return code
        print(f"took {(time.perf_counter() - start) / 60:.1f} min", flush=True)
    if not args.quick:
        subprocess.run([sys.executable, "-m", "benchmarks.against_in_docs"], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    run(main)

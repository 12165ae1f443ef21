"""Does the training core compute the right thing on this GPU, in the memory that is expected, and how fast? One command.

    make gpu-check [ARGS="--only a,b --minutes 4"]
    python -m benchmarks.gpu_check [--only a,b] [--minutes 8] [--name NAME] [--out DIR] [--dry]

For whoever has one NVIDIA GPU and a few minutes. It needs torch 2.11 or newer, transformers 5.17 or newer, and pydantic; Triton
comes with torch. vLLM is not needed, nor is the project's environment: any Python with these will do, in the project's folder.
A check that lacks a package (Liger, TRL) or memory is left out, and the report says why. Models have random weights and are
built on the GPU; nothing is downloaded.

- a: the head's Triton kernels and the variable-length attention, in fp32 and bf16, against float64 and the CPU path: values and
  gradients of all divergences, with soft cap, temperature, bias
- b: one step of every method on the same rollouts, on the CPU in fp32 and on the GPU in fp32 and bf16: loss, gradient, weights
- c: memory of weights, masters, moments, gradients and of each phase at its peak, beside what arithmetic says
- d: the head beside plain torch and Liger, a training step beside TRL, at the shapes of Qwen3-0.6B, 1.7B and 4B: ratios of
  medians
- e: FLOPs of each phase over its time and the speed of a large matrix product measured here (MFU), rollouts left out
- f: sixty steps of a tiny model with the in-process engine: the reward rises, log-probs agree, memory does not grow

Each part runs in a process of its own and has its share of the minutes; one that crashes, hangs or runs over is ended, and the
next goes on. Written after every check: benchmarks/results/gpu/NAME.json and .md, where NAME comes from the GPU (h100-80gb).
The exit status is 1 if a check failed. --dry: everything tiny on the CPU, kernels through Triton's interpreter, in a minute,
written to results/benchmarks/gpu; times and memory mean nothing then. Nothing else should run on the GPU meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu import report
from benchmarks.gpu.facts import PARTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
DRY_RESULTS = ROOT / "results" / "benchmarks" / "gpu"
GRACE = 12.0  # seconds that a part may take to start and to finish its last check
OUTPUT = 1500  # characters of a crashed process's output that the report shows


def letters(text: str) -> list[str]:
    """Return the parts in "a,b", in their order. Raises ValueError for an unknown one."""
    asked = [part.strip() for part in text.split(",")]
    if unknown := [part for part in asked if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"got {unknown[0]!r}, expected some of {','.join(PARTS)}")
    return [part for part in PARTS if part in asked]


def parse(argv=None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", type=letters, default=list(PARTS), metavar="a,b", help="these parts (default: all)")
    p.add_argument("--minutes", type=float, default=8.0, help="at most (8)")
    p.add_argument("--name", help="of the files (default: from the GPU)")
    p.add_argument("--out", type=Path, help=f"folder of the files (default: {RESULTS.relative_to(ROOT)})")
    p.add_argument("--dry", action="store_true", help="everything tiny, on the CPU")
    p.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # this process runs parts and writes its lines here
    return p.parse_args(argv)


class Check:
    """The command: it starts a process for each part, and keeps the report up to date."""

    def __init__(self, args: argparse.Namespace):
        """Look at the machine. Raises ValueError without a GPU, but for --dry."""
        self.args, self.start = args, time.monotonic()
        facts = report.machine()
        if facts["gpu"] is None and not args.dry:
            raise ValueError("torch sees no CUDA GPU (torch.cuda.is_available() is false); --dry runs on the CPU")
        if args.dry:
            facts["gpu"] = None
        gpu = facts["gpu"]
        self.name = args.name or (report.short_name(gpu["name"], gpu["memory_gib"] * 2**30) if gpu else "dry")
        self.folder = args.out or (DRY_RESULTS if args.dry else RESULTS)
        self.report = {"machine": facts, "minutes": args.minutes, "dry": args.dry, "parts": args.only, "seconds": 0.0}
        self.report |= {"finished": False, "lines": []}

    def run(self) -> int:
        """Run all parts -> the exit status."""
        groups = [self.args.only] if self.args.dry else [[part] for part in self.args.only]
        total = sum(PARTS[part].share for part in self.args.only)
        share = 0.0
        for parts in groups:
            share += sum(PARTS[part].share for part in parts) / total
            self._group(parts, self.start + share * self.args.minutes * 60)
        self.report["finished"] = True
        self._save()
        lines = self.report["lines"]
        print(
            "\n" + "\n".join(f"{x['part']}  {x['status']:8}  {x['check']}: {x['measured'] or x['note'][-200:]}" for x in lines)
        )
        print(f"\nThe report: {self.folder / self.name}.md and .json")
        return int(any(line["status"] == "failed" for line in lines))

    def _group(self, parts: list[str], end: float) -> None:
        """Run some parts in one process, until `end` (monotonic seconds) at the latest."""
        with tempfile.TemporaryDirectory() as folder:
            file, log = Path(folder) / "lines.jsonl", Path(folder) / "log.txt"
            file.touch()
            seconds = max(1.0, end - time.monotonic() - GRACE)
            command = worker_command(parts, file, seconds, self.args.dry)
            with log.open("w") as out:
                how = {"stdout": out, "stderr": subprocess.STDOUT, "start_new_session": True}
                worker = subprocess.Popen(command, cwd=ROOT, env=environment(self.args.dry), **how)
                before = len(self.report["lines"])
                try:
                    while worker.poll() is None and time.monotonic() < end:
                        time.sleep(0.2)
                        self._take(before, file)
                    over = worker.poll() is None
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(worker.pid, signal.SIGKILL)  # with what it started
                    code = worker.wait()
            self._take(before, file)
            self._close(before, parts, "" if over else log.read_text(errors="replace")[-OUTPUT:], over, code)

    def _take(self, before: int, file: Path) -> None:
        """Take over the process's lines so far, each check's last."""
        text = file.read_text(encoding="utf-8")
        rows = [json.loads(row) for row in text[: text.rfind("\n") + 1].splitlines()]
        latest = {(row["part"], row["check"]): row for row in rows}
        if self.report["lines"][before:] != list(latest.values()):
            self.report["lines"][before:] = latest.values()
            self._save()

    def _close(self, before: int, parts: list[str], log: str, over: bool, code: int) -> None:
        """Say of what the process did not finish why: its time was over, or it broke."""
        lines = self.report["lines"]
        note = "stopped: the part's time was over" if over else f"the process ended with exit status {code}:\n{log}"
        status = "left out" if over else "failed"
        for line in lines[before:]:
            if line["status"] == "running":
                line |= {"status": status, "note": note}
        blank = {"check": "the whole part", "measured": "", "expected": "", "seconds": 0.0, "facts": {}}
        begun = {line["part"] for line in lines[before:]}
        for part in parts:
            if part not in begun:
                lines.append({"part": part, "status": status, "note": note} | blank)
        if code and not over and not any(line["status"] == "failed" for line in lines[before:]):
            lines.append({"part": parts[-1], "status": "failed", "note": note} | blank)
        self._save()

    def _save(self) -> None:
        self.report["seconds"] = round(time.monotonic() - self.start, 1)
        report.write(self.folder, self.name, self.report)


def worker_command(parts: list[str], file: Path, seconds: float, dry: bool) -> list[str]:
    """Return the command line of the process that runs some parts and writes their lines to a file."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--only", ",".join(parts), "--worker", str(file)]
    return [*command, "--minutes", str(seconds / 60), *(["--dry"] if dry else [])]


def environment(dry: bool) -> dict[str, str]:
    """Return the environment of a part's process: one GPU (transformers' trainers would take all that they see).

    In --dry it has none, and Triton interprets its kernels.
    """
    added = {"TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    added |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"} if dry else {"CUDA_VISIBLE_DEVICES": first}
    return os.environ | added


def work(args: argparse.Namespace) -> int:
    """Run the parts in this process, and write their lines to `args.worker`."""
    from benchmarks.gpu.session import Session

    session = Session(args.worker, dry=args.dry, seconds=60 * args.minutes)
    for part in args.only:
        module, function = PARTS[part].run.split(":")
        session.run_part(part, f"benchmarks.gpu.{module}", function)
    return 0


def main() -> int:
    """Run the command -> 1 if a check failed, 2 if there is nothing to check."""
    args = parse()
    if args.worker:
        return work(args)
    try:
        return Check(args).run()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

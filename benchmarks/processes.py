"""One training step by one process and by several, each with one thread: what sharing a step out gains on this machine.

    python -m benchmarks.processes [--model smollm2-135m] [--count 2] [--repeats 5]

The same fixed batch of SDPG (benchmarks/fixed.py), eight times the prompts of the step benchmark; both sides take turns step by
step. Several processes shard the model (FSDP2 over gloo) and deal the prompts out. Beside it stands what the machine itself
gives: the same matrix product by one process, and by all at the same time. Writes benchmarks/results/processes.json, .md.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.fixed import RECIPES, FixedBatch
from benchmarks.machine import RESULTS, in_words, machine, median, write_report
from benchmarks.models import CPU_MODELS, checkpoint, ids_of, precision_of
from benchmarks.workers import Channel, Group, Worker, take_turns
from sdpg.cli import run

MARGIN = 1  # first steps that do not count
TIMES = 8  # as many prompts as in the step benchmark; weights are gathered once for each pass, however many tokens it reads
PRODUCT = 1024  # rows and columns of the matrices


def multiply() -> None:
    """Answer each request with the time of some matrix products: as a worker."""
    import torch

    channel = Channel()
    torch.set_num_threads(1)
    a = torch.randn(PRODUCT, PRODUCT)
    channel.send(ready=True)
    for _ in channel.requests():
        start = time.perf_counter()
        for _ in range(20):
            a @ a
        channel.send(seconds=time.perf_counter() - start)


def cores_ratio(count: int, repeats: int) -> float:
    """Return how many times as many products `count` processes do at the same time as one alone."""
    workers = [Worker(sys.executable, "benchmarks/processes.py", ["--multiply"], threads=1) for _ in range(count)]
    ratios = []
    for _ in range(repeats):
        alone = workers[0].ask()["seconds"]
        for worker in workers:
            worker.send()
        ratios.append(count * alone / max(worker.answer()["seconds"] for worker in workers))
    for worker in workers:
        worker.close()
    return median(ratios)


def measure(model: str, count: int, repeats: int) -> dict:
    """Return medians of both sides, and the ratio of their speeds turn by turn."""
    recipe = RECIPES[model]
    recipe = dataclasses.replace(recipe, prompts=TIMES * recipe.prompts, micro_batch_tokens=TIMES * recipe.micro_batch_tokens)
    batch = FixedBatch.draw(recipe, ids_of(checkpoint(model)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batch.json"
        batch.save(file)
        arguments = ["--model", checkpoint(model), "--batch", file, "--method", "sdpg", "--precision", precision_of(model)]
        groups = {n: Group(n, "benchmarks/ours.py", [*arguments, "--threads", 1], threads=1) for n in (1, count)}
        answers = take_turns(groups, MARGIN + repeats)
        for group in groups.values():
            group.close()
    one, several = answers[1][MARGIN:], answers[count][MARGIN:]
    for a, b in zip(one, several, strict=True):
        if abs(a["grad_norm"] / b["grad_norm"] - 1) > 2e-2 or a["response_tokens"] != b["response_tokens"]:
            raise ValueError(f"one process found {a}, {count} found {b}: they did not do the same work")
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(one, several, strict=True)]
    return {
        "model": model,
        "precision": precision_of(model),
        "processes": count,
        **batch.counts(),
        "one_ms": round(1e3 * median(a["seconds"] for a in one)),
        "several_ms": round(1e3 * median(b["seconds"] for b in several)),
        "ratio": round(median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "products_ratio": round(cores_ratio(count, repeats), 3),
    }


def table(report: dict) -> str:
    """Return the report as Markdown."""
    row = report["row"]
    lines = [
        "# A training step by several processes",
        "",
        "Written by `benchmarks/processes.py`; the same numbers are in `processes.json`.",
        "",
        *in_words(report),
        "",
        f"| model | processes | one, ms | {row['processes']}, ms | one / several (range) | matrix products alone |",
        "|---|---|---|---|---|---|",
        f"| {row['model']}, {row['precision']} | {row['processes']} | {row['one_ms']} | {row['several_ms']} | "
        f"**{row['ratio']}** ({row['ratio_range'][0]} to {row['ratio_range'][1]}) | {row['products_ratio']} |",
        "",
        "The last column is what the cores give: how many times the matrix products of one process all do together.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the report."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=CPU_MODELS, default="smollm2-135m")
    p.add_argument("--count", type=int, default=2, help="processes (default 2)")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--out", type=Path, default=RESULTS)
    p.add_argument("--multiply", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.multiply:
        return multiply()
    report = machine(1) | {"row": measure(args.model, args.count, args.repeats)}
    write_report(args.out, "processes", report, table(report))
    return None


if __name__ == "__main__":
    run(main)

"""Where a training step's time goes, by phase, beside what the machine could do at best.

    python -m benchmarks.limits [--shapes tiny smollm2-135m qwen3-1.7b ...] [--methods grpo sdpg sdpg-closed] [--repeats 5]

A step of the suite's own Trainer on the fixed batch (benchmarks/fixed.py), methods taking turns; its rollout phase samples
with the in-process engine as many tokens per response as the batch has on average. The limit of a phase is the larger of FLOPs
over the machine's matrix product speed and bytes over its memory bandwidth (what is counted: benchmarks/flops.py); both peaks
are measured here: a large product in the compute precision, and a copy far larger than the caches, the best of many before and
after the steps. MFU: FLOPs of the training phases (reference, teacher, train) over their time and the peak. Writes
benchmarks/results/limits.json and .md, and gate_closed_step_vs_grpo of summary.json.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.fixed import RECIPES, FixedBatch
from benchmarks.flops import Work, rollout_work, step_work
from benchmarks.machine import RESULTS, hardware_in_short, headline, in_words, machine, median, write_report
from benchmarks.models import CPU_MODELS, NAMES, checkpoint, ids_of, precision_of
from benchmarks.peaks import copy_bandwidth, device, matmul_peak
from sdpg.cli import run
from sdpg.experiment.architecture import Architecture, of_config

METHODS = ("grpo", "sdpg", "sdpg-closed")  # the last: SDPG where beta(k) is 0, which should cost what GRPO does
GATE_CLOSED = "gate_closed_step_vs_grpo"
COMPUTE = ("reference", "teacher", "train")
PHASES = ("rollout", *COMPUTE, "optimizer")
WIDTH = {"fp32": 4, "bf16": 2}
MARGIN = 2  # first steps that do not count: kernels are made for new shapes


def peaks(precision: str, quick: bool) -> dict[str, float]:
    """The machine's measured peaks: FLOP/s and bytes/s."""
    cuda = device() == "cuda"
    size = 8192 if cuda else 1024 if quick else 3072
    megabytes = 2048 if cuda else 64 if quick else 512
    seconds = 0.2 if quick else 2.0
    return {
        "flops_per_second": matmul_peak(precision, size, seconds),
        "bytes_per_second": copy_bandwidth(megabytes, seconds),
        "matmul_size": size,
        "copy_mb": megabytes,
    }


def work_of(model: Architecture, width: int, batch: FixedBatch, method: str, response: int) -> dict[str, Work]:
    """Work of one step on the batch by phase; `response`: tokens that the rollout samples per response."""
    prompts = [len(x) for x, group in zip(batch.prompts, batch.responses, strict=True) for _ in group]
    teachers = [len(x) for x, group in zip(batch.teacher_prompts, batch.responses, strict=True) for _ in group]
    responses = [len(y) for group in batch.responses for y in group]
    gated = [method == "sdpg" and reward > 0 for group in batch.rewards for reward in group]  # A > 0: the right ones
    work = step_work(model, width, prompts, teachers, responses, reference=True, gated=gated)
    return work | {"rollout": rollout_work(model, width, [len(x) for x in batch.prompts], batch.group, response)}


def new_trainer(model: str, method: str, batch: FixedBatch, response: int, args, work: Path):
    """The Trainer of a method, whose rollouts sample `response` tokens and return the batch's."""
    from benchmarks.ours import FixedEngine, build_trainer
    from sdpg.rollout.engines import make_engine

    folder, precision, longest = checkpoint(model), precision_of(model), batch.longest()
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    max_len = longest["prompt"] + max(longest["response"], response)
    real = make_engine("in-process", folder, dtype=dtype, max_len=max_len)
    train = {"gradient_checkpointing": args.checkpointing}
    return build_trainer(folder, batch, method, precision, work, FixedEngine(batch, real, response), **train)


def timed_steps(model: str, batch: FixedBatch, response: int, args) -> dict[str, list[dict]]:
    """Metric rows of the steps that count, by method.

    Methods take turns, so that a slow moment of the machine meets all of them; with args.one_at_a_time they follow each other.
    """
    from benchmarks.ours import MIDDLE

    together = [[method] for method in args.methods] if args.one_at_a_time else [args.methods]
    rows: dict[str, list[dict]] = {method: [] for method in args.methods}
    for methods in together:
        with tempfile.TemporaryDirectory() as work:
            trainers = {m: new_trainer(model, m, batch, response, args, Path(work) / m) for m in methods}
            for i in range(MARGIN + args.repeats):
                turn = i % len(methods)
                for method in [*methods[turn:], *methods[:turn]]:
                    rows[method].append(trainers[method].step(MIDDLE + i))
            for trainer in trainers.values():
                trainer.collector.engine.close()
            del trainers
    return {method: part[MARGIN:] for method, part in rows.items()}


def summarise(rows: list[dict], work: dict[str, Work], peak: dict[str, float]) -> dict:
    """Medians by phase beside their limits, and the MFU of the training phases."""
    phases = {}
    for phase in (phase for phase in PHASES if phase in work):
        seconds, w = median(row[f"seconds_{phase}"] for row in rows), work[phase]
        compute, memory = w.flops / peak["flops_per_second"], w.bytes / peak["bytes_per_second"]
        limit = w.limit_seconds(peak["flops_per_second"], peak["bytes_per_second"])
        phases[phase] = {
            "ms": round(1e3 * seconds, 3),
            "gflop": round(w.flops / 1e9, 3),
            "gbyte": round(w.bytes / 1e9, 4),
            "limit_ms": round(1e3 * limit, 3),
            "bound_by": "compute" if compute >= memory else "memory",
            "time_over_limit": round(seconds / limit, 2),
        }
    flops = sum(work[phase].flops for phase in COMPUTE if phase in work)
    busy = sum(phases[phase]["ms"] for phase in COMPUTE if phase in phases) / 1e3
    step = median(row["seconds"] for row in rows)
    return {
        "step_ms": round(1e3 * step, 2),
        "rest_ms": round(1e3 * step - sum(p["ms"] for p in phases.values()), 2),
        "response_tokens": rows[0]["tokens"],
        "mfu": round(flops / busy / peak["flops_per_second"], 4),
        "phases": phases,
    }


def over(rows: list[dict], base: list[dict]) -> float:
    """Time of a step without its rollout over that of the other method's step of the same turn, median."""
    training = [[row["seconds"] - row["seconds_rollout"] for row in part] for part in (rows, base)]
    return round(median(own / other for own, other in zip(*training, strict=True)), 3)


def measure_model(model: str, args) -> dict:
    """Peaks in the model's precision, and each method's phases."""
    import torch
    from transformers import AutoConfig

    precision = precision_of(model)
    folder = checkpoint(model)
    batch = FixedBatch.draw(RECIPES[model], ids_of(folder))
    sizes, width = of_config(AutoConfig.from_pretrained(folder).to_dict(), model), WIDTH[precision]
    response = round(sum(RECIPES[model].response_tokens) / 2)
    torch.set_num_threads(args.threads or (1 if model == "tiny" else 2))
    before = peaks(precision, args.quick)
    rows = timed_steps(model, batch, response, args)
    peak = {key: max(value, before[key]) for key, value in peaks(precision, args.quick).items()}
    methods = {method: summarise(rows[method], work_of(sizes, width, batch, method, response), peak) for method in args.methods}
    if "grpo" in methods:
        for method, part in methods.items():
            part["over_grpo"] = over(rows[method], rows["grpo"])
    print(model, {method: f"MFU {m['mfu']:.3f}" for method, m in methods.items()}, flush=True)
    facts = {"model": model, "precision": precision, "threads": torch.get_num_threads(), "parameters": sizes.parameters}
    return {**facts, **batch.counts(), "sampled_tokens_per_response": response, "peak": peak, "methods": methods}


def table(report: dict) -> str:
    """The report as Markdown."""
    lines = [
        "# Where a step's time goes, and what the machine could do at best",
        "",
        "Written by `benchmarks/limits.py`; the same numbers are in `limits.json`. What is counted: `benchmarks/flops.py`.",
        "",
        *in_words(report),
        f"- Medians of {report['setting']['repeats']} steps. `x limit`: time over the larger of FLOPs / peak and bytes / "
        "bandwidth. MFU of reference, teacher and train together.",
        "",
    ]
    for entry in report["models"]:
        peak = entry["peak"]
        lines += [
            f"`{entry['model']}`, {entry['precision']}, {entry['threads']} thread(s), {entry['responses']} responses, "
            f"{entry['response_tokens']} response tokens; peak {peak['flops_per_second'] / 1e9:.0f} GFLOP/s, "
            f"{peak['bytes_per_second'] / 1e9:.1f} GB/s:",
            "",
            "| method | phase | ms | share | GFLOP | GB | limit ms | bound by | x limit |",
            "|" + "---|" * 9,
        ]
        for method, m in entry["methods"].items():
            for phase, p in m["phases"].items():
                cells = [method, phase, f"{p['ms']:.1f}", f"{p['ms'] / m['step_ms']:.0%}", f"{p['gflop']:.4g}"]
                cells += [f"{p['gbyte']:.3g}", f"{p['limit_ms']:.2f}", p["bound_by"], f"{p['time_over_limit']:.1f}"]
                lines.append("| " + " | ".join(cells) + " |")
            rest = f"{m['rest_ms']:.1f} | {m['rest_ms'] / m['step_ms']:.0%}"
            lines.append(f"| {method} | rest | {rest} | - | - | - | - | - |")
            lines.append(f"| {method} | step, MFU {m['mfu']:.1%} | {m['step_ms']:.1f} | 100% | - | - | - | - | - |")
        ratios = {method: m["over_grpo"] for method, m in entry["methods"].items() if "over_grpo" in m}
        if len(ratios) > 1:
            said = ", ".join(f"{method} {ratio:.2f}" for method, ratio in ratios.items() if method != "grpo")
            lines += ["", f"A step without its rollout, over GRPO's of the same turn: {said}."]
        lines.append("")
        if any(p["time_over_limit"] < 1 for m in entry["methods"].values() for p in m["phases"].values()):
            lines += ["A phase below 1 beats its limit: something else ran while the peaks were measured.", ""]
    return "\n".join(lines)


def headlines(report: dict) -> list[dict]:
    """Rows of summary.json: a step of SDPG whose gates are all closed over one of GRPO, both without the rollout."""
    rows = []
    for entry in report["models"]:
        methods = entry["methods"]
        if {"grpo", "sdpg-closed"} <= methods.keys():
            value = methods["sdpg-closed"]["over_grpo"]
            shape = f"{entry['responses']} responses, {entry['response_tokens']} response tokens, {entry['precision']}"
            row = {"name": GATE_CLOSED, "value": value, "model": entry["model"], "shape": shape}
            rows.append(row | hardware_in_short(report))
    return rows


def parse(argv=None):
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", choices=NAMES, default=list(CPU_MODELS))
    p.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, help="CPU threads (default: 1 for tiny, else 2, as the suite's scales have it)")
    p.add_argument("--one-at-a-time", action="store_true", help="never hold several methods' models at once")
    p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, for large models")
    p.add_argument("--quick", action="store_true", help="small products for the peaks")
    p.add_argument("--out", type=Path, default=RESULTS)
    return p.parse_args(argv)


def main() -> None:
    """Parse the command line, measure, and write the files."""
    args = parse()
    models = [measure_model(model, args) for model in args.shapes]
    setting = {"repeats": args.repeats, "checkpointing": args.checkpointing}
    report = {"setting": setting, **machine(args.threads), "models": models}
    write_report(args.out, "limits", report, table(report))
    headline(headlines(report), names={GATE_CLOSED}, folder=args.out)


if __name__ == "__main__":
    run(main)

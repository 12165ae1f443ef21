"""One training step, ours beside TRL's: GRPO against GRPOTrainer, SDPO against SDPOTrainer (full logits, live teacher).

    python -m benchmarks.step [--models tiny smollm2-135m] [--methods grpo sdpo] [--lengths mixed equal] [--repeats 5]

Both train the same model on the same prompts, responses and rewards (benchmarks/fixed.py), each in its own process and
environment, and take turns step by step. Timed is everything of a step but generation: advantages, reference or teacher,
loss, backward, clipping, AdamW (learning rate 0), each side's metrics. `mixed`: lengths as a rollout has them; `equal`: all
prompts and all responses of one length, so that nobody pads. TRL's micro-batch is the fastest of those tried.

A comparison counts only if both saw as many response tokens and found the same loss and gradient norm; otherwise this stops.
Writes benchmarks/results/step.json and .md, and step_speed_vs_trl_* of summary.json (tokens per second, ours over theirs).
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.fixed import RECIPES, FixedBatch
from benchmarks.machine import RESULTS, hardware_in_short, headline, in_words, machine, median, peer_versions, write_report
from benchmarks.models import CPU_MODELS, NAMES, checkpoint, ids_of, precision_of
from benchmarks.workers import Worker, peer_python, take_turns
from sdpg.cli import run

TOLERANCE = {
    "fp32": 1e-3,
    "bf16": 5e-2,
}  # relative difference of gradient norms; TRL adds 1e-4 to a standard deviation, we 1e-6
PEER = {"grpo": "GRPOTrainer", "sdpo": "SDPOTrainer"}
DIVISIONS = (1, 4)  # TRL's micro-batches: the whole batch, or a quarter of it
LENGTHS = {"tiny": ("mixed", "equal")}
MARGIN = 2  # first steps of a process that do not count


def check_equal_work(ours: dict, theirs: dict, precision: str, what: str) -> float:
    """Relative difference of the gradient norms; ValueError unless tokens, loss and gradient norm agree."""
    if ours["response_tokens"] != theirs["response_tokens"]:
        raise ValueError(
            f"{what}: ours saw {ours['response_tokens']} response tokens, TRL {theirs['response_tokens']}; "
            "the two did not do the same work, so their times say nothing"
        )
    tolerance = TOLERANCE[precision]
    difference = abs(ours["grad_norm"] / theirs["grad_norm"] - 1)
    loss = abs(ours["loss"] - theirs["loss"])
    if not (difference <= tolerance and loss <= tolerance * max(1e-2, abs(theirs["loss"]))):
        raise ValueError(
            f"{what}: loss {ours['loss']:.6g} and gradient norm {ours['grad_norm']:.6g}, TRL's {theirs['loss']:.6g} and "
            f"{theirs['grad_norm']:.6g}, further apart than {tolerance:g}; the two did not do the same work"
        )
    return difference


def compare(answers: dict[str, list[dict]], precision: str, what: str) -> dict:
    """Answers by "ours" and "trl", turn by turn -> medians and ratios; checks that every turn is the same work."""
    turns = list(zip(answers["ours"], answers["trl"], strict=True))
    differences = [check_equal_work(ours, theirs, precision, what) for ours, theirs in turns]
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in turns]  # as many tokens: speeds over each other
    sides = {}
    for name, rows in answers.items():
        seconds = median(row["seconds"] for row in rows)
        sides[name] = {
            "step_ms": round(1e3 * seconds, 1),
            "response_tokens_per_second": round(rows[0]["response_tokens"] / seconds, 1),
            "loss": rows[-1]["loss"],
            "grad_norm": rows[-1]["grad_norm"],
            "process_peak_mb": round(max(row["memory_mb"] for row in rows)),
        }
    return {
        "speed_ratio": round(median(ratios), 3),
        "speed_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "gradient_norm_difference": max(differences),
        **sides,
    }


class Sides:
    """The two command lines of one comparison, and the workers that run them."""

    def __init__(self, model: str, method: str, batch_file: Path, args):
        self.threads = args.threads or (1 if model == "tiny" else 2)
        self.arguments = ["--model", checkpoint(model), "--batch", batch_file, "--method", method]
        self.arguments += ["--precision", precision_of(model), "--threads", self.threads]
        self.arguments += ["--checkpointing"] if args.checkpointing else []

    def ours(self) -> Worker:
        """This environment."""
        return Worker(sys.executable, "benchmarks/ours.py", self.arguments, threads=self.threads)

    def trl(self, rows: int) -> Worker:
        """The peers' environment."""
        arguments = [*self.arguments, "--rows", rows]
        return Worker(peer_python(), "benchmarks/peers/trl_step.py", arguments, threads=self.threads)

    def fastest_rows(self, responses: int, divisions) -> tuple[int, dict[int, float | str]]:
        """TRL's best micro-batch of `responses` / each of `divisions`, and what each took (seconds, or why not)."""
        tried: dict[int, float | str] = {}
        for rows in sorted({responses // division for division in divisions if responses % division == 0}, reverse=True):
            try:
                with self.trl(rows) as worker:
                    tried[rows] = min(worker.ask()["seconds"] for _ in range(MARGIN))
            except RuntimeError as error:
                if "out of memory" not in str(error).lower():
                    raise
                tried[rows] = "out of memory"
        fits = {rows: seconds for rows, seconds in tried.items() if not isinstance(seconds, str)}
        if not fits:
            raise ValueError(f"TRL runs out of memory with micro-batches of {sorted(tried)} responses; try --checkpointing")
        return min(fits, key=fits.get), tried


def alternate(sides: Sides, rows: int, repeats: int, one_at_a_time: bool) -> dict[str, list[dict]]:
    """Answers by side, the first ones of each process left out.

    one_at_a_time: where both do not fit into memory side by side, processes alternate instead of steps.
    """
    if not one_at_a_time:
        with sides.ours() as ours, sides.trl(rows) as trl:
            answers = take_turns({"ours": ours, "trl": trl}, MARGIN + repeats)
        return {name: part[MARGIN:] for name, part in answers.items()}
    answers = {"ours": [], "trl": []}
    for _ in range(repeats):
        for name, start in (("ours", sides.ours), ("trl", lambda: sides.trl(rows))):
            with start() as worker:
                answers[name].append([worker.ask() for _ in range(MARGIN + 1)][-1])
    return answers


def measure_case(model: str, method: str, lengths: str, args) -> dict:
    """One row of the report."""
    recipe = RECIPES[model] if lengths == "mixed" else RECIPES[model].equal()
    batch = FixedBatch.draw(recipe, ids_of(checkpoint(model)))
    counts = batch.counts()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batch.json"
        batch.save(file)
        sides = Sides(model, method, file, args)
        rows, tried = sides.fastest_rows(counts["responses"], args.divisions)
        answers = alternate(sides, rows, args.repeats, args.one_at_a_time)
    what = f"{model}, {method}, {lengths} lengths"
    return {
        "model": model,
        "method": method,
        "lengths": lengths,
        "precision": precision_of(model),
        "threads": sides.threads,
        **counts,
        "trl_rows": rows,
        "trl_rows_tried": {str(key): value for key, value in tried.items()},
        **compare(answers, precision_of(model), what),
    }


def table(report: dict) -> str:
    """The report as Markdown."""
    setting = report["setting"]
    lines = [
        "# A training step: ours beside TRL's",
        "",
        "Written by `benchmarks/step.py`; the same numbers are in `step.json`.",
        "",
        *in_words(report),
        "- Peers: " + ", ".join(f"{name} {version}" for name, version in report["peers"].items()),
        f"- Medians of {setting['repeats']} steps that take turns; `ours / TRL`: tokens per second (range over the turns). "
        "`gradient`: relative difference of the gradient norms. `rows`: responses in TRL's micro-batch, the fastest tried.",
        "",
        "| model | method | lengths | tokens | threads | ours ms | TRL ms | ours tokens/s | TRL tokens/s | ours / TRL "
        "| gradient | rows |",
        "|" + "---|" * 12,
    ]
    for c in report["cases"]:
        low, high = c["speed_ratio_range"]
        cells = [c["model"], f"{c['method']}, {c['precision']}", c["lengths"], c["response_tokens"], c["threads"]]
        cells += [f"{c[side]['step_ms']:.0f}" for side in ("ours", "trl")]
        cells += [f"{c[side]['response_tokens_per_second']:.0f}" for side in ("ours", "trl")]
        cells += [f"{c['speed_ratio']:.2f} ({low:.2f}-{high:.2f})", f"{c['gradient_norm_difference']:.0e}", c["trl_rows"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def headlines(report: dict) -> list[dict]:
    """Rows of summary.json."""
    rows = []
    for c in report["cases"]:
        shape = (
            f"{c['responses']} responses, {c['response_tokens']} response tokens, {c['lengths']} lengths, {c['precision']}, "
            f"{c['threads']} thread(s)"
        )
        row = {"name": f"step_speed_vs_trl_{c['method']}", "value": c["speed_ratio"], "model": c["model"], "shape": shape}
        rows.append(row | hardware_in_short(report))
    return rows


def parse(argv=None):
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", nargs="+", choices=NAMES, default=list(CPU_MODELS))
    p.add_argument("--methods", nargs="+", choices=PEER, default=list(PEER))
    p.add_argument("--lengths", nargs="+", choices=("mixed", "equal"), help="default: both for tiny, else mixed")
    p.add_argument("--divisions", nargs="+", type=int, default=DIVISIONS, help="micro-batches tried for TRL (1 4)")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, help="CPU threads (default: 1 for tiny, else 2, as the suite's scales have it)")
    p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on both sides, for large models")
    p.add_argument("--one-at-a-time", action="store_true", help="never hold both sides' models at once; slower")
    p.add_argument("--out", type=Path, default=RESULTS)
    return p.parse_args(argv)


def main() -> None:
    """Parse the command line, measure, and write the files."""
    args = parse()
    cases = []
    for model in args.models:
        for method in args.methods:
            for lengths in args.lengths or LENGTHS.get(model, ("mixed",)):
                cases.append(measure_case(model, method, lengths, args))
                print(model, method, lengths, cases[-1]["speed_ratio"], flush=True)
    setting = {"repeats": args.repeats, "checkpointing": args.checkpointing, "one_at_a_time": args.one_at_a_time}
    report = {"setting": setting, **machine(args.threads), "peers": peer_versions(), "cases": cases}
    write_report(args.out, "step", report, table(report))
    headline(headlines(report), names={f"step_speed_vs_trl_{method}" for method in args.methods}, folder=args.out)


if __name__ == "__main__":
    run(main)

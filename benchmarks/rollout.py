"""Rollout speed: vLLM, the in-process engine and `generate` of transformers, by model, in sampled tokens per second.

    python -m benchmarks.rollout [--models tiny smollm2-135m] [--engines vllm in-process hf-generate] [--repeats 5]

The same prompts, the same number of responses to each, all of the same length (no stop token), temperature 1 over the whole
vocabulary, the same precision; each engine in a separate process, taking turns call by call. The two engines of the suite
also return each token's log-prob, `generate` does not. Starting an engine is not counted, nor its first call. Writes
benchmarks/results/rollout.json and .md.

With --serve NAME (and one model) this is the worker for one engine.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.fixed import RECIPES, FixedBatch, Recipe
from benchmarks.machine import RESULTS, in_words, machine, median, write_report
from benchmarks.models import CPU_MODELS, NAMES, checkpoint, ids_of, precision_of
from benchmarks.workers import Channel, Worker, take_turns
from sdpg.cli import run

ENGINES = ("vllm", "in-process", "hf-generate")
BATCHES = {"tiny": (16, 8, 24), "smollm2-135m": (4, 8, 32)}  # prompts, responses to each, tokens of a response
LARGE = (8, 8, 256)  # of any other model
NEVER = (-1,)  # a stop token that does not exist


class HFGenerate:
    """`generate` of transformers on left-padded prompts, as an engine."""

    def __init__(self, folder: Path, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
        self.model.generation_config.eos_token_id = None  # responses go on to their full length
        self.model.generation_config.pad_token_id = 0

    def generate(self, prompts, n: int, sampling, seed: int) -> list[list[list[int]]]:
        """Ids of n responses to each prompt."""
        import torch

        torch.manual_seed(seed)
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(x)) + x for x in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(x)) + [1] * len(x) for x in prompts], device=self.model.device)
        settings = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        settings |= {"max_new_tokens": sampling.max_tokens, "num_return_sequences": n}
        rows = self.model.generate(input_ids=ids, attention_mask=mask, **settings)[:, width:].tolist()
        return [rows[i : i + n] for i in range(0, len(rows), n)]


def serve(args) -> None:
    """One call of the engine per request."""
    channel = Channel()

    import torch

    from sdpg.rollout.engines import make_engine
    from sdpg.types import Sampling

    torch.set_num_threads(args.threads)
    batch, n, length = batch_of(args.models[0], args.quick)
    folder, dtype = checkpoint(args.models[0]), {"fp32": "float32", "bf16": "bfloat16"}[precision_of(args.models[0])]
    if args.serve == "hf-generate":
        engine, ids = HFGenerate(folder, dtype), lambda y: y
    else:
        max_len = batch.longest()["prompt"] + length
        engine, ids = (make_engine(args.serve, folder, dtype=dtype, max_len=max_len, threads=args.threads), lambda y: y.ids)
    sampling = Sampling(1.0, length, NEVER)
    if args.serve == "vllm":  # which refuses ids outside the vocabulary; a Sampling without any is refused elsewhere
        object.__setattr__(sampling, "stop_token_ids", ())
    channel.send(ready=True)
    for seed, _ in enumerate(channel.requests()):
        start = time.perf_counter()
        groups = engine.generate(batch.prompts, n, sampling, seed)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        channel.send(seconds=seconds, lengths=[len(ids(y)) for group in groups for y in group])


def batch_of(model: str, quick: bool) -> tuple[FixedBatch, int, int]:
    """Prompts, responses to each, and tokens of a response."""
    prompts, n, length = BATCHES.get(model, LARGE)
    if quick:
        prompts, n, length = 2, 2, 8
    bounds = RECIPES[model].prompt_tokens
    return FixedBatch.draw(Recipe(prompts, 1, bounds, bounds, (1, 1), 1), ids_of(checkpoint(model))), n, length


def check_equal_work(answers: dict[str, list[dict]], responses: int, length: int) -> None:
    """ValueError unless every engine sampled so many responses of that length in every call."""
    for name, rows in answers.items():
        for row in rows:
            if row["lengths"] != [length] * responses:
                raise ValueError(
                    f"{name} sampled {len(row['lengths'])} responses of {min(row['lengths'])} to {max(row['lengths'])} tokens, "
                    f"expected {responses} of {length}: its speed cannot be compared"
                )


def measure_model(model: str, args) -> dict:
    """Tokens per second by engine, and the suite's engines over `generate`."""
    batch, n, length = batch_of(model, args.quick)
    threads = args.threads or (1 if model == "tiny" else 2)
    workers: dict[str, Worker] = {}
    try:
        for name in args.engines:
            arguments = ["--serve", name, "--models", model, "--threads", threads, *(["--quick"] if args.quick else [])]
            workers[name] = Worker(sys.executable, "benchmarks/rollout.py", arguments, threads=threads)
        answers = take_turns(workers, 1 + args.repeats)
    finally:
        for worker in workers.values():
            worker.close()
    responses = len(batch.prompts) * n
    check_equal_work(answers, responses, length)
    seconds = {name: [row["seconds"] for row in rows[1:]] for name, rows in answers.items()}
    engines = {
        name: {
            "tokens_per_second": round(responses * length / median(own), 1),
            "seconds": round(median(own), 4),
            "speed_over": {
                other: round(median(b / a for a, b in zip(own, seconds[other], strict=True)), 3)
                for other in seconds
                if other != name
            },
        }
        for name, own in seconds.items()
    }
    prompt_tokens = sum(map(len, batch.prompts))
    facts = {"model": model, "precision": precision_of(model), "threads": threads, "prompts": len(batch.prompts)}
    return {**facts, "prompt_tokens": prompt_tokens, "responses": responses, "length": length, "engines": engines}


def table(report: dict) -> str:
    """The report as Markdown."""
    lines = [
        "# Rollouts: sampled tokens per second",
        "",
        "Written by `benchmarks/rollout.py`; the same numbers are in `rollout.json`.",
        "",
        *in_words(report),
        f"- Medians of {report['setting']['repeats']} calls that take turns. `over generate`: speed over that of transformers.",
        "",
        "| model | precision | threads | prompts x responses x tokens | engine | tokens/s | over generate |",
        "|" + "---|" * 7,
    ]
    for m in report["models"]:
        size = f"{m['prompts']} x {m['responses'] // m['prompts']} x {m['length']}"
        for name, e in m["engines"].items():
            over = e["speed_over"].get("hf-generate")
            cells = [m["model"], m["precision"], m["threads"], size, name, f"{e['tokens_per_second']:.0f}"]
            lines.append("| " + " | ".join([*map(str, cells), "-" if over is None else f"{over:.2f}"]) + " |")
    return "\n".join(lines) + "\n"


def parse(argv=None):
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", nargs="+", choices=NAMES, default=list(CPU_MODELS))
    p.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, help="CPU threads (default: 1 for tiny, else 2)")
    p.add_argument("--quick", action="store_true", help="a few tokens only")
    p.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=RESULTS)
    return p.parse_args(argv)


def main() -> None:
    """Parse the command line, measure, and write the files."""
    args = parse()
    if args.serve:
        serve(args)
        return
    models = []
    for model in args.models:
        models.append(measure_model(model, args))
        print(model, {name: e["tokens_per_second"] for name, e in models[-1]["engines"].items()}, flush=True)
    report = {"setting": {"repeats": args.repeats}, **machine(args.threads), "models": models}
    write_report(args.out, "rollout", report, table(report))


if __name__ == "__main__":
    run(main)

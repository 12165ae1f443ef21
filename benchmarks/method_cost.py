"""What a training step of each method costs, relative to GRPO: benchmarks/results/method_cost.json and .md.

    python -m benchmarks.method_cost --scale cpu-chain [--methods sdpg-ufkl opcd] [--steps 12] [--rounds 5] [--results DIR]

All methods take turns step by step in one process, so that a slow moment of the machine meets all of them alike. The learning
rate is 0: every method works on the base model's own rollouts, of the same problems with the same seeds. Steps lie in the
middle of training, where beta > 0. It needs the scale's base model and data:

    snakemake base_model data --config scale=cpu-chain
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.machine import extra_memory_mb, in_words, machine, median
from sdpg.cli import config_of, run
from sdpg.io import write_atomic, write_json

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "grpo"
WARM_UP = 2  # untimed steps of each method
PHASES = ("rollout", "verify", "reference", "teacher", "train", "optimizer", "sync")
FACTS = ("tokens", "sampled_tokens", "gate_fraction", "teacher_fraction")


def build_trainer(config, method: str, seed: int, *, steps: int, engine, results: Path, work: Path):
    """Build a trainer of `method` as training does, with learning rate 0 and nothing but training steps."""
    from transformers import AutoTokenizer

    from sdpg.config import run_config
    from sdpg.core.trainer import Trainer
    from sdpg.experiment.compose import make_algorithm
    from sdpg.tasks.data import load_problems
    from sdpg.tasks.task import make_task

    root = results / config.name
    run = run_config(config, method, seed)
    tokenizer = AutoTokenizer.from_pretrained(root / "model" / "base0")
    return Trainer(
        run.train.model_copy(update={"steps": steps, "lr": 0.0, "checkpoint_every": steps}),
        make_algorithm(config, method),
        base=root / "model" / "base0",
        tokenizer=tokenizer,
        task=make_task(run.task, tokenizer),
        engine=engine,
        problems=load_problems(root / "data" / "train.parquet"),
        seed=seed,
        validation={},
        work=work / method,
        identity={},
        title=method,
    )


def build_engine(config, results: Path, threads: int):
    """Start the one rollout engine of the benchmark: all methods hold the same weights, so they can share it."""
    from sdpg.rollout.engines import make_engine

    train = config.train
    max_len = train.max_prompt_tokens + train.max_response_tokens
    base = results / config.name / "model" / "base0"
    return make_engine(train.engine, base, dtype=train.dtype, max_len=max_len, threads=threads)


def time_steps(trainers: dict, *, first: int, steps: int, rounds: int) -> dict[str, list[list[dict]]]:
    """Rows of metrics by method and round: rounds x steps steps each, the methods taking turns, who begins too."""
    from sdpg.progress import Progress

    names = list(trainers)
    for k in range(first, first + WARM_UP):
        for name in names:
            trainers[name].step(k)
    rows = {name: [[] for _ in range(rounds)] for name in names}
    with Progress(steps * rounds, "method cost", "step") as progress:
        for i in range(steps * rounds):
            turn = i % len(names)
            for name in names[turn:] + names[:turn]:
                rows[name][i // steps].append(trainers[name].step(first + WARM_UP + i))
            last = rows[names[0]][i // steps][-1]
            progress.update(1, f"{names[0]} {last['seconds']:.3f} s a step")
    return rows


def summarise(rows: dict[str, list[list[dict]]]) -> dict[str, dict]:
    """By method: median milliseconds of a step and its phases, ratio to GRPO (median over rounds, and range), token counts."""
    by_round = {name: [median(row["seconds"] for row in one) for one in rounds] for name, rounds in rows.items()}
    result = {}
    for name, rounds in rows.items():
        flat = [row for one in rounds for row in one]
        ratios = [own / base for own, base in zip(by_round[name], by_round[BASELINE], strict=True)]
        phases = {phase: round(1e3 * median(row[f"seconds_{phase}"] for row in flat), 2) for phase in PHASES}
        result[name] = {
            "ratio": round(median(ratios), 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            "step_ms": round(1e3 * median(row["seconds"] for row in flat), 2),
            "phases_ms": phases,
            **{fact: round(statistics.fmean(row[fact] for row in flat), 3) for fact in FACTS},
        }
    return result


def model_memory_mb(trainer) -> float:
    """MiB of the weights that the method holds (policy, reference, average) and of the optimizer's masters and moments."""
    models = [m for m in (trainer.models.policy, trainer.models.reference, trainer.models.average) if m is not None]
    tensors = [p for model in models for p in model.parameters()] + list(trainer.optimizer.masters)
    if trainer.average:
        tensors += list(trainer.average.masters)
    held = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
    moments = sum(2 * m.numel() * m.element_size() for m in trainer.optimizer.masters)
    return (sum(held.values()) + moments) / 2**20


def table(report: dict) -> str:
    """The report as Markdown."""
    setting = report["setting"]
    lines = [
        "# Cost of a training step by method",
        "",
        f"Written by `benchmarks/method_cost.py --scale {setting['scale']}`; the same numbers are in `method_cost.json`.",
        "",
        *in_words(report),
        f"- {setting['prompts_per_step']} prompts a step, {setting['group_size']} responses each where the method's file does "
        f"not say otherwise, {setting['precision']}; {setting['rounds']} rounds of {setting['steps']} steps at the base "
        "model's weights, methods taking turns.",
        "- `ratio`: step time over GRPO's, median over rounds (range). Columns in ms are medians. `models` is the memory of "
        "weights and optimizer, `step` what a step needs beyond it at its peak (MiB). `gate`: share of responses with A > 0.",
        "",
        "| method | ratio | step ms | rollout | reference | teacher | train | rest | tokens | sampled | gate | teacher share "
        "| models | step |",
        "|" + "---|" * 14,
    ]
    for name, m in sorted(report["methods"].items(), key=lambda item: item[1]["ratio"]):
        p = m["phases_ms"]
        shown = [p[phase] for phase in ("rollout", "reference", "teacher", "train")]
        low, high = m["ratio_range"]
        cells = [name, f"{m['ratio']:.2f} ({low:.2f}-{high:.2f})", f"{m['step_ms']:.0f}"]
        cells += [f"{x:.0f}" for x in (*shown, m["step_ms"] - sum(shown), m["tokens"], m["sampled_tokens"])]
        cells += [f"{m['gate_fraction']:.2f}", f"{m['teacher_fraction']:.2f}", f"{m['memory_models_mb']:.1f}"]
        cells += ["-" if m["memory_step_mb"] is None else f"{m['memory_step_mb']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def measure(config, names: list[str], args) -> dict:
    """Time all methods and measure their memory -> the report."""
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    transformers.logging.disable_progress_bar()
    total = args.steps * args.rounds + WARM_UP + 1
    engine = build_engine(config, args.results, args.threads)
    with tempfile.TemporaryDirectory() as work:
        where = {"results": args.results, "work": Path(work)}
        trainers = {name: build_trainer(config, name, 0, steps=4 * total, engine=engine, **where) for name in names}
        rows = time_steps(trainers, first=total, steps=args.steps, rounds=args.rounds)
        methods = summarise(rows)
        for name, trainer in trainers.items():
            methods[name]["memory_models_mb"] = round(model_memory_mb(trainer), 2)
            memory = [extra_memory_mb(lambda i=i, t=trainer: t.step(2 * total + i)) for i in range(3)]
            methods[name]["memory_step_mb"] = None if None in memory else round(median(memory), 1)
    engine.close()
    train = {key: getattr(config.train, key) for key in ("prompts_per_step", "group_size", "precision", "engine")}
    setting = {"scale": config.name, "steps": args.steps, "rounds": args.rounds, **train}
    return {"setting": setting, **machine(args.threads), "methods": methods}


def main() -> None:
    """Parse the command line, measure, and write the two files."""
    from sdpg.config import METHODS

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", default="cpu-chain", help="a scale whose base model and data are made (default: cpu-chain)")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    p.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    known = sorted(path.stem for path in METHODS.glob("*.yaml"))
    p.add_argument("--methods", nargs="+", default=known, metavar="NAME", help="default: all of config/methods")
    p.add_argument("--steps", type=int, default=12, help="steps of a round (default: 12)")
    p.add_argument("--rounds", type=int, default=5, help="rounds, each of which gives one ratio (default: 5)")
    p.add_argument("--results", type=Path, default=Path("results"), help="folder of the scale's results (results)")
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder to write to")
    args = p.parse_args()
    if min(args.steps, args.rounds) < 1:
        raise ValueError(f"--steps and --rounds must be at least 1, got {args.steps} and {args.rounds}")
    names = list(dict.fromkeys([BASELINE, *args.methods]))
    args.overrides.insert(0, f"methods=[{', '.join(names)}]")
    config = config_of(args.scale, args.overrides, args.threads)
    root = args.results / config.name
    for path, rule in ((root / "model" / "base0" / "config.json", "base_model"), (root / "data" / "train.parquet", "data")):
        if not path.is_file():
            raise ValueError(f"{path} is missing; run `snakemake {rule} --config scale={args.scale}` first")
    report = measure(config, names, args)
    write_json(args.out / "method_cost.json", report)
    with write_atomic(args.out / "method_cost.md") as file:
        file.write(table(report))
    print(table(report))


if __name__ == "__main__":
    run(main)

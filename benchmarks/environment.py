"""Judge a scale as an environment, by GRPO and its base models alone: docs/environment.md has the criteria and what was tried.

    python -m benchmarks.environment --scale cpu --bases 0 1 --rates 3e-4 6e-4 --folder /tmp/environment
    python -m benchmarks.environment --scale lm-length --rates --threads 2    # the model alone, as student and as teacher

For each base model: accuracy and lengths as student and as teacher. For each of them and each learning rate: one run of
`--method` (GRPO), its accuracy and entropy along the way, and the same at its end. One process. Prints one JSON line for each,
and one with the criteria over all runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from sdpg.cli import check_base
from sdpg.config import Config, parse_overrides, resolve
from sdpg.io import write_atomic

WINDOW = 10  # steps: accuracy and entropy are means over so many
PROBLEMS, SAMPLES = 100, 8  # at most so many problems of the evaluation set


def r_squared(accuracy: np.ndarray, entropy: np.ndarray, degree: int = 2) -> float:
    """Return the share of entropy's variance that a polynomial of accuracy explains."""
    fitted = np.polyval(np.polyfit(accuracy, entropy, degree), accuracy)
    return float(1 - ((entropy - fitted) ** 2).sum() / ((entropy - entropy.mean()) ** 2).sum())


def spread(lengths: list[float]) -> float:
    """Return the ratio of the 90th to the 10th percentile; nan for fewer than 20 lengths."""
    return float(np.percentile(lengths, 90) / np.percentile(lengths, 10)) if len(lengths) >= 20 else float("nan")


def by_length(responses: list[tuple[int, bool]]) -> dict[str, float]:
    """Return the accuracy of short and of long responses [(tokens, correct)], and the share of long ones.

    The limit lies half way between the 10th and the 90th percentile of their lengths.
    """
    low, high = np.percentile([n for n, _ in responses], [10, 90])
    long = [correct for n, correct in responses if n > (low + high) / 2]
    short = [correct for n, correct in responses if n <= (low + high) / 2]
    return {
        "long": len(long) / len(responses),
        "accuracy_short": float(np.mean(short)) if short else float("nan"),
        "accuracy_long": float(np.mean(long)) if long else float("nan"),
    }


def measure(checkpoint: Path, config: Config, data: Path, role: str = "student") -> dict[str, float]:
    """Sample evaluation problems -> accuracy; length of correct responses and its spread, over all and for the same problem."""
    from transformers import AutoTokenizer

    from sdpg.rollout.engines.in_process import HFEngine
    from sdpg.tasks.data import load_problems
    from sdpg.tasks.task import make_task
    from sdpg.types import Sampling

    task = make_task(config.task, AutoTokenizer.from_pretrained(checkpoint))
    problems = load_problems(next(iter(sorted(data.glob("eval/*.parquet")))))[:PROBLEMS]
    prompts = [task.student_prompt(p) if role == "student" else task.teacher_prompt(p) for p in problems]
    longest = max(map(len, prompts)) + config.train.max_response_tokens
    engine = HFEngine(checkpoint, dtype="float32", max_len=longest, max_rows=128)
    sampling = Sampling(1.0, config.train.max_response_tokens, task.stop_token_ids)
    rollouts = engine.generate(prompts, SAMPLES, sampling, 7)
    engine.close()
    scored = [
        (p, len(r.ids), task.score(p, r.ids, r.finish_reason))
        for p, group in zip(problems, rollouts, strict=True)
        for r in group
    ]
    right = [(p, n) for p, n, score in scored if score.correct]
    return {
        "accuracy": len(right) / len(scored),
        "process": float(np.mean([score.process or 0.0 for *_, score in scored])),
        "length": float(np.mean([n for _, n in right])) if right else float("nan"),
        "spread": spread([n for _, n in right]),
        "spread_same_problem": spread([n / len(p.solution) for p, n in right if p.solution]),
        **by_length([(n, score.correct) for _, n, score in scored]),
    }


def windows(rows: list[dict], key: str) -> np.ndarray:
    """Return the means of a metric over windows of WINDOW steps."""
    values = np.array([row[key] for row in rows], dtype=float)
    return values[: len(values) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1)


def judged(config: Config, method: str, base: int, folder: Path, threads: int) -> dict:
    """Train one run from base model `base` -> what the criteria look at."""
    from sdpg.experiment.compose import is_finished, train_run

    root = folder / config.name
    bases = len(config.model.warm_start.seeds) if config.model.warm_start else 1
    seed = next((s for s in config.seeds if s % bases == base), base)  # of the scale, or else one that starts from it
    start = time.process_time()
    done = is_finished(config, method, seed, folder)
    run = root / "runs" / method / f"seed{seed}" if done else train_run(config, method, seed, threads=threads, results=folder)
    seconds = time.process_time() - start
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = json.loads((run / "checkpoints" / "checkpoints.json").read_text())["checkpoints"]
    last = run / "checkpoints" / steps[-1]["path"]
    validation = [np.mean([v for k, v in row.items() if k.startswith("validation_")]) for row in rows if _validated(row)]
    return {
        "method": method,
        "base": base,
        "rate": config.train.lr,
        "cpu_seconds": round(seconds, 1),
        "validation": [round(float(v), 3) for v in validation],
        "accuracy": windows(rows, "accuracy").round(3).tolist(),
        "entropy": windows(rows, "entropy").round(3).tolist(),
        "response_length": windows(rows, "response_length").round(1).tolist(),
        "end": measure(last, config, root / "data"),
    }


def _validated(row: dict) -> bool:
    return any(key.startswith("validation_") for key in row)


def base_facts(config: Config, folder: Path, base: int, threads: int) -> dict:
    """Make base model `base` -> its accuracy and lengths as student and as teacher, before any training."""
    from sdpg.experiment.base_model import make_base_model

    model, start = folder / "model" / f"base{base}", time.process_time()
    if not model.exists():
        make_base_model(config, folder / "model", index=base, threads=threads)
    facts = {"base": base, "cpu_seconds": round(time.process_time() - start, 1)}
    return facts | {role: measure(model, config, folder / "data", role) for role in ("student", "teacher")}


def main() -> None:
    """Judge the scale that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bases", type=int, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="*", help="none: the base models alone; default: the scale's own")
    parser.add_argument("--method", default="grpo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("results/.environment"))
    a = parser.parse_args()
    import torch

    from sdpg.experiment.problems import make_problems

    torch.set_num_threads(a.threads)

    plain = resolve(a.scale, parse_overrides(a.set))
    for base in a.bases:
        check_base(plain, base)
    settings = hashlib.sha256(repr(sorted(a.set)).encode()).hexdigest()[:8]
    name = f"{plain.name}-{settings}" if a.set else plain.name

    def config_of(part: str, *overrides: str) -> Config:
        """Return the config with these overrides; its data lie in the folder of its name."""
        own = parse_overrides([*a.set, f"name={name}-{part}", f"methods=[{a.method}]", *overrides])
        config = resolve(a.scale, own)
        if not (a.folder / config.name / "data" / "train.parquet").is_file():
            make_problems(config, a.folder / config.name / "data")
        return config

    runs = []
    for base in a.bases:
        config = config_of("base")
        made = a.folder / config.name / "model" / f"base{base}"
        facts = a.folder / config.name / f"base{base}.facts.json"
        if not facts.is_file():
            text = json.dumps(base_facts(config, a.folder / config.name, base, a.threads))
            with write_atomic(facts) as file:
                file.write(text + "\n")
        print(facts.read_text(encoding="utf-8").strip(), flush=True)
        for rate in [plain.train.lr] if a.rates is None else a.rates:
            config = config_of(f"lr{rate:g}", f"train.lr={rate}", "tuned=null")
            model = a.folder / config.name / "model" / f"base{base}"
            if not model.exists():
                model.parent.mkdir(parents=True, exist_ok=True)
                model.symlink_to(made.absolute())
                model.with_suffix(".json").symlink_to(made.with_suffix(".json").absolute())
            runs.append(judged(config, a.method, base, a.folder, a.threads))
            print(json.dumps(runs[-1]), flush=True)
    if runs:
        accuracy = np.concatenate([run["accuracy"] for run in runs])
        entropy = np.concatenate([run["entropy"] for run in runs])
        value = round(r_squared(accuracy, entropy), 3) if len(accuracy) > 4 else None  # a quadratic explains any three points
        print(json.dumps({"r_squared_of_entropy_on_accuracy": value, "points": len(accuracy)}))


if __name__ == "__main__":
    main()

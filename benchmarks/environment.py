"""Judge a scale as an environment, by GRPO and its base models alone: docs/environment.md has the criteria and what was tried.

    python -m benchmarks.environment --scale cpu --bases 0 1 --rates 3e-4 6e-4 --folder /tmp/environment

For each base model and learning rate: one run of `--method` (GRPO), its accuracy and entropy along the way, and the lengths of
correct responses before and after. One process, one thread. Prints one JSON line a run, and one with the criteria over all.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from sdpg.config import Config, parse_overrides, resolve

WINDOW = 10  # steps: accuracy and entropy are means over so many
PROBLEMS, SAMPLES = 100, 8


def r_squared(accuracy: np.ndarray, entropy: np.ndarray, degree: int = 2) -> float:
    """Return the share of entropy's variance that a polynomial of accuracy explains."""
    fitted = np.polyval(np.polyfit(accuracy, entropy, degree), accuracy)
    return float(1 - ((entropy - fitted) ** 2).sum() / ((entropy - entropy.mean()) ** 2).sum())


def spread(lengths: list[float]) -> float:
    """Return the ratio of the 90th to the 10th percentile; nan for fewer than 20 lengths."""
    return float(np.percentile(lengths, 90) / np.percentile(lengths, 10)) if len(lengths) >= 20 else float("nan")


def measure(checkpoint: Path, config: Config, data: Path, role: str = "student") -> dict[str, float]:
    """Sample evaluation problems -> accuracy; length of correct responses and its spread, over all and for the same problem."""
    from transformers import AutoTokenizer

    from sdpg.rollout.engines.in_process import HFEngine
    from sdpg.tasks.data import load_problems
    from sdpg.tasks.task import make_task
    from sdpg.types import Sampling

    task = make_task(config.task, AutoTokenizer.from_pretrained(checkpoint))
    problems = load_problems(next(iter(sorted(data.glob("eval/*.parquet")))))[:PROBLEMS]
    engine = HFEngine(checkpoint, dtype="float32", max_len=512)
    prompt = task.student_prompt if role == "student" else task.teacher_prompt
    sampling = Sampling(1.0, config.train.max_response_tokens, task.stop_token_ids)
    rollouts = engine.generate([prompt(p) for p in problems], SAMPLES, sampling, 7)
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
        "spread_same_problem": spread([n / len(p.solution) for p, n in right]),
    }


def windows(rows: list[dict], key: str) -> np.ndarray:
    """Return the means of a metric over windows of WINDOW steps."""
    values = np.array([row[key] for row in rows], dtype=float)
    return values[: len(values) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1)


def judged(config: Config, method: str, base: int, folder: Path) -> dict:
    """Train one run from base model `base` -> what the criteria look at."""
    from sdpg.experiment.compose import is_finished, train_run

    root = folder / config.name
    seed = next(s for s in config.seeds if s % len(config.model.warm_start.seeds) == base)
    start = time.process_time()
    done = is_finished(config, method, seed, folder)
    run = root / "runs" / method / f"seed{seed}" if done else train_run(config, method, seed, threads=1, results=folder)
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


def main() -> None:
    """Judge the scale that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bases", type=int, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4])
    parser.add_argument("--method", default="grpo")
    parser.add_argument("--folder", type=Path, default=Path("results/.environment"))
    a = parser.parse_args()
    import torch

    from sdpg.experiment.base_model import make_base_model
    from sdpg.experiment.problems import make_problems

    torch.set_num_threads(1)
    runs = []
    for base in a.bases:
        for rate in a.rates:
            name = f"lr{rate:g}"
            config = resolve(
                a.scale, parse_overrides([*a.set, f"train.lr={rate}", f"name={name}", "tuned=null", f"methods=[{a.method}]"])
            )
            root = a.folder / name
            if not (root / "data" / "train.parquet").is_file():
                make_problems(config, root / "data")
            model = root / "model" / f"base{base}"
            shared = a.folder / f"lr{a.rates[0]:g}" / "model"
            if not (shared / f"base{base}").exists():
                start = time.process_time()
                report = make_base_model(config, shared, index=base)
                facts = {"base": base, "cpu_seconds": round(time.process_time() - start, 1)}
                facts |= {role: report[role]["accuracy"] for role in ("student", "teacher")}
                facts |= {"start": measure(shared / f"base{base}", config, root / "data")}
                facts |= {"hinted": measure(shared / f"base{base}", config, root / "data", "teacher")}
                print(json.dumps(facts), flush=True)
            if not model.exists():
                model.parent.mkdir(parents=True, exist_ok=True)
                model.symlink_to((shared / f"base{base}").absolute())
                model.with_suffix(".json").symlink_to((shared / f"base{base}.json").absolute())
            runs.append(judged(config, a.method, base, a.folder))
            print(json.dumps(runs[-1]), flush=True)
    accuracy = np.concatenate([run["accuracy"] for run in runs])
    entropy = np.concatenate([run["entropy"] for run in runs])
    print(json.dumps({"r_squared_of_entropy_on_accuracy": round(r_squared(accuracy, entropy), 3), "points": len(accuracy)}))


if __name__ == "__main__":
    main()

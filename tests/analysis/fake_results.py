"""Writes a small, plausible results/<name> tree without training anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sdpg import artefacts
from sdpg.analysis.results import Results
from tests.making import job_of

LEVELS = {"sdpg-ufkl": 0.65, "sdpg-urkl": 0.63, "grpo": 0.57, "opcd": 0.06}  # accuracy at the end; others lie between
PHASES = ("rollout", "verify", "reference", "teacher", "train", "optimizer", "sync", "validation", "checkpoint")


def level(method: str, index: int) -> float:
    return LEVELS.get(method, 0.3 + 0.03 * index)


def write_evaluation(path: Path, steps, problems: int, samples: int, accuracy, rng, process: bool) -> None:
    """Write one eval parquet file: accuracy(step) is the mean chance of a right answer; problems differ in difficulty."""
    difficulty = np.random.default_rng(1).normal(0, 1, problems)  # the same problems for every run
    rows = []
    for step in steps:
        logit = np.log(accuracy(step) / (1 - accuracy(step)))
        p = 1 / (1 + np.exp(-(logit + difficulty)))
        correct = rng.random((problems, samples)) < p[:, None]
        right = correct & (rng.random(correct.shape) < 0.8)
        tokens = rng.integers(8, 40, correct.shape)
        entropy = rng.uniform(0.1, 0.6, correct.shape)
        cut = rng.random(correct.shape) < 0.1
        for i in range(problems):
            for j in range(samples):
                rows.append(
                    {
                        "step": step,
                        "problem_id": f"p{i:03d}",
                        "sample": j,
                        "correct": bool(correct[i, j]),
                        "process": float(right[i, j]) if process else None,
                        "tokens": int(tokens[i, j]),
                        "finish_reason": "length" if cut[i, j] else "stop",
                        "entropy": float(entropy[i, j]),
                        "text": "1+1=2",
                    }
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    frame["process"] = frame["process"].astype("float64")
    frame.sample(frac=1, random_state=0).to_parquet(path)  # row order carries no meaning


def write_run(folder: Path, method: str, seed: int, steps: int, end: float, rng, process: bool) -> None:
    """Write run.json and metrics.jsonl of one run."""
    algorithm = {"algorithm": method}
    if method == "grpo":
        algorithm["normalise_std"] = True
    schedule = None
    if method.startswith("sdpg"):
        algorithm |= {"beta_base": 1.0, "T_warm": max(1, steps // 8), "T_decay": max(1, 7 * steps // 8)}
        schedule = lambda k: min(1, k / algorithm["T_warm"]) * min(1, (steps - k) / algorithm["T_decay"])  # noqa: E731
    config = {
        "scale": "fake",
        "seed": seed,
        "method": method,
        "algorithm": algorithm,
        "train": {"steps": steps, "lr": 3e-4, "updates_per_batch": 1},
    }
    filled = {key: value for key, value in algorithm.items() if key != "algorithm"} | {"T": steps}
    info = {
        "config": config,
        "algorithm": filled,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "git_commit": "0123456789abcdef",
        "code": [f"sdpg/core/trainer.py {seed:012x}"],
        "inputs": {"train.parquet": f"{seed:064x}"},
        "hardware": {"cores": 2, "gpu": None},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(info))
    rows = []
    for k in range(1, steps + 1):
        progress = 1 - np.exp(-3 * k / steps)
        reward = 0.23 + (end - 0.23) * progress + rng.normal(0, 0.03)
        row = {
            "step": k,
            "reward": float(np.clip(reward, 0, 1)),
            "accuracy": float(np.clip(reward, 0, 1)),
            "entropy": float(0.5 - 0.3 * progress * end + rng.normal(0, 0.01)),
            "response_length": float(24 - 20 * progress * (end < 0.1) + rng.normal(0, 0.4)),
            "process_accuracy": float(np.clip(0.8 * reward, 0, 1)) if process else None,
            "truncated": float(abs(rng.normal(0.02, 0.01))),
            "beta": schedule(k) if schedule else None,
            "seconds": 0.2,
            "sampled_tokens": 128 * (16 + k % 8),
            "grad_norm": float(0.5 + abs(rng.normal(0, 0.1))),
            "kl_ref": None if method == "opcd" else float(0.1 * progress + abs(rng.normal(0, 0.01))),
            "logprob_gap_max": float(1e-6 + abs(rng.normal(0, 1e-6))),
            "informative_groups": float(np.clip(1 - progress * end + rng.normal(0, 0.05), 0, 1)),
            "gate_fraction": float(np.clip(0.4 * reward, 0, 1)),
        }
        rows.append(row | {f"seconds_{phase}": 0.02 for phase in PHASES})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def diverge(results: Results, method: str, seed: int, step: int, last: int) -> None:
    """Let a run have diverged at `step`, with its last checkpoint at step `last`."""
    run = results.run_dir(method, seed)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][:step]
    broken = [name for name in ("entropy", "kl_ref", "grad_norm", "logprob_gap_max") if rows[-1][name] is not None]
    rows[-1] |= dict.fromkeys(broken) | {"nonfinite": len(broken), "diverged": "gradient norm is nan at update 1"}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = json.loads((run / "run.json").read_text())
    outcome = {"status": "diverged", "step": step, "reason": rows[-1]["diverged"], "last_checkpoint": last, "batch": "diverged"}
    (run / "run.json").write_text(json.dumps(info | {"outcome": outcome}))
    for task in results.tasks:
        path = results.eval_dir(method, seed) / f"{task}.parquet"
        frame = pd.read_parquet(path)
        frame[frame["step"] <= last].to_parquet(path)


def write_lm_eval(path: Path, tasks, value: float) -> None:
    """Write lm_eval.json of one run, in lm-eval's form."""
    entry = {"alias": "x", "accuracy,mean@4": value, "accuracy_stderr,mean@4": 0.02, "process_accuracy,mean@4": 0.1}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"results": dict.fromkeys(tasks, entry), "n-shot": {}}))


def write_results(
    root: Path,
    *,
    methods=("sdpg-ufkl", "sdpg-urkl", "grpo", "opcd"),
    seeds=(0, 1, 2),
    tasks=("chain", "chain-long"),
    steps=40,
    every=20,
    problems=16,
    samples=8,
    process=True,
    lm_eval=True,
) -> Results:
    """Write the tree of `Results` with everything that comes before scores.csv."""
    for i, method in enumerate(methods):
        for seed in seeds:
            rng = np.random.default_rng([i, seed])
            end = level(method, i)
            write_run(root / "runs" / method / f"seed{seed}", method, seed, steps, end, rng, process)
            folder = root / "eval" / method / f"seed{seed}"
            for t, task in enumerate(tasks):

                def accuracy(step, end=end, t=t):
                    return (0.22 + (end - 0.22) * (1 - np.exp(-3 * step / steps))) / (1 + 0.4 * t)

                checkpoints = range(0, steps + 1, every)
                write_evaluation(folder / f"{task}.parquet", checkpoints, problems, samples, accuracy, rng, process)
            if lm_eval:
                write_lm_eval(folder / "lm_eval.json", [*tasks, "reverse"], end)
    return Results(
        root=root,
        methods=tuple(methods),
        seeds=tuple(seeds),
        tasks=tuple(tasks),
        samples=samples,
        pass_k=(1, 4, 8),
        steps=steps,
        lm_eval={"repeats": 4, "limit": 64, "forgetting": "reverse"} if lm_eval else None,
    )


def write_analysis(results: Results) -> None:
    """Write the score files, and every summary that the tree's methods allow."""
    job = job_of(replace(results))  # what it reads, it keeps: the caller may yet change the files
    there = artefacts.planned(job.config)
    for name in ("scores", "power", "stability", "cost", "decomposition"):
        if name in there:
            artefacts.make(name, job)


def write_problems(results: Results) -> None:
    """Write data/eval of a fake tree: the problems of its evaluation files."""
    for task in results.tasks:
        evaluated = pd.read_parquet(results.eval_dir(results.methods[0], results.seeds[0]) / f"{task}.parquet")
        ids = sorted(evaluated["problem_id"].unique())
        path = results.root / "data" / "eval" / f"{task}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"id": ids, "question": [f"{i}?" for i in ids], "answer": "1"}).to_parquet(path)


def claim(name: str, **fields) -> dict:
    """Return one entry of claims.json."""
    entry = {
        "id": name,
        "claim": "SDPG-UFKL ends above GRPO on chain",
        "source": "Table 1",
        "role": "primary",
        "test": "mean",
        "family": "matched",
        "comparison": "sdpg-ufkl - grpo, chain, last checkpoint",
        "effect": 0.08,
        "low": 0.03,
        "high": 0.13,
        "estimate": 0.08,
        "error": 0.02,
        "df": 12,
        "unit": "accuracy",
        "direction": "above",
        "margin": 0.01,
        "paper": 0.1,
        "verdict": "supported",
        "axis": "steps",
        "reason": "beyond the margin",
        "figure": "final_accuracy",
        "p": 0.004,
        "p_adjusted": 0.016,
        "p_collapse": 0.5,
        "interaction": None,
        "parts": [],
        "preconditions": [{"what": "room above grpo's accuracy", "value": 0.2, "needed": 0.1, "met": True}],
        "collapsed": [{"method": "sdpg-ufkl", "collapsed": 1, "runs": 10, "low": 0.0025, "high": 0.445}],
        "units": [0, 1],
    }
    return entry | fields


def write_claims(results: Results) -> list[dict]:
    """Write claims.json with every kind of verdict."""
    none = dict.fromkeys(("effect", "low", "high", "estimate", "error", "df", "p", "p_adjusted", "p_collapse"))
    none |= {"collapsed": [], "preconditions": []}
    claims = [
        claim("ends-above-grpo"),
        claim(
            "higher-entropy",
            claim="SDPG-UFKL keeps a higher entropy than RLSD",
            source="Figure 3e",
            effect=-0.03,
            low=-0.05,
            high=0.02,
            unit="nats per token",
            verdict="open",
            role="exploratory",
            estimate=-0.03,
            figure="training_curves",
            p=0.31,
            p_adjusted=0.62,
        ),
        claim(
            "shorter",
            role="exploratory",
            verdict="not testable here",
            reason="length of grpo's right responses: 1, at least 1.5 needed",
            preconditions=[{"what": "length of grpo's right responses", "value": 1.0, "needed": 1.5, "met": False}],
            p=None,
            p_adjusted=None,
        ),
        claim("opcd-collapses", **none, verdict="not run at this scale", figure=None, reason="needs <400 steps>"),
        claim("one-run", **none | {"effect": -0.1}, verdict="single run, no interval", figure="beta_schedule"),
    ]
    (results.root / "claims.json").write_text(json.dumps(claims))
    return claims


def write_extras(results: Results) -> None:
    """Write what the workflow leaves beside the analysed results: benchmarks, a base model, checkpoints, a manifest."""
    columns = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    folder = results.root / "benchmarks" / "train"
    folder.mkdir(parents=True)
    for method, seed in [*results.runs, ("gone", 0)]:  # the last: of a method that the config no longer has
        (folder / f"{method}-seed{seed}.tsv").write_text(columns + "12.5\t0:00:12\t310.2\t0\t0\t0\t0\t0\t90.0\t10.0\n")
        checkpoint = results.run_dir(method, seed) / "checkpoints" / "step000040"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_text("weights")
    (folder.parent / "scores.tsv").write_text(columns + "0.5\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n")
    (results.root / "model").mkdir()
    (results.root / "model" / "base0.json").write_text(json.dumps({"student_accuracy": 0.25}))
    (results.root / "manifest.json").write_text("{}")

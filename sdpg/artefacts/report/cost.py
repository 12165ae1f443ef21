"""What the results cost: seconds by rule and phase, tokens, FLOPs where the runs count them, and what energy that means."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sdpg.analysis.results import Results

WATTS = (5, 15)  # assumed for one busy core of a server or laptop CPU, memory included; no meter was read


def benchmarks(results: Results) -> list[dict[str, Any]]:
    """Return Snakemake's benchmark files of this config's jobs as {job, rule, seconds, cpu, memory in MB}, sorted by name.

    rule: the folder of the file. cpu: CPU-seconds. A value that was not measured is None; of repetitions, the first counts.
    """
    folder, found = results.root / "benchmarks", []
    runs = {f"{method}-seed{seed}" for method, seed in results.runs}
    for path in sorted(folder.rglob("*.tsv")) if folder.is_dir() else []:
        if "-seed" in path.stem and path.stem not in runs:
            continue  # of a method or seed that this config does not have
        with open(path, encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"), None)
        if row:
            name = path.relative_to(folder).with_suffix("").as_posix()
            values = {"seconds": _value(row, "s"), "cpu": _value(row, "cpu_time"), "memory": _value(row, "max_rss")}
            found.append({"job": name, "rule": name.partition("/")[0], **values})
    return found


def cost(metrics: pd.DataFrame, jobs: list[dict], infos: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the page's section on cost shows. jobs: `benchmarks`; infos: run.json of every run."""
    hardware = [info.get("hardware", {}) for info in infos]
    return {
        "rules": by_rule(jobs),
        "methods": by_method(metrics),
        "flops": "flops" in metrics and bool(metrics["flops"].notna().any()),
        "phases": phase_times(metrics),
        "energy": energy(jobs, gpu=any(machine.get("gpu") for machine in hardware)),
    }


def by_rule(jobs: list[dict]) -> list[tuple]:
    """Return (rule, jobs, seconds, CPU-seconds, largest memory), the longest first, and their total; [] without benchmarks."""
    if not jobs:
        return []
    frame = pd.DataFrame(jobs)
    columns = {"jobs": ("job", "size"), "seconds": ("seconds", "sum"), "cpu": ("cpu", "sum"), "memory": ("memory", "max")}
    rules = frame.groupby("rule").agg(**columns).sort_values("seconds", ascending=False)
    total = ("together", len(frame), frame["seconds"].sum(), frame["cpu"].sum(), frame["memory"].max())
    return [*rules.itertuples(name=None), total]


def by_method(metrics: pd.DataFrame) -> list[tuple]:
    """Return (method, response tokens drawn, FLOPs or None, seconds of training steps), each of one run: the mean over
    seeds.
    """
    tokens = "sampled_tokens" if "sampled_tokens" in metrics else "tokens"
    rows = []
    for method, steps in metrics.groupby("method", sort=False):
        sums = [
            float(steps.groupby("seed")[name].sum().mean()) if name in steps and steps[name].notna().any() else None
            for name in (tokens, "flops", "seconds")
        ]
        rows.append((method, *sums))
    return rows


def energy(jobs: list[dict], *, gpu: bool) -> dict[str, float] | None:
    """Return the CPU-seconds of all jobs, and the watt-hours that they mean at WATTS per busy core; None where that cannot be
    said.

    None with a GPU, whose power is not measured, and without CPU times.
    """
    seconds = sum(job["cpu"] or 0.0 for job in jobs)
    if gpu or not seconds:
        return None
    low, high = (seconds * watts / 3600 for watts in WATTS)
    return {"seconds": seconds, "low": low, "high": high, "least": WATTS[0], "most": WATTS[1]}


def phase_times(metrics: pd.DataFrame) -> dict[str, Any]:
    """Return the mean seconds by phase over all steps, per method: column names, and rows (method, values, seconds of one run
    last).

    The phases are the columns seconds_<phase> of metrics.jsonl. `seconds` is a step without evaluation and checkpoints;
    "other" is what the remaining phases leave of it.
    """
    phases = [name for name in metrics if name.startswith("seconds_") and metrics[name].notna().any()]
    outside = [name for name in phases if name in ("seconds_validation", "seconds_checkpoint")]
    inside = [name for name in phases if name not in outside]
    rows = []
    for method, steps in metrics.groupby("method", sort=False):
        means = steps[[*phases, "seconds"]].astype(float).fillna(0).mean()
        whole = means["seconds"] + means[outside].sum()
        other = max(0.0, means["seconds"] - means[inside].sum())
        per_run = whole * len(steps) / steps["seed"].nunique()
        rows.append((method, [*means[inside], other, *means[outside], whole, per_run]))
    names = [*inside, "other", *outside, "together", "one run"]
    return {"columns": [name.removeprefix("seconds_").replace("_", " ") for name in names], "rows": rows}


def _value(row: Mapping[str, str], name: str) -> float | None:
    try:
        return float(row.get(name) or "")
    except ValueError:  # NA: too short to be measured
        return None

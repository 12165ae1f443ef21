"""How steadily each run trained: results/<scale>/stability.csv, one number per (method, seed, task, metric).

METRICS is the list; docs/metrics.md defines each number in words. Shapes: K checkpoints or steps, S seeds. Metrics of the
accuracy are per evaluation set, all others per run (no task); `seed_spread` is per method (no seed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sdpg.analysis.collapse import Collapse, collapse, of_rollouts
from sdpg.analysis.diverged import held, unexplained
from sdpg.analysis.results import Results, pivot_seeds, read_csv
from sdpg.artefacts.declare import SummarySpec

ARTEFACT = SummarySpec(reads=lambda files: [*files.made("scores"), *files.metrics])

COLUMNS = ["method", "seed", "task", "metric", "value"]
SPIKE_FACTOR = 3.0  # a gradient norm above so many times the running median is a spike
SPIKE_WINDOW = 20  # steps before it, of which the running median is taken
SPIKE_LEAST = 5  # the fewest such steps with which there is a median


@dataclass(frozen=True)
class Metric:
    """label: heading. unit. bad: the direction that is bad whatever the accuracy, None where it depends."""

    label: str
    unit: str
    bad: str | None = None


ACCURACY = {  # per evaluation set
    "last_minus_best": Metric("last − best", "accuracy", "low"),
    "drawdown": Metric("drawdown", "accuracy", "high"),
    "collapsed": Metric("collapsed", "share of seeds", "high"),
    "collapsed_end": Metric("down at end", "share of seeds", "high"),
    "collapse_step": Metric("first fall", "step"),
    "seed_spread": Metric("seed spread", "SD of accuracy", "high"),
}
TRAINING = {  # per run, from metrics.jsonl
    "rollouts_collapsed": Metric("collapsed", "share of seeds", "high"),
    "rollouts_collapse_step": Metric("first fall", "step"),
    "entropy_floor": Metric("entropy floor", "nats/token"),
    "entropy_slope": Metric("entropy slope", "nats/100 steps"),
    "length_floor": Metric("length floor", "share of start", "low"),
    "truncated_max": Metric("truncated max", "fraction", "high"),
    "truncated_last": Metric("truncated end", "fraction", "high"),
    "gradient_spikes": Metric("grad. spikes", "share of steps", "high"),
    "kl_ref_max": Metric("KL to ref. max", "nats/token", "high"),
    "kl_ref_last": Metric("KL to ref. end", "nats/token", "high"),
    "logprob_gap_max": Metric("log-prob gap", "nats, max", "high"),
    "informative_mean": Metric("informative mean", "share of groups"),
    "informative_last": Metric("informative end", "share of groups"),
    "gate_fraction": Metric("gate fraction", "fraction, mean"),
}
METRICS = ACCURACY | TRAINING
READ = (  # columns of metrics.jsonl; kl_ref alone may be null though all is finite
    *("accuracy", "entropy", "response_length", "truncated", "grad_norm", "logprob_gap_max", "informative_groups"),
    *("gate_fraction", "kl_ref"),
)


def summarise(results: Results) -> pd.DataFrame:
    """Return every metric of every run (COLUMNS); value is empty where it has no meaning: see the functions below.

    Needs scores.csv and every metrics.jsonl. Raises ValueError for a missing file, column, score or value.
    """
    rows = []
    for task in results.tasks:
        for method in results.methods:
            rows += [(method, seed, task, *pair) for seed, pair in _accuracy(results, method, task)]
    for method, seed in results.runs:
        frame = _recorded(results, method, seed)
        values = _rollouts(results, method, seed, frame) | training_metrics(frame)
        rows += [(method, seed, None, name, value) for name, value in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def read(results: Results) -> pd.DataFrame:
    """Return stability.csv, restricted to the config's methods and seeds."""
    frame = read_csv(results.root / "stability.csv", COLUMNS)
    known = frame["seed"].isna() | frame["seed"].isin(results.seeds)
    return frame[frame["method"].isin(results.methods) & known]


def worst(metric: str, values: pd.Series) -> float:
    """Return the value of the worst seed in the bad direction of a metric (METRICS); NaN without one, or without values."""
    bad = METRICS[metric].bad
    return float("nan") if bad is None else float(values.max() if bad == "high" else values.min())


def text(value: float) -> str:
    """Return two or (below 0.1) three digits after the point, a power of ten for what would then show as 0, a dash for NaN."""
    if np.isnan(value):
        return "–"
    size = abs(value)
    shown = f"{value:.0e}" if 0 < size < 0.0005 else f"{value:.{3 if 0 < size < 0.1 else 2}f}"
    return shown.replace("-", "−").replace("e−0", "e−")


def accuracy_curves(results: Results, method: str, task: str) -> pd.DataFrame:
    """Return accuracy by step (rows) and seed (columns) from scores.csv. Raises ValueError for a hole, or if there is none."""
    chosen = results.scores.query("method == @method and task == @task and metric == @results.accuracy")
    what = f"{results.root / 'scores.csv'}, {results.accuracy} of {method} on {task}"
    if chosen.empty:
        raise ValueError(f"{what}: no rows; make scores.csv again from this config")
    return pivot_seeds(chosen, "value", what)


def collapses(results: Results, method: str, task: str) -> Collapse:
    """Return what became of a method's runs by their curves of scores.csv on one set."""
    table = accuracy_curves(results, method, task)
    return collapse(table[list(results.seeds)].to_numpy().T, table.index.to_numpy(), results.ended(method))


def last_minus_best(accuracy_K: np.ndarray) -> float:
    """Return the last checkpoint less the highest one after the first (the base model), which is no candidate; at most 0."""
    return float(accuracy_K[-1] - max(accuracy_K[1:], default=accuracy_K[-1]))


def drawdown(accuracy_K: np.ndarray) -> float:
    """Return the largest fall from any checkpoint to any later one, the base model included; at least 0."""
    return float((np.maximum.accumulate(accuracy_K) - accuracy_K).max())


def seed_spread(last_S: np.ndarray) -> float:
    """Return the unbiased standard deviation over the seeds; NaN for a single seed."""
    return float(np.std(last_S, ddof=1)) if len(last_S) > 1 else float("nan")


def tenth(steps: int) -> int:
    """Return the number of steps that "the end of training" and a running mean are over: a tenth of the run, at least one."""
    return max(1, steps // 10)


def floor(values_K: np.ndarray) -> float:
    """Return the smallest mean of `tenth` neighbouring steps: one odd batch does not make it."""
    return float(pd.Series(values_K).rolling(tenth(len(values_K))).mean().min())


def end(values_K: np.ndarray) -> float:
    """Return the mean over the last tenth of the steps; NaN for none."""
    return float(np.mean(values_K[-tenth(len(values_K)) :])) if len(values_K) else float("nan")


def slope(values_K: np.ndarray) -> float:
    """Return the least-squares slope over the second half of the steps, per 100 steps; NaN for fewer than two steps."""
    half = values_K[len(values_K) // 2 :]
    return 100 * float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else float("nan")


def spikes(norms_K: np.ndarray) -> float:
    """Return the share of steps whose gradient norm exceeds SPIKE_FACTOR times the median of the SPIKE_WINDOW steps before it.

    Of the steps that have at least SPIKE_LEAST before them; NaN if there are none. A median of 0 counts no spike.
    """
    norms = pd.Series(norms_K)
    median = norms.shift(1).rolling(SPIKE_WINDOW, min_periods=SPIKE_LEAST).median().iloc[SPIKE_LEAST:]
    high = (norms.iloc[SPIKE_LEAST:] > SPIKE_FACTOR * median) & (median > 0)
    return float(high.mean()) if len(high) else float("nan")


def training_metrics(frame: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of TRAINING of one run, from its metrics.jsonl sorted by step (columns READ).

    A step at which a metric was not finite is left out of it; such a gradient norm counts as a spike. The two of kl_ref are NaN
    where steps have none (a method without a reference).
    """
    column = {name: frame[name].dropna().to_numpy(dtype=float) for name in READ}
    column["grad_norm"] = frame["grad_norm"].fillna(np.inf).to_numpy(dtype=float)
    length, kl = column["response_length"], column["kl_ref"]
    if unexplained(frame, "kl_ref").any():
        kl = np.array([])
    return {
        "entropy_floor": floor(column["entropy"]),
        "entropy_slope": slope(column["entropy"]),
        "length_floor": floor(length) / length[0],
        "truncated_max": column["truncated"].max(),
        "truncated_last": end(column["truncated"]),
        "gradient_spikes": spikes(column["grad_norm"]),
        "kl_ref_max": kl.max() if len(kl) else float("nan"),
        "kl_ref_last": end(kl),
        "logprob_gap_max": column["logprob_gap_max"].max() if len(column["logprob_gap_max"]) else float("nan"),
        "informative_mean": column["informative_groups"].mean(),
        "informative_last": end(column["informative_groups"]),
        "gate_fraction": column["gate_fraction"].mean(),
    }


def _accuracy(results: Results, method: str, task: str) -> list[tuple[int | None, tuple[str, float]]]:
    """Return (seed, (metric, value)) of the metrics of ACCURACY; without a seed where it is one number for all."""
    table, fell = accuracy_curves(results, method, task), collapses(results, method, task)
    rows = []
    for i, seed in enumerate(results.seeds):
        curve_K = table[seed].to_numpy()
        values = {"last_minus_best": last_minus_best(curve_K), "drawdown": drawdown(curve_K)}
        values |= {"collapsed": fell.ever[i], "collapsed_end": fell.end[i], "collapse_step": fell.step[i]}
        rows += [(int(seed), (name, float(value))) for name, value in values.items()]
    return [*rows, (None, ("seed_spread", seed_spread(table.iloc[-1].to_numpy())))]


def _rollouts(results: Results, method: str, seed: int, frame: pd.DataFrame) -> dict[str, float]:
    """Return the collapse of one run's rollouts."""
    curve_T = held(frame, "accuracy", [seed], results.steps or len(frame))[seed].to_numpy()
    fell = of_rollouts(curve_T[None], results.prompts, results.ended(method)[[results.seeds.index(seed)]])
    return {"rollouts_collapsed": float(fell.ever[0]), "rollouts_collapse_step": float(fell.step[0])}


def _recorded(results: Results, method: str, seed: int) -> pd.DataFrame:
    """Return the rows of one run; ValueError naming the columns that are missing or have holes.

    kl_ref may have them, and what was not finite.
    """
    frame = results.metrics.query("method == @method and seed == @seed")
    missing = [name for name in READ if name not in frame or (name != "kl_ref" and unexplained(frame, name).any())]
    if missing:
        path = results.run_dir(method, seed) / "metrics.jsonl"
        raise ValueError(f"{path} has no value for {', '.join(missing)} in some rows; train this run again")
    return frame

"""Runs under which a given claim holds, does not, or cannot be told or tested: in memory, read as any scale's."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from sdpg.analysis.evaluations import TaskScores
from sdpg.analysis.results import Results
from sdpg.artefacts.claims.kinds import KINDS
from sdpg.artefacts.claims.runs import Runs
from sdpg.artefacts.claims.spec import read_claims
from sdpg.config import METHODS

STEPS, EVERY, UNITS, TASKS, PROBLEMS = 80, 10, 10, ("near", "far"), 16
ALPHA, ALL = read_claims()
METHODS_ALL = tuple(sorted(path.stem for path in METHODS.glob("*.yaml")))
BASE = {"accuracy": 0.3, "entropy": 0.4, "response_length": 20.0}  # where runs start
USUAL = {"accuracy": 0.6, "entropy": 0.3, "response_length": 24.0}  # where they get to
SD = {"accuracy": 0.01, "entropy": 0.01, "response_length": 0.2}  # of a run
WORLDS = ("claimed", "null", "wild")


class FakeRuns(Runs):
    """Runs whose curves come from functions: curves[method][metric](fraction of the run, unit) -> value."""

    def __init__(self, curves: dict, units: int = UNITS, lengths=(10.0, 40.0), seed: int = 0, family: str = "matched"):
        bases = tuple(range(units))
        super().__init__(Results(Path("nowhere"), tuple(curves), bases, TASKS, 8, (1,), bases, steps=STEPS, family=family))
        self.curves, self.spread, self.seed = curves, lengths, seed

    def values(self, method: str, metric: str, steps: np.ndarray, stream: int) -> np.ndarray:
        """Return [S, K]: what the function says, with each run's own and each step's noise."""
        rng = np.random.default_rng([self.seed, stream, zlib.crc32(method.encode()), list(BASE).index(metric)])
        S = len(self.results.seeds)
        clean = np.array([[self.curves[method][metric](step / STEPS, s) for step in steps] for s in range(S)])
        noise = rng.normal(0, SD[metric], (S, 1)) + rng.normal(0, SD[metric] / 3, clean.shape)
        return np.maximum(clean + noise, 1e-3)

    def _read_training(self, method: str) -> pd.DataFrame:
        steps = np.arange(1, STEPS + 1)
        columns = {metric: self.values(method, metric, steps, 0).ravel() for metric in BASE}
        seeds, step = np.repeat(self.results.seeds, STEPS), np.tile(steps, len(self.results.seeds))
        return pd.DataFrame(
            {"method": method, "seed": seeds, "step": step, **columns, "sampled_tokens": 1000.0 + step, "flops": 2e9}
        )

    def _read_scores(self, method: str, task: str) -> TaskScores:
        steps = np.arange(0, STEPS + 1, EVERY)
        means = np.clip(self.values(method, "accuracy", steps, 1 + TASKS.index(task)), 0, 1)
        rng = np.random.default_rng(3)
        x_SKP = np.clip(means[:, :, None] + rng.normal(0, 0.01, PROBLEMS), 0, 1)
        return TaskScores(steps, np.arange(PROBLEMS), {self.results.accuracy: x_SKP})

    def _lengths(self, method: str, seed: int) -> np.ndarray:
        return np.linspace(*self.spread, 20)


def usual(metric: str):
    """A curve that rises or falls to its usual end by a quarter of the run."""
    return lambda t, s: BASE[metric] + (USUAL[metric] - BASE[metric]) * min(1.0, 4 * t)


def quick(t: float, s: int) -> float:
    """Accuracy that gets to its usual end in a twentieth of the run: an early window can show something."""
    return BASE["accuracy"] + (USUAL["accuracy"] - BASE["accuracy"]) * (t > 0.05)


def rises_then_falls(t: float, s: int) -> float:
    return 0.3 + 1.2 * t if t <= 0.5 else max(0.1, 0.9 - 4 * (t - 0.5))


def jump(when: float):
    return lambda t, s: 0.3 + 0.3 * (t >= when)


def fake(claim: dict, world: str, units: int = UNITS, others: int = 2, **options) -> FakeRuns:
    """Return runs of the claim's methods and a few others. claimed: the claimed thing happens, as large as the paper says
    (accuracy as far as it goes). null: the two methods are the same, or the one does not change. wild: one way in every other
    unit.
    """
    named = [*claim["methods"], *(need["method"] for need in claim.get("needs", []) if "method" in need)]
    methods = list(dict.fromkeys([*named, *METHODS_ALL]))[: len(set(named)) + others]
    curves = {method: {metric: usual(metric) for metric in BASE} for method in methods}
    if any(need["what"] == "pace" for need in claim.get("needs", [])):
        curves = {method: own | {"accuracy": quick} for method, own in curves.items()}
    first, sign = claim["methods"][0], 1 if claim["direction"] == "above" else -1
    share = {"claimed": lambda s: 1.0, "null": lambda s: 0.0, "wild": lambda s: float(s % 2)}[world]
    if KINDS[claim["test"]].of == "collapse":
        curves[first]["accuracy"] = lambda t, s: (rises_then_falls if share(s) else usual("accuracy"))(t, s)
    elif claim["test"] == "time_to":
        for method, when in zip(claim["methods"], (0.05, 0.9) if world == "claimed" else (0.5, 0.5), strict=True):
            curves[method]["accuracy"] = jump(when)
        if world == "wild":
            curves[first]["accuracy"] = lambda t, s: jump(0.05 + 0.9 * share(s))(t, s)
    else:
        metric = claim["metric"]
        size = sign * (min(claim["effect"], 0.3) if metric == "accuracy" else claim["effect"])
        later = {"before": [0.0, 0.0], **claim}["before"][1] if claim["test"] == "change" else -1.0
        before = curves[first][metric] if later != 0.025 else (lambda t, s: BASE[metric])  # a change from the very start on

        def curve(t: float, s: int) -> float:
            k = (2 * share(s) - 1 if world == "wild" else share(s)) * (t > later)
            level = before(t, s)
            return level * np.exp(k * np.log1p(size)) if claim["relative"] else level + k * size

        curves[first][metric] = curve
    return FakeRuns(curves, units, **options)


def untestable(claim: dict) -> FakeRuns:
    """Return runs in which the claimed thing happens, and every condition of the claim fails."""
    runs = fake(claim, "claimed", lengths=(24.0, 25.0))
    for need in claim["needs"]:
        if need["what"] == "pace":  # the first method is as far ahead as claimed from the first step on, and nothing rises
            for method, own in runs.curves.items():
                start = 0.6 if method == claim["methods"][0] else 0.3
                own["accuracy"] = lambda t, s, start=start: start + 0.1 * t
            continue
        own = runs.curves[need["method"]]
        if need["what"] == "rise":
            own["accuracy"] = lambda t, s: max(0.05, 0.3 - 0.5 * t)
        elif need["what"] == "headroom":
            own["accuracy"] = lambda t, s: min(0.995, 0.3 + 3 * t)
        elif need["what"] == "entropy":
            own["entropy"] = lambda t, s: 0.005 + 0.5 * max(0.0, 0.25 - t)
    return runs


def of(identity: str) -> dict:
    """One of the claims."""
    return next(claim for claim in ALL if claim["id"] == identity)


def alone(claim, folder: Path) -> Path:
    """A file with this claim only."""
    defaults = {"relative": False, "axis": "steps", "combine": "all", "role": "exploratory", "needs": []}
    own = {key: value for key, value in claim.items() if defaults.get(key, ...) != value}
    if claim["test"] in ("proposition", "published"):
        own.pop("role", None)
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"alpha": ALPHA, "claims": [own]}))
    return path

"""Readers of one results/<name> tree: every figure, table and the report gets its input through here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sdpg.analysis.diverged import Divergence, read_divergence
from sdpg.config import Config, base_seeds
from sdpg.config.variants import own_methods
from sdpg.io import project_file, read_json

SCORE_COLUMNS = ["method", "seed", "task", "step", "metric", "value"]
INTERVAL_COLUMNS = ["method", "task", "metric", "selection", "step", "mean", "low", "high", "seeds", "problems"]
INTERVAL_COLUMNS += ["iqm", "iqm_low", "iqm_high"]
COMPARISON_COLUMNS = ["method", "other", "task", "metric", "measure", "difference", "low", "high", "p", "p_holm", "units"]
COMPARISON_COLUMNS += ["collapsed", "other_collapsed", "p_collapse", "p_collapse_holm", "p_base"]
COMPARISON_COLUMNS += ["probability", "probability_low", "probability_high"]
POWER_COLUMNS = ["task", "metric", "measure", "methods", "sd", "df", "se_problems", "units", "comparisons", "detectable"]
PUBLISHED_CURVE_COLUMNS = ["figure", "model", "method", "metric", "step", "value"]
PUBLISHED_TABLE_COLUMNS = ["table", "model", "method", "benchmark", "last", "best"]


@dataclass(frozen=True)
class Results:
    """What a scale's config says should be there, and readers that raise ValueError (file, item, what to do) when it is not."""

    root: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]  # evaluation sets, in the order of the config
    samples: int  # n of mean@n
    pass_k: tuple[int, ...] = ()
    bases: tuple[int, ...] = (0,)  # numbers of the base models that the seeds start from
    base_count: int | None = None  # base models that take turns; None: as many as `bases`
    steps: int | None = None  # training steps, None: do not check
    prompts: int | None = None  # problems of a training step, None: not known
    lm_eval: dict[str, Any] | None = None  # the evaluation.lm_eval block, None: not run
    engine: str = "vllm"  # of the evaluation sweep
    family: str = "matched"  # of experiment: matched or published
    published: Path = Path(project_file("results/published"))
    scale: str | None = None  # the config's name, None: as the folder
    own: tuple[str, ...] | None = None  # methods at the scale's own settings, None: all

    @property
    def name(self) -> str:
        """The scale's name, wherever the results lie."""
        return self.scale or self.root.name

    @classmethod
    def from_config(cls, config: Config, root: str | Path | None = None) -> Results:
        """Read a resolved config (`sdpg.config.resolve`); root: results/<name> unless given."""
        root = Path(root) if root else Path("results") / config.name
        evaluation = config.evaluation
        return cls(
            root=root,
            methods=tuple(config.methods),
            seeds=tuple(config.seeds),
            tasks=tuple(config.data.evaluation),
            samples=evaluation.samples,
            pass_k=tuple(evaluation.pass_k),
            bases=tuple(config.bases),
            base_count=len(base_seeds(config)),
            steps=config.train.steps,
            prompts=config.train.prompts_per_step,
            lm_eval=evaluation.lm_eval.dump() if evaluation.lm_eval else None,
            engine=evaluation.engine,
            family=config.family,
            scale=config.name,
            own=tuple(own_methods(config)),
        )

    @property
    def accuracy(self) -> str:
        """Name of the accuracy metric in scores.csv, for example mean@8."""
        return f"mean@{self.samples}"

    @property
    def compared(self) -> tuple[str, ...]:
        """The methods that are compared with each other: not what `sensitivity` adds, the same ones at other settings."""
        return self.methods if self.own is None else tuple(method for method in self.methods if method in self.own)

    @property
    def starts(self) -> tuple[int, ...]:
        """The base model of each seed: they take turns."""
        return tuple(seed % (self.base_count or len(self.bases)) for seed in self.seeds)

    @property
    def lm_eval_seeds(self) -> tuple[int, ...]:
        """The seeds whose runs lm-eval ran on: all, or the first of each method; () where it was not run."""
        return () if self.lm_eval is None else self.seeds[: self.lm_eval.get("seeds")]

    @property
    def lm_eval_bases(self) -> tuple[int, ...]:
        """The base models that lm-eval ran on: those that its seeds start from."""
        return tuple(sorted(set(self.starts[: len(self.lm_eval_seeds)])))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (method, seed) of the config, methods outermost."""
        return [(method, seed) for method in self.methods for seed in self.seeds]

    def run_dir(self, method: str, seed: int) -> Path:
        return self.root / "runs" / method / f"seed{seed}"

    def eval_dir(self, method: str, seed: int) -> Path:
        return self.root / "eval" / method / f"seed{seed}"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """scores.csv: one value per (method, seed, task, step, metric), restricted to the config's methods and seeds."""
        frame = read_csv(self.root / "scores.csv", SCORE_COLUMNS)
        return frame[frame["method"].isin(self.methods) & frame["seed"].isin(self.seeds)]

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """intervals.csv: mean over seeds with a 95% interval per (method, task, metric, step) and for the best checkpoint."""
        return read_csv(self.root / "intervals.csv", INTERVAL_COLUMNS)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """comparisons.csv: every two methods, their difference among healthy runs and how many collapsed."""
        return read_csv(self.root / "comparisons.csv", COMPARISON_COLUMNS)

    @cached_property
    def power(self) -> pd.DataFrame:
        """power.csv: the differences that so many units can find."""
        return read_csv(self.root / "power.csv", POWER_COLUMNS)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """metrics.jsonl of all runs below each other, with columns method and seed in front; rows sorted by step."""
        frames = [self.run_metrics(method, seed) for method, seed in self.runs]
        return pd.concat(frames, ignore_index=True)

    def run_metrics(self, method: str, seed: int) -> pd.DataFrame:
        """Return metrics.jsonl of one run, sorted by step, with columns method and seed in front; of one that diverged, up to
        there.
        """
        path = self.run_dir(method, seed) / "metrics.jsonl"
        rows = read_jsonl(path)
        frame = pd.DataFrame(rows).sort_values("step", ignore_index=True)
        steps = frame["step"].tolist()
        end = self.diverged[method, seed].step if (method, seed) in self.diverged else self.steps
        expected = list(range(1, (end or len(steps)) + 1))
        if steps != expected:
            raise ValueError(
                f"{path} should have one row for each of the steps 1..{expected[-1]}, got {len(steps)} rows from step "
                f"{steps[0]} to {steps[-1]}; finish this run with its training rule (it resumes)"
            )
        frame.insert(0, "method", method)
        frame.insert(1, "seed", seed)
        return frame

    @cached_property
    def diverged(self) -> dict[tuple[str, int], Divergence]:
        """The runs that diverged, as the last row of their metrics.jsonl says."""
        found = {run: read_divergence(self.run_dir(*run) / "metrics.jsonl") for run in self.runs}
        return {run: divergence for run, divergence in found.items() if divergence}

    def ended(self, method: str) -> np.ndarray:
        """Return the step at which each seed's run ended early, NaN where it did not: [S]."""
        found = [self.diverged.get((method, seed)) for seed in self.seeds]
        return np.array([float(one.step) if one else np.nan for one in found])

    def run_info(self, method: str, seed: int) -> dict[str, Any]:
        """Return run.json of one run."""
        path = self.run_dir(method, seed) / "run.json"
        require(path)
        return read_json(path)

    @cached_property
    def published_curves(self) -> pd.DataFrame:
        """The paper's curves (Figures 3, 5, 6)."""
        return read_csv(self.published / "curves.csv", PUBLISHED_CURVE_COLUMNS)

    @cached_property
    def published_tables(self) -> pd.DataFrame:
        """The paper's Tables 1 and 2."""
        return read_csv(self.published / "tables.csv", PUBLISHED_TABLE_COLUMNS)


def require(path: Path) -> None:
    """Raise ValueError, saying how to get it, unless `path` is a file."""
    if not path.is_file():
        published = path.parent.name == "published"
        how = "restore it from version control" if published else f"make it with `snakemake {path}` at the same scale"
        raise ValueError(f"{path} is missing; {how}")


def read_csv(path: Path, columns: list[str], **options: Any) -> pd.DataFrame:
    """Read a CSV that must have `columns`; options: of pandas. Raises ValueError naming the file and the missing columns."""
    require(path)
    frame = pd.read_csv(path, **options)
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)} (it has {', '.join(frame.columns)}); make it again")
    return frame


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line. Raises ValueError for a missing or empty file, or naming the first broken line."""
    require(path)
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}, is not valid JSON ({error}); run its training rule again") from error
    if not rows:
        raise ValueError(f"{path} is empty; run its training rule again")
    return rows


def pivot_seeds(frame: pd.DataFrame, column: str, what: str) -> pd.DataFrame:
    """Return rows (step), columns (seed) of `column`. Raises ValueError naming the seeds and steps where one seed has no
    value.
    """
    table = frame.pivot(index="step", columns="seed", values=column).astype(float)
    holes = [f"seed {seed} at step {step}" for (step, seed), hole in table.isna().stack().items() if hole]
    if holes:
        raise ValueError(f"{what}: no value for {', '.join(holes[:3])} ({len(holes)} in all); run those runs again")
    return table


def smoothing_window(steps: int) -> int:
    """Return the width in steps of the centred mean of a training curve: odd, about a twentieth of the run; 1 (none) below 40
    steps.
    """
    return 2 * (steps // 40) + 1


def run_parameters(info: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the resolved config of run.json, its algorithm block completed with the method's defaults. ValueError if it
    has none.
    """
    config = info.get("config")
    if not isinstance(config, dict) or not {"algorithm", "train"} <= config.keys():
        raise ValueError(f"{path} has no resolved config (expected the key config with the blocks algorithm and train)")
    return config | {"algorithm": config["algorithm"] | info.get("algorithm", {})}

"""From GRPO to SDPG, one change at a time: results/<scale>/decomposition.csv, a row for each bar of the waterfall.

The changes and their order are config/decomposition.yaml. Each one's effect is the difference in accuracy (mean of the second
half's checkpoints) between two neighbouring methods of that list among the units whose two runs are healthy, with the paired
t-interval of comparisons.csv, its error pooled over the same methods of the scale; a different order could give other effects.
The rows with source `published` are differences of the paper's own curves, which are single runs and have no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sdpg.analysis.comparisons import Outcome, compare, pool
from sdpg.analysis.evaluations import task_scores
from sdpg.analysis.results import Results, read_csv, run_parameters
from sdpg.analysis.wording import joined
from sdpg.artefacts.declare import PUBLISHED_CURVES, SummarySpec, compared, has_chain
from sdpg.artefacts.scores import outcomes_of
from sdpg.config.decomposition import read_decomposition

ARTEFACT = SummarySpec(
    planned=has_chain,
    reads=lambda files: [*files.evaluations_of(compared(files.config)), *files.records, *files.metrics, PUBLISHED_CURVES],
    files=("config/decomposition.yaml",),
)

COLUMNS = ["source", "task", "kind", "change", "method", "before", "difference", "low", "high", "units"]
KINDS = ("start", "change", "none", "together")  # none: zero by construction; together: several changes in one bar
ALL = "all changes together"


@dataclass(frozen=True)
class Step:
    """One bar: what changes, the method that has the change (None: zero by construction, with a note in `change`)."""

    change: str
    method: str | None


def summarise(results: Results) -> pd.DataFrame:
    """Return every bar of the runs and of the published curves (COLUMNS).

    Needs the evaluation files of the scale's methods at its own settings, run.json of its first run, and the paper's curves.
    Raises ValueError if the config has fewer than two of the methods, or a file or published curve is missing.
    """
    plan = read_decomposition()
    steps = present_steps(plan["chain"], results)
    rows = []
    for task in results.tasks:
        by_method = {method: task_scores(results, method, task) for method in results.compared}
        outcomes = outcomes_of(results, by_method, "late")
        path = waterfall(steps, outcomes, results.starts)
        bars = [*path, *together(plan["together"], outcomes, results.starts, levels(path))]
        rows += [("runs", task, *bar) for bar in bars]
    return pd.DataFrame([*rows, *published_rows(results, plan["published"])], columns=COLUMNS)


def read(results: Results) -> pd.DataFrame:
    """Return decomposition.csv."""
    return read_csv(results.root / "decomposition.csv", COLUMNS)


def present_steps(chain: list[dict[str, Any]], results: Results) -> list[Step]:
    """Return the bars that these results allow: a change whose method is not there is merged with the next one, and so is
    one that is not zero under this config. The first is where the waterfall starts. ValueError for fewer than two methods.
    """
    steps: list[Step] = []
    pending: list[str] = []
    for entry in chain:
        if "zero_when" in entry:
            if not steps or steps[0].method != chain[0]["method"]:
                continue  # it is about the chain's first method
            if _holds(entry["zero_when"], results, steps[0].method):
                steps.append(Step(f"{entry['change']} ({entry['note']})", None))
            else:
                pending.append(entry["change"])
        elif entry["method"] in results.methods:
            steps.append(Step(joined([*pending, entry["change"]]) if steps else entry["change"], entry["method"]))
            pending = []
        elif steps:  # what leads to the first method that is there is no part of this waterfall
            pending.append(entry["change"])
    while steps and steps[-1].method is None:
        steps.pop()
    if sum(step.method is not None for step in steps) < 2:
        names = [entry["method"] for entry in chain if "method" in entry]
        raise ValueError(
            f"the decomposition needs two or more of {', '.join(names)}; the config of {results.root} has "
            f"{', '.join(results.methods)}"
        )
    return steps


def waterfall(steps: list[Step], outcomes: dict[str, Outcome], bases: Sequence[int]) -> list[tuple]:
    """Return rows (COLUMNS from kind on) from the runs of every method. The error of all differences is pooled over `outcomes`,
    which may have more methods than there are steps. A bar begins where the one before ends: since each pair
    of methods may have other healthy units, that is the sum of the bars, and of a method with collapsed runs not its mean.
    """
    before = steps[0].method
    level = _healthy_mean(outcomes[before])
    rows = [("start", steps[0].change, before, 0.0, level, None, None, len(outcomes[before].x_SP))]
    for step in steps[1:]:
        if step.method is None:
            rows.append(("none", step.change, None, level, 0.0, None, None, None))
        else:
            rows.append(("change", step.change, step.method, level, *_difference(outcomes, before, step.method, bases)))
            before, level = step.method, level + rows[-1][4]
    return rows


def levels(path: list[tuple]) -> dict[str, float]:
    """Return where each method stands on the waterfall."""
    return {method: before + difference for _, _, method, before, difference, *_ in path if method}


def together(
    entries: list[dict[str, str]], outcomes: dict[str, Outcome], bases: Sequence[int], at: dict[str, float]
) -> list[tuple]:
    """Return rows (COLUMNS from kind on) of the differences between methods that are not neighbours; of those that are
    there. at: where a bar begins, for each method.
    """
    return [
        (
            "together",
            entry["change"],
            entry["last"],
            at[entry["first"]],
            *_difference(outcomes, entry["first"], entry["last"], bases),
        )
        for entry in entries
        if entry["first"] in at and entry["last"] in at
    ]


def published_rows(results: Results, plan: dict[str, Any]) -> list[tuple]:
    """Return the same rows from the published curves, each averaged over the steps plan["steps"] (both ends included)."""
    low, high = plan["steps"]
    curves = results.published_curves.query("@low <= step <= @high")
    rows = []
    for benchmark in _benchmarks(curves):
        levels = [_level(curves, entry, benchmark) for entry in plan["chain"]]
        names = [(entry["change"], entry["method"]) for entry in plan["chain"]]
        found = [("start", *names[0], 0.0, levels[0])]
        steps = zip(names[1:], levels, levels[1:], strict=False)
        found += [("change", *name, before, after - before) for name, before, after in steps]
        found.append(("together", ALL, names[-1][1], levels[0], levels[-1] - levels[0]))
        rows += [("published", benchmark, *row, None, None, 1) for row in found]
    return rows


def _benchmarks(curves: pd.DataFrame) -> list[str]:
    metrics = ("reward", "entropy", "response_length")
    return [metric for metric in curves["metric"].unique() if metric not in metrics]


def _level(curves: pd.DataFrame, entry: dict[str, str], benchmark: str) -> float:
    figure, method = entry["figure"], entry["method"]
    values = curves.query("figure == @figure and method == @method and metric == @benchmark")["value"]
    if values.empty:
        raise ValueError(f"results/published/curves.csv has no {benchmark} of {method} in {figure}; see decomposition.yaml")
    return float(values.mean())


def _difference(outcomes: dict[str, Outcome], before: str, after: str, bases: Sequence[int]) -> tuple:
    """Return the effect of a change, the ends of its interval (None where nothing is known of the spread) and the units in it.

    With too few pairs of healthy runs it is the difference of the healthy means, without an interval.
    """
    found = compare(after, before, outcomes, pool(outcomes), bases)
    effect, ends, units = found.difference.effect, found.difference.interval(), int(found.kept_S.sum())
    if np.isnan(effect):
        effect = _healthy_mean(outcomes[after]) - _healthy_mean(outcomes[before])
    low, high = (None, None) if np.isnan(ends).any() else ends
    return effect, low, high, units


def _healthy_mean(of: Outcome) -> float:
    """Return the mean over healthy runs, of all where there is none."""
    return float(of.x_SP[of.collapse.healthy if of.collapse.healthy.any() else slice(None)].mean())


def _holds(conditions: dict[str, Any], results: Results, method: str) -> bool:
    """Return whether the config in the method's run.json has these values at these dotted keys."""
    seed = results.seeds[0]
    path = results.run_dir(method, seed) / "run.json"
    config = run_parameters(results.run_info(method, seed), path)
    for dotted, expected in conditions.items():
        value: Any = config
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                raise ValueError(f"{path} has no {dotted}, which config/decomposition.yaml asks for; train this run again")
            value = value[key]
        if value != expected:
            return False
    return True

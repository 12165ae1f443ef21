"""The kinds of test, by name. Each turns a claim into numbers per run; what these say is verdicts.py's business.

A kind's `values(runs, claim, method, task)` gives [S, P] (evaluation: seeds by problems) or [S, 1] (a number for each run).
`healthy`: the effect is the mean of the first method's values minus those of the second, among units whose two runs are
healthy. `median`: it is the median run's value, whatever became of the run. `collapse`: values are not scores but who
collapsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sdpg.artefacts.claims.runs import LAST, Runs

FLOOR = 1e-6  # of what a logarithm is taken of: an entropy that has collapsed altogether is 0
Claim = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """needs, takes: keys of the claim that the test must, and may have. relative: its effect is always a relative change.
    pools: whether further methods lend their error.
    """

    values: Callable[[Runs, Claim, str, str | None], np.ndarray] | None
    needs: frozenset[str]
    takes: frozenset[str] = frozenset()
    methods: tuple[int, ...] = (2,)  # how many it takes
    relative: bool = False
    of: Literal["healthy", "median", "collapse"] = "healthy"
    pools: bool = True


def mean(runs: Runs, claim: Claim, method: str, task: str | None) -> np.ndarray:
    """Return the mean over the checkpoints or steps of `window`."""
    return _level(runs, claim, method, task, claim["window"])


def area(runs: Runs, claim: Claim, method: str, task: str | None) -> np.ndarray:
    """Return the area under the evaluation curve, as the mean height: [S, P]."""
    return runs.area(method, task, claim["metric"])


def change(runs: Runs, claim: Claim, method: str, task: str | None) -> np.ndarray:
    """Return the mean over `after` minus mean over `before`; of logarithms if relative. NaN for a run that ended before
    `after` begins: that it kept its last value says nothing about what would have become of it.
    """
    change_SP = _level(runs, claim, method, task, claim["after"]) - _level(runs, claim, method, task, claim["before"])
    return np.where(runs.came_to(method, task, claim["after"])[:, None], change_SP, np.nan)


def time_to(runs: Runs, claim: Claim, method: str, task: str | None) -> np.ndarray:
    """Return the log of what a run spends until its smoothed curve first reaches the level: [S, 1].

    The level is `share` of the second method's mean over the last tenth of the run of the same unit: of a level for all units,
    those that start low would say that both methods are as slow. A run that never gets there counts with all that it spent.
    """
    reached_ST = reached(runs, claim, method)
    first_S = np.where(reached_ST.any(axis=1), reached_ST.argmax(axis=1), -1)
    return np.log(np.take_along_axis(runs.cost(method, claim["axis"]), first_S[:, None], axis=1))


def reached(runs: Runs, claim: Claim, method: str) -> np.ndarray:
    """Return at which steps each run's smoothed curve is at the level of `time_to`: [S, T]."""
    level_S1 = claim["share"] * runs.training(claim["methods"][1], claim["metric"], [1 - LAST, 1.0])
    return runs.curve(method, claim["metric"], smooth=True) >= level_S1


def _level(runs: Runs, claim: Claim, method: str, task: str | None, window: list[float]) -> np.ndarray:
    if task is not None:
        return runs.evaluation(method, task, claim["metric"], window)
    values = runs.training(method, claim["metric"], window)
    return np.log(np.maximum(values, FLOOR)) if claim["relative"] else values


_COMPARED = frozenset({"methods", "metric"})
_SETS = frozenset({"tasks", "combine"})
KINDS: dict[str, Kind] = {
    "mean": Kind(mean, needs=_COMPARED | {"data", "window"}, takes=_SETS | {"relative"}),
    "area": Kind(area, needs=_COMPARED | {"data"}, takes=_SETS),
    "change": Kind(
        change, needs=_COMPARED | {"data", "before", "after"}, takes=_SETS | {"relative"}, methods=(1,), of="median"
    ),
    "time_to": Kind(time_to, needs=_COMPARED | {"share"}, takes=frozenset({"axis"}), relative=True, pools=False),
    "collapse": Kind(None, needs=frozenset({"methods", "data"}), takes=_SETS | {"after_rise"}, methods=(1, 2), of="collapse"),
    "proposition": Kind(None, needs=frozenset()),  # see proposition.py
    "published": Kind(None, needs=frozenset({"curves", "metric", "window"})),  # single numbers: see __init__.py
}

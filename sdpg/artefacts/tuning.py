"""A sweep's outcome: the score of each trial on the validation sets, and the settings that each method gets from it.

Score of a run: the mean validation accuracy over the second half of training, so that a run that collapses late, or arrives
late, scores less than one that holds; one that diverges scores 0. Score of a trial: the mean over its seeds. The best trial is
chosen; a tie goes to the one that is listed first. With `sweep.one_rate` the trials are learning rates of one method, and the
best is the rate of the whole family; it must not be the lowest or the highest that was tried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sdpg.analysis.results import Results, read_csv
from sdpg.artefacts import write_csv
from sdpg.artefacts.declare import ArtefactSpec
from sdpg.config import METHODS, parse_value
from sdpg.config.methods import trial_name
from sdpg.io import write_atomic

ARTEFACT = ArtefactSpec(
    about="score of every trial, and what each method gets",
    reads=lambda files: files.metrics,
    writes=("sweep/tuned.yaml", "sweep/tuned.csv"),
    uses=lambda config: {key: config.dump()[key] for key in ("sweep", "seeds", "methods")},
    planned=lambda config: config.sweep is not None,
)

LEADING = ["method", "trial"]
SCORED = ["seed", "score", "last", "chosen"]


def trials(results: Results, sweep: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row for each run of a sweep: method, trial, a column for each setting (train.lr, ...), seed, score, last,
    chosen.

    last: validation accuracy after the last step. chosen: 1 in the rows of the method's best trial. Raises ValueError for a
    run without validation accuracies, or one that is missing.
    """
    rows = []
    for method, several in sweep["trials"].items():
        for number, settings in enumerate(several):
            for seed in results.seeds:
                score, last = _score(results, trial_name(method, number), seed)
                rows.append(
                    {"method": method, "trial": number, **_dotted(settings), "seed": seed, "score": score, "last": last}
                )
    frame = pd.DataFrame(rows)
    means = frame.groupby(LEADING, sort=False)["score"].mean()
    best = {method: int(means[method].idxmax()) for method in sweep["trials"]}
    frame["chosen"] = (frame["trial"] == frame["method"].map(best)).astype(int)
    keys = sorted(set(frame.columns) - {*LEADING, *SCORED}, key=lambda key: (key != "train.lr", key))
    return frame[[*LEADING, *keys, *SCORED]]


def choose(frame: pd.DataFrame, sweep: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return method -> its chosen settings; an inheriting method gets its parent's, less what its own file in
    config/methods sets.
    """
    best = frame[frame["chosen"] == 1].groupby("method")["trial"].first()
    chosen = {method: several[int(best[method])] for method, several in sweep["trials"].items()}
    for method, parent in sweep["inherit"].items():
        file = parse_value((METHODS / f"{method}.yaml").read_text(encoding="utf-8"), method)
        chosen[method] = {key: value for key, value in chosen[parent].items() if key == "train" or key not in file}
    return chosen


def best_rate(frame: pd.DataFrame) -> tuple[str, float]:
    """Return the method that was tried and its best learning rate. Raises ValueError if it is at an edge of the grid."""
    row = frame[frame["chosen"] == 1].iloc[0]
    method, best, tried = row["method"], float(row["train.lr"]), sorted(frame["train.lr"].unique())
    if best in (tried[0], tried[-1]):
        end, other = ("lowest", "lower") if best == tried[0] else ("highest", "higher")
        raise ValueError(
            f"sweep.trials.{method}: the best learning rate, {best:g}, is the {end} of {', '.join(f'{x:g}' for x in tried)}; "
            f"add a {other} one at the end of the list and run again: the runs that are there are kept"
        )
    return method, best


def make(job) -> None:
    """Write sweep/tuned.yaml (for config/tuned) and sweep/tuned.csv, the evidence: every trial's score.

    Raises ValueError for a best rate at an edge of the grid, with `one_rate`.
    """
    results, sweep = job.results, job.config.dump()["sweep"]
    frame = trials(results, sweep)
    rule = ""
    if sweep["one_rate"]:
        method, best = best_rate(frame)
        tried = ", ".join(f"{x:g}" for x in sorted(frame["train.lr"].unique()))
        rule = f"# One rate for all, chosen from {method} alone: {best:g} of {tried}.\n"
    seeds, number = ", ".join(map(str, results.seeds)), len(next(iter(sweep["trials"].values())))
    head = (
        f"# Chosen by scale {results.root.name}: {number} trials of each method, seeds {seeds}, scored on validation sets.\n"
        f"{rule}# Evidence: the CSV of the same name. Not edited by hand; a sweep writes it.\n"
    )
    with write_atomic(results.root / "sweep" / "tuned.yaml") as file:
        chosen = json.loads(json.dumps(choose(frame, sweep)))  # no object twice: YAML would write an alias
        file.write(head + yaml.safe_dump({"methods": chosen}, sort_keys=False))
    write_csv(frame, results.root / "sweep" / "tuned.csv")


def read_trials(path: Path) -> pd.DataFrame:
    """Return tuned.csv as `trials` made it. Raises ValueError for a missing file or column."""
    return read_csv(path, [*LEADING, *SCORED])


def setting_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a trial's settings, train.lr first."""
    return [column for column in frame.columns if column not in (*LEADING, *SCORED)]


def _score(results: Results, name: str, seed: int) -> tuple[float, float]:
    rows = results.run_metrics(name, seed)
    columns = [column for column in rows.columns if column.startswith("validation_")]
    if not columns and (name, seed) not in results.diverged:
        raise ValueError(
            f"{results.run_dir(name, seed) / 'metrics.jsonl'} has no validation accuracy; give the scale data.validation"
        )
    accuracy = rows.set_index("step")[columns].mean(axis=1).dropna()
    if (name, seed) in results.diverged:  # what it did not reach is no success, wherever it stood before
        return 0.0, 0.0
    return float(accuracy[accuracy.index > rows["step"].max() / 2].mean()), float(accuracy.iloc[-1])


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten {"train": {"lr": 1e-3}, "alpha": 0.1} to {"train.lr": 1e-3, "alpha": 0.1}."""
    train = {f"train.{key}": value for key, value in settings.get("train", {}).items()}
    return train | {key: value for key, value in settings.items() if key != "train"}

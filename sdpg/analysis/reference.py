"""Does a run agree with the committed reference within sampling error? Per score (method and task) and per claim.

A difference of two runs of the same experiment has three sources: their seeds, each its own, and the problems, which are the
same in both and so count only where the runs answer them differently. Shapes: S and T seeds, P problems;
a_SP[s, p] is the accuracy of problem p at the last checkpoint of seed s.

Each question is a two-sided t-test, and all of them are one family under Holm's correction: two runs that differ by chance
alone are told apart in at most 5 of 100 comparisons, however many scores and claims there are.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from sdpg.analysis.comparisons import holm
from sdpg.analysis.evaluations import task_scores
from sdpg.analysis.results import Results, read_csv, require
from sdpg.io import project_file, read_json, write_atomic, write_json

FOLDER = Path(project_file("results/reference"))
MANIFEST = "manifest.json"
LARGEST = 3_000_000  # bytes of one reference
COPIED = ("*.csv", "claims.json", "claims.md", MANIFEST, "tables/*", "figures/*.png")  # the small outcome
PROBLEMS, IDENTITY = "problems.csv", "reference.json"
ALPHA = 0.05
OPPOSITE = {"supported", "refuted"}
COLUMNS = ["kind", "item", "task", "here", "reference", "difference", "low", "high", "p", "p_holm", "agrees"]


class Agreement(NamedTuple):
    """rows: COLUMNS, one for each score and claim that both have; notes: what could not be compared, and why."""

    rows: pd.DataFrame
    notes: list[str]

    @property
    def holds(self) -> bool:
        return bool(self.rows["agrees"].all())

    @property
    def headline(self) -> str:
        """One line: reproduced or not, how many agree, and which differ."""
        counts = [f"{rows['agrees'].sum()} of {len(rows)} {kind}s" for kind, rows in self.rows.groupby("kind", sort=False)]
        line = f"{'reproduced' if self.holds else 'not reproduced'}: {' and '.join(counts)} agree with the reference"
        differing = self.rows[~self.rows["agrees"].astype(bool)]
        names = [row.item + (f" on {row.task}" if row.task else "") for row in differing.itertuples()]
        return line + (f"; these differ: {', '.join(names)}" if names else "")


@dataclass(frozen=True)
class Difference:
    """An estimated difference with its standard error and degrees of freedom."""

    value: float
    error: float
    df: float

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.error if self.error else 0.0
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p-value of "the difference is 0"."""
        if not self.error:
            return float(abs(self.value) < 1e-12)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.df))


def unpaired_difference(a_SP: np.ndarray, b_TP: np.ndarray) -> Difference:
    """Return the effect mean(a) - mean(b) for two runs with different seeds on the same problems.

    Two runs of one experiment spread alike over their seeds, so the spread is pooled (Student's test, S + T - 2 degrees of
    freedom); a part for the problems is added to the variance, but no degrees of freedom, so that the p-value is never below
    Student's own. With one seed in each run only the problems are left. Raises ValueError if P differs.
    """
    a_SP, b_TP = np.asarray(a_SP, dtype=float), np.asarray(b_TP, dtype=float)
    (S, P), (T, P_b) = a_SP.shape, b_TP.shape
    if P != P_b:
        raise ValueError(f"both runs must have answered the same problems: got {P} and {P_b}")
    runs, problems = S + T - 2, P - 1
    squares = sum(((x.mean(axis=1) - x.mean()) ** 2).sum() for x in (a_SP, b_TP))
    variance = squares / runs * (1 / S + 1 / T) if runs else 0.0
    if problems:
        variance += (a_SP.mean(axis=0) - b_TP.mean(axis=0)).var(ddof=1) / P
    return Difference(float(a_SP.mean() - b_TP.mean()), float(np.sqrt(variance)), float(runs or problems or 1))


def last_problems(results: Results) -> pd.DataFrame:
    """Return accuracy of every problem at the last checkpoint: method, task, step, problem, and a column seed<n> for each
    seed.
    """
    frames = []
    for method in results.methods:
        for task in results.tasks:
            scores = task_scores(results, method, task)
            last_SP = scores.values[results.accuracy][:, -1]
            frame = pd.DataFrame(last_SP.T, columns=[f"seed{seed}" for seed in results.seeds])
            step = int(scores.steps[-1])
            frames.append(frame.assign(method=method, task=task, step=step, problem=scores.problems))
    names = ["method", "task", "step", "problem"]
    whole = pd.concat(frames, ignore_index=True)
    return whole[[*names, *(column for column in whole if column not in names)]]


def identity(results: Results) -> dict[str, Any]:
    """Return what two runs must share to be compared: the accuracy's name, and the content of every evaluation set
    (SHA-256).
    """
    digests = {}
    for task in results.tasks:
        path = results.root / "data" / "eval" / f"{task}.parquet"
        require(path)
        text = pd.read_parquet(path, columns=["id", "question", "answer"]).sort_values("id").to_json(orient="values")
        digests[task] = hashlib.sha256(text.encode()).hexdigest()
    return {"accuracy": results.accuracy, "problems": digests}


def make_reference(results: Results, folder: Path, listed: Collection[str]) -> list[Path]:
    """Copy the small outcome of `results` to `folder`, in place of what was there -> its files.

    listed: the manifest's files, as paths from results.root; a file left over from earlier is not among them.
    Raises ValueError if the reference is larger than LARGEST; the old one then stays.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for pattern in COPIED:
        for path in sorted(results.root.glob(pattern)):
            if path.name != MANIFEST and path.relative_to(results.root).as_posix() not in listed:
                continue
            target = fresh / path.relative_to(results.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    with write_atomic(fresh / PROBLEMS) as file:
        last_problems(results).to_csv(file, index=False, lineterminator="\n", float_format="%.6g")
    write_json(fresh / IDENTITY, identity(results))
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > LARGEST:
        shutil.rmtree(fresh)
        raise ValueError(f"the reference would have {size} bytes, more than {LARGEST}; {folder} stays as it is")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def compare(results: Results, folder: Path) -> Agreement:
    """Compare a run with the reference in `folder`. Raises ValueError if there is none, or if nothing can be compared."""
    if not (folder / IDENTITY).is_file():
        raise ValueError(f"{folder} holds no reference for this scale; `make reference` makes one from finished results")
    _check_identity(identity(results), read_json(folder / IDENTITY), folder)
    notes: list[str] = []
    differences = _scores(last_problems(results), read_csv(folder / PROBLEMS, ["method", "task", "problem"]), notes)
    differences += _claims(results, folder, notes)
    if not differences:
        raise ValueError(f"{results.root} and {folder} have no score in common; are they of the same scale?")
    adjusted = holm([difference.p for *_, difference, _ in differences])
    rows = [
        (*names, difference.value, *difference.interval(), difference.p, p, p > ALPHA and not opposite)
        for (*names, difference, opposite), p in zip(differences, adjusted, strict=True)
    ]
    return Agreement(pd.DataFrame(rows, columns=COLUMNS), notes)


def _check_identity(here: dict, there: dict, folder: Path) -> None:
    if here["accuracy"] != there["accuracy"]:
        raise ValueError(
            f"accuracy is {here['accuracy']} here and {there['accuracy']} in {folder}: set evaluation.samples to match"
        )
    other = [task for task, digest in here["problems"].items() if there["problems"].get(task, digest) != digest]
    if other:
        raise ValueError(f"{', '.join(other)}: other problems than in {folder}, so the scores cannot be compared")


def _scores(here: pd.DataFrame, there: pd.DataFrame, notes: list[str]) -> list[tuple]:
    """Return (kind, method, task, value here, value there, Difference, False) of what both have."""
    keys = ["method", "task"]
    ours, theirs = (dict(list(frame.groupby(keys, sort=False))) for frame in (here, there))
    found = []
    for key, frame in ours.items():
        if key not in theirs:
            notes.append(f"{key[0]} on {key[1]} is not in the reference")
            continue
        a, b = (x.set_index("problem").filter(like="seed").dropna(axis=1) for x in (frame, theirs[key]))
        difference = unpaired_difference(a.to_numpy().T, b.loc[a.index].to_numpy().T)
        found.append(("score", *key, float(a.mean(axis=None)), float(b.mean(axis=None)), difference, False))
    notes += [f"{method} on {task} is in the reference alone" for method, task in theirs if (method, task) not in ours]
    if found and min(here.filter(like="seed").shape[1], there.filter(like="seed").shape[1]) == 1:
        notes.append("with one seed in a run its spread over seeds is not known; it is taken from the other, or left out")
    return found


def _claims(results: Results, folder: Path, notes: list[str]) -> list[tuple]:
    """Return (kind, id, "", effect here, effect there, Difference, opposite verdicts) of the claims that have intervals in
    both.
    """
    paths = [results.root / "claims.json", folder / "claims.json"]
    if not all(path.is_file() for path in paths):
        notes.append(f"claims are not compared: {' and '.join(str(p) for p in paths if not p.is_file())} missing")
        return []
    ours, theirs = ({claim["id"]: claim for claim in read_json(path)} for path in paths)
    columns = [column for column in pd.read_csv(folder / PROBLEMS, nrows=1) if column.startswith("seed")]
    df = max(1, len(results.seeds) + len(columns) - 2)
    found = []
    for name in [name for name in ours if name in theirs]:
        a, b = ours[name], theirs[name]
        if any(claim.get(key) is None for claim in (a, b) for key in ("effect", "low", "high")):
            if a["verdict"] != b["verdict"]:
                notes.append(f"claim {name}: {a['verdict']} here, {b['verdict']} there; no interval to compare")
            continue
        half = [(claim["high"] - claim["low"]) / 2 / stats.norm.ppf(1 - ALPHA / 2) for claim in (a, b)]
        difference = Difference(a["effect"] - b["effect"], float(np.hypot(*half)), df)
        opposite = {a["verdict"], b["verdict"]} == OPPOSITE
        found.append(("claim", name, "", a["effect"], b["effect"], difference, opposite))
    return found

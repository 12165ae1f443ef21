"""Does a run agree with the committed reference within sampling error? Per score (method and task) and per claim.

A difference of two runs of the same experiment has three sources: their seeds, each its own, and the problems, which are the
same in both and so count only where the runs answer them differently. Shapes: S and T seeds, P problems;
a_SP[s, p] is the accuracy of problem p at the last checkpoint of seed s.

Each question is a two-sided t-test, and all of them are one family under Holm's correction: two runs that differ by chance
alone are told apart in at most 5 of 100 comparisons, however many scores and claims there are.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from sdpg.analysis.comparisons import holm
from sdpg.analysis.outcome import CLAIMS, IDENTITY, PROBLEMS, Outcome, identity, last_problems, outcome_of, read_outcome
from sdpg.analysis.results import Results
from sdpg.io import project_file, write_atomic, write_json

FOLDER = Path(project_file("results/reference"))
MANIFEST = "manifest.json"
LARGEST = 3_000_000  # bytes of one reference
COPIED = ("*.csv", CLAIMS, "claims.md", MANIFEST, "tables/*", "figures/*.png")  # the small outcome
ALPHA = 0.05
OPPOSITE = {"supported", "refuted"}
COLUMNS = ["kind", "item", "task", "here", "reference", "difference", "low", "high", "p", "p_holm", "agrees"]


class Agreement(NamedTuple):
    """rows: COLUMNS, one for each score and claim that both have; notes: what could not be compared, and why; other: what it
    was compared with, in words.
    """

    rows: pd.DataFrame
    notes: list[str]
    other: str = "the reference"

    @property
    def holds(self) -> bool:
        return bool(self.rows["agrees"].all())

    @property
    def headline(self) -> str:
        """One line: reproduced or not, how many agree, and which differ."""
        counts = [f"{rows['agrees'].sum()} of {len(rows)} {kind}s" for kind, rows in self.rows.groupby("kind", sort=False)]
        line = f"{'reproduced' if self.holds else 'not reproduced'}: {' and '.join(counts)} agree with {self.other}"
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
    return agreement(outcome_of(results), read_outcome(folder))


def agreement(here: Outcome, there: Outcome, other: str = "the reference") -> Agreement:
    """Compare two runs of one experiment. other: what the second is, in words. Raises ValueError if nothing can be compared."""
    _check_identity(here.identity, there.identity, there.name)
    notes: list[str] = []
    differences = _scores(here, there, other, notes)
    differences += _claims(here, there, notes)
    if not differences:
        raise ValueError(f"{here.name} and {there.name} have no score in common; are they of the same scale?")
    adjusted = holm([difference.p for *_, difference, _ in differences])
    rows = [
        (*names, difference.value, *difference.interval(), difference.p, p, p > ALPHA and not opposite)
        for (*names, difference, opposite), p in zip(differences, adjusted, strict=True)
    ]
    return Agreement(pd.DataFrame(rows, columns=COLUMNS), notes, other)


def _check_identity(here: dict, there: dict, name: str) -> None:
    if here["accuracy"] != there["accuracy"]:
        raise ValueError(
            f"accuracy is {here['accuracy']} here and {there['accuracy']} in {name}: set evaluation.samples to match"
        )
    other = [task for task, digest in here["problems"].items() if there["problems"].get(task, digest) != digest]
    if other:
        raise ValueError(f"{', '.join(other)}: other problems than in {name}, so the scores cannot be compared")


def _scores(here: Outcome, there: Outcome, other: str, notes: list[str]) -> list[tuple]:
    """Return (kind, method, task, value here, value there, Difference, False) of what both have."""
    keys = ["method", "task"]
    ours, theirs = (dict(list(outcome.problems.groupby(keys, sort=False))) for outcome in (here, there))
    found = []
    for key, frame in ours.items():
        if key not in theirs:
            notes.append(f"{key[0]} on {key[1]} is not in {other}")
            continue
        a, b = (x.set_index("problem").filter(like="seed").dropna(axis=1) for x in (frame, theirs[key]))
        if set(a.index.astype(str)) != set(b.index.astype(str)) or not a.size or not b.size:
            raise ValueError(
                f"{key[0]} on {key[1]}: {there.name} has other problems than {here.name}, or no seed with all of them"
            )
        a.index, b.index = a.index.astype(str), b.index.astype(str)
        difference = unpaired_difference(a.to_numpy().T, b.loc[a.index].to_numpy().T)
        found.append(("score", *key, float(a.mean(axis=None)), float(b.mean(axis=None)), difference, False))
    notes += [f"{method} on {task} is in {other} alone" for method, task in theirs if (method, task) not in ours]
    if found and min(here.seeds, there.seeds) == 1:
        notes.append("with one seed in a run its spread over seeds is not known; it is taken from the other, or left out")
    return found


def _claims(here: Outcome, there: Outcome, notes: list[str]) -> list[tuple]:
    """Return (kind, id, "", effect here, effect there, Difference, opposite verdicts) of the claims that have intervals in
    both.
    """
    if missing := [f"{outcome.name}/{CLAIMS}" for outcome in (here, there) if outcome.claims is None]:
        notes.append(f"claims are not compared: {' and '.join(missing)} missing")
        return []
    ours, theirs = ({claim["id"]: claim for claim in outcome.claims} for outcome in (here, there))
    df = max(1, here.seeds + there.seeds - 2)
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

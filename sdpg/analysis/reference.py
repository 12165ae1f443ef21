"""Does a run agree with the committed reference as two honest runs would? Scores, collapses, claims, and all together.

A score is a method's accuracy on one evaluation set (mean of the second half's checkpoints, healthy runs).
Every question has a two-sided p-value, and all are one family under Holm's correction: two runs that differ by chance
alone are told apart in at most 5 of 100 comparisons, however many there are. The numbers: sdpg/analysis/agreement.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sdpg.analysis.agreement import counts_p, difference, pooled_spread, together, welch
from sdpg.analysis.collapse import collapse
from sdpg.analysis.comparisons import scored
from sdpg.analysis.intervals import ALPHA, Contrast
from sdpg.analysis.multiplicity import holm
from sdpg.analysis.outcome import CLAIMS, CURVES, IDENTITY, Outcome, accuracy_curves, identity, outcome_of, read_outcome
from sdpg.analysis.results import Results
from sdpg.io import project_file, write_atomic, write_json

FOLDER = Path(project_file("results/reference"))
MANIFEST = "manifest.json"
LARGEST = 3_000_000  # bytes of one reference
COPIED = ("*.csv", CLAIMS, "claims.md", MANIFEST, "tables/*", "figures/*.png")  # the small outcome
OPPOSITE = {"supported", "refuted"}
COLUMNS = ["kind", "item", "task", "here", "reference", "difference", "low", "high", "p", "p_holm", "agrees"]


class Agreement(NamedTuple):
    """rows: COLUMNS, one for each score, collapse count and claim that both have, and one for all scores together; changed:
    verdicts that are not the reference's; notes: what could not be compared, and why.
    """

    rows: pd.DataFrame
    changed: list[str]
    notes: list[str]
    other: str = "the reference"

    @property
    def holds(self) -> bool:
        return bool(self.rows["agrees"].all())

    @property
    def headline(self) -> str:
        """One line: reproduced or not, how likely such differences are, what agrees, what differs, and changed verdicts."""
        single = self.rows[(self.rows["kind"] != "all") & (self.rows["p"].notna() | ~self.rows["agrees"].astype(bool))]
        counts = [f"{rows['agrees'].sum()} of {len(rows)} {kind}s" for kind, rows in single.groupby("kind", sort=False)]
        chance = self.rows.loc[self.rows["kind"] == "all", "p"].iloc[0]
        line = (
            f"{'reproduced' if self.holds else 'not reproduced'}: two honest runs differ by as much in {chance:.0%} of cases; "
            f"{', '.join(counts) + ' agree with' if counts else 'no single score can be told to differ from'} {self.other}"
        )
        differing = single[~single["agrees"].astype(bool)]
        names = [row.item + (f" on {row.task}" if row.task else "") for row in differing.itertuples()]
        line += f"; these differ: {', '.join(names)}" if names else ""
        return line + (f"; verdicts that changed: {', '.join(self.changed)}" if self.changed else "")


class Scores(NamedTuple):
    """One method on one set, a value for each seed: seeds, late accuracy, and whether the run collapsed."""

    seeds: list[int]
    late: np.ndarray
    fell: np.ndarray

    @property
    def healthy(self) -> np.ndarray:
        """Late accuracy, NaN where a run collapsed."""
        return np.where(self.fell, np.nan, self.late)


def make_reference(results: Results, folder: Path, listed: Collection[str], made: dict[str, Any] | None = None) -> list[Path]:
    """Copy the small outcome of `results` to `folder`, in place of what was there -> its files.

    listed: the manifest's files, as paths from results.root; a file left over from earlier is not among them. made: how the
    results came about, as JSON (`sdpg.provenance.made`).
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
    with write_atomic(fresh / CURVES) as file:
        accuracy_curves(results).to_csv(file, index=False, lineterminator="\n")
    write_json(fresh / IDENTITY, identity(results) | ({"made": made} if made else {}))
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
    asked = _score_rows(_scores(here), _scores(there), other, notes)
    if not asked:
        raise ValueError(f"{here.name} and {there.name} have no score in common; are they of the same scale?")
    claims, changed = _claims(here, there, other, notes)
    asked += claims
    adjusted = holm([1.0 if row["p"] is None else row["p"] for row in asked])
    both = zip(asked, adjusted, strict=True)
    rows = [row | {"p_holm": p, "agrees": p > ALPHA and not row.get("opposite")} for row, p in both]
    return Agreement(pd.DataFrame(rows, columns=COLUMNS), changed, notes, other)


def _check_identity(here: dict, there: dict, name: str) -> None:
    if here["accuracy"] != there["accuracy"]:
        raise ValueError(
            f"accuracy is {here['accuracy']} here and {there['accuracy']} in {name}: set evaluation.samples to match"
        )
    other = [task for task, digest in here["problems"].items() if there["problems"].get(task, digest) != digest]
    if other:
        raise ValueError(f"{', '.join(other)}: other problems than in {name}, so the scores cannot be compared")


def _scores(of: Outcome) -> dict[tuple[str, str], Scores]:
    """Return the runs of every (method, task). A run that ended early has no accuracy from there on; it keeps its last one."""
    found = {}
    for (method, task), own in of.curves.groupby(["method", "task"], sort=False):
        table = own.set_index("step").filter(like="seed").dropna(axis=1, how="all")
        if table.empty or table.iloc[0].isna().any():
            raise ValueError(f"{of.name}: {method} on {task} has no accuracy at its first step")
        steps = table.index.to_numpy()
        early = np.where(table.isna().any(), steps[table.isna().to_numpy().argmax(axis=0)], np.nan)
        curves = table.ffill().to_numpy().T
        seeds = [int(name.removeprefix("seed")) for name in table]
        found[method, task] = Scores(
            seeds, scored(steps, curves[:, :, None], "late")[:, 0], collapse(curves, steps, early).ever
        )
    return found


def _row(kind: str, item: str, task: str, here: float, there: float, of: Contrast | float, **more: Any) -> dict[str, Any]:
    """Return a row of COLUMNS before the correction; of: the difference, or a p-value alone."""
    row = {"kind": kind, "item": item, "task": task, "here": here, "reference": there, **more}
    if not isinstance(of, Contrast):
        return row | {"difference": here - there, "low": np.nan, "high": np.nan, "p": of}
    low, high = of.interval()
    return row | {"difference": of.effect, "low": low, "high": high, "p": of.p if np.isfinite(of.error) else None}


def _score_rows(here: dict, there: dict, other: str, notes: list[str]) -> list[dict[str, Any]]:
    """Return the rows of what both have: all scores together, each score, and each count of collapses that is not 0 in both."""
    keys = [key for key in here if key in there]
    notes += [f"{method} on {task} is not in {other}" for method, task in here if (method, task) not in there]
    notes += [f"{method} on {task} is in {other} alone" for method, task in there if (method, task) not in here]
    if not keys:
        return []
    sides = [{key: side[key] for key in keys} for side in (here, there)]
    shared = all(sides[0][key].seeds == sides[1][key].seeds for key in keys)
    rows, matrices = [], ([], [])
    for task in dict.fromkeys(task for _, task in keys):
        of_task = [key for key in keys if key[1] == task]
        healthy = [np.stack([side[key].healthy for key in of_task]) for side in sides]
        for matrix, side in zip(matrices, sides, strict=True):
            matrix.append(np.stack([side[key].late for key in of_task]))
        spread = pooled_spread(*healthy, shared=shared)
        for i, (method, _) in enumerate(of_task):
            found = difference(healthy[0][i], healthy[1][i], spread, shared=shared)
            means = [_mean(side[i]) for side in healthy]
            rows.append(_row("score", method, task, *means, found))
    if any(row["p"] is None for row in rows):
        notes.append(
            "a score without a p-value has no healthy run on one side, or too few runs to know their spread; it is not counted"
        )
    for method, task in keys:
        (a, n), (b, m) = ((int(side[method, task].fell.sum()), len(side[method, task].fell)) for side in sides)
        if a or b:
            rows.append(_row("collapse count", method, task, a / n, b / m, counts_p(a, n, b, m)))
    everything = _row("all", "all scores together", "", np.nan, np.nan, _together(matrices, shared=shared))
    return [everything, *rows]


def _together(matrices: tuple[list[np.ndarray], list[np.ndarray]], *, shared: bool) -> float:
    """Return the p-value of all sets together; sets that lack a method of the first one are left out."""
    rows = len(matrices[0][0])
    kept = [(a, b) for a, b in zip(*matrices, strict=True) if len(a) == rows]
    return together([a for a, _ in kept], [b for _, b in kept], shared=shared)


def _mean(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else np.nan


def _claims(here: Outcome, there: Outcome, other: str, notes: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the claims that have a standard error in both, and the verdicts that changed."""
    if missing := [f"{outcome.name}/{CLAIMS}" for outcome in (here, there) if outcome.claims is None]:
        notes.append(f"claims are not compared: {' and '.join(missing)} missing")
        return [], []
    ours, theirs = ({claim["id"]: claim for claim in outcome.claims} for outcome in (here, there))
    if any(claim["effect"] is not None for claim in theirs.values()) and not any(
        claim["error"] is not None or claim["estimate"] is not None for claim in theirs.values()
    ):
        notes.append(f"claims are not compared: those of {other} were judged by other rules; make it again")
        return [], []
    notes += [f"claim {name} is not in {other}" for name in ours if name not in theirs]
    notes += [f"claim {name} is in {other} alone" for name in theirs if name not in ours]
    rows, changed = [], []
    for name in [name for name in ours if name in theirs]:
        a, b = ours[name], theirs[name]
        if None not in (texts := [of["claim"] for of in (a, b)]) and texts[0] != texts[1]:
            notes.append(f"claim {name} is stated otherwise in {other}, and not compared: {b['claim']!r}")
            continue
        if a["verdict"] != b["verdict"]:
            changed.append(f"{name} {b['verdict']} -> {a['verdict']}")
        if any(claim[key] is None for claim in (a, b) for key in ("estimate", "error")):
            continue
        estimates = [Contrast(of["estimate"], of["error"], of["df"] or np.inf) for of in (a, b)]
        opposite = {a["verdict"], b["verdict"]} == OPPOSITE
        rows.append(_row("claim", name, "", a["estimate"], b["estimate"], welch(*estimates), opposite=opposite))
    return rows, changed

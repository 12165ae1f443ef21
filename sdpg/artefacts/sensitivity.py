"""Which conclusions change with a setting: the claims put to the runs at each value of what `sensitivity` varies.

sensitivity.csv has a row for each value and claim, decided as claims.json would be if that value were the scale's own: the same
windows, thresholds, conditions, intervals and corrections. sensitivity_changes.csv says of each setting and claim where it is
supported, refuted and not decided, and so whether it changes. An open verdict is no change: it is not decided there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sdpg.analysis.intervals import Contrast
from sdpg.analysis.layout import FEWEST, contrast
from sdpg.analysis.results import Results, read_csv
from sdpg.analysis.wording import joined, short_name, value_text
from sdpg.artefacts import write_csv
from sdpg.artefacts.claims import judge
from sdpg.artefacts.claims.kinds import KINDS, Claim
from sdpg.artefacts.claims.runs import Runs
from sdpg.artefacts.claims.spec import CLAIMS, read_claims
from sdpg.artefacts.claims.standing import effect_text
from sdpg.artefacts.claims.verdicts import NOT_RUN, NOT_TESTABLE, OPEN, REFUTED, SUPPORTED, thresholds
from sdpg.artefacts.declare import ArtefactSpec, analysis
from sdpg.config.variants import Setting, settings_of

ARTEFACT = ArtefactSpec(
    about="sensitivity.csv, sensitivity_changes.csv: which conclusions change with a setting that is varied",
    reads=lambda files: [*files.evaluations, *files.metrics],
    writes=("sensitivity.csv", "sensitivity_changes.csv"),
    files=("config/claims.yaml",),
    uses=lambda config: analysis(config) | {"family": config.family, "sensitivity": config.dump()["sensitivity"]},
    planned=lambda config: bool(config.sensitivity),
)

POINTS = ["setting", "value", "own", "claim", "role", "test", "first", "second", "what", "unit", "direction", "margin", "half"]
POINTS += ["effect", "low", "high", "verdict", "reason", "units", "runs", "first_collapsed", "second_collapsed"]
VERDICTS = {SUPPORTED: "supported", REFUTED: "refuted", OPEN: "not_decided", NOT_TESTABLE: "not_testable"}  # columns
CHANGES_COLUMNS = ["setting", "claim", "role", "comparison", "what", "unit", *VERDICTS.values(), "conclusion"]
CHANGES_COLUMNS += ["start", "end", "difference", "low", "high"]
TEXTS = ("claim", *VERDICTS.values(), "start", "end")  # columns that may look like numbers
CHANGES, SAME, ALIKE, ALONE, UNDECIDED = (
    "changes",
    "does not change",
    "no change where decided",
    "decided at one value alone",
    "not decided",
)
APART = "the effects themselves cannot be told apart"
MEASURES = {"response_length": "length"}  # metric -> in a word, where another than its name


class Put(NamedTuple):
    """The claims as the runs at one setting decide them."""

    at: Setting
    runs: Runs
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class At(Results):
    """Results in which each method's runs are those of another name: of the same method at another value."""

    names: dict[str, str] = field(default_factory=dict)

    def run_dir(self, method: str, seed: int):
        return super().run_dir(self.names[method], seed)

    def eval_dir(self, method: str, seed: int):
        return super().eval_dir(self.names[method], seed)


def make(job) -> None:
    """Write sensitivity.csv and sensitivity_changes.csv."""
    alpha, claims = read_claims(CLAIMS)
    found = {}
    for at in settings_of(job.config):
        names = tuple(at.names.items())
        if names not in found:
            runs = Runs(results_at(job.results, at.names))
            found[names] = runs, judge(runs, of_runs(claims, at.names), alpha)
    settings = [Put(at, *found[tuple(at.names.items())]) for at in settings_of(job.config)]
    for name, frame in zip(ARTEFACT.writes, tables(settings, of_runs(claims, job.results.methods)), strict=True):
        write_csv(frame, job.results.root / name)


def results_at(results: Results, names: dict[str, str]) -> At:
    """Return the results with these methods alone, each read from the runs of the given name."""
    return At(**{one.name: getattr(results, one.name) for one in fields(Results)} | {"methods": tuple(names), "names": names})


def of_runs(claims: Sequence[Claim], methods: Iterable[str]) -> list[Claim]:
    """Return the claims that runs of these methods alone can answer."""
    return [claim for claim in claims if claim.get("methods") and set(claim["methods"]) <= set(methods)]


def tables(settings: Sequence[Put], claims: Sequence[Claim]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (points, changes). A claim stands under a setting if a method that it compares has other values there."""
    points, changes = [], []
    for setting in dict.fromkeys(put.at.setting for put in settings):
        puts = [put for put in settings if put.at.setting == setting]
        varied = {method for put in puts for method, name in put.at.names.items() if name != method}
        for claim in claims:
            rows = [next((row for row in put.rows if row["id"] == claim["id"]), None) for put in puts]
            if varied & set(claim["methods"]) and all(row and row["verdict"] != NOT_RUN for row in rows):
                points += [_point(put, claim, row) for put, row in zip(puts, rows, strict=True)]
                changes.append(_change(puts, claim, rows))
    return pd.DataFrame(points, columns=POINTS), pd.DataFrame(changes, columns=CHANGES_COLUMNS)


def read(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return sensitivity.csv and sensitivity_changes.csv."""
    return read_csv(results.root / ARTEFACT.writes[0], POINTS, dtype={"claim": str}), read_changes(results.root)


def read_changes(folder: Path) -> pd.DataFrame:
    """Return sensitivity_changes.csv of a folder, of results or of a reference."""
    frame = read_csv(folder / ARTEFACT.writes[1], CHANGES_COLUMNS, dtype=dict.fromkeys(TEXTS, str))
    return frame.fillna(dict.fromkeys(TEXTS, ""))


def conclusion(verdicts: Sequence[str]) -> str:
    """Return what verdicts at several values of a setting say together."""
    decided = [verdict for verdict in verdicts if verdict in (SUPPORTED, REFUTED)]
    if len(set(decided)) > 1:
        return CHANGES
    if len(decided) == len(verdicts):
        return SAME
    return {0: UNDECIDED, 1: ALONE}.get(len(decided), ALIKE)


def difference(one: Runs, other: Runs, claim: Claim) -> Contrast:
    """Return the claim's effect in `other` minus that in `one`, on the scale of the test, paired by unit and problem, among
    units whose four runs are healthy; NaN for a test that compares no healthy runs, or too few of them.
    """
    kind, sets = KINDS[claim["test"]], claim.get("data") == "evaluation"
    if kind.of != "healthy":
        return Contrast(np.nan, np.nan, np.inf)
    d, healthy_S = [], np.ones(len(one.results.seeds), dtype=bool)
    for runs in (one, other):
        tasks = claim.get("tasks", runs.results.tasks) if sets else [None]
        x, y = (np.hstack([kind.values(runs, claim, method, task) for task in tasks]) for method in claim["methods"])
        d.append(x - y)  # [S, P]
        for method in claim["methods"]:
            for task in tasks:
                healthy_S &= runs.collapse(method, task).healthy
    if healthy_S.sum() < min(FEWEST, len(healthy_S)):
        return Contrast(np.nan, np.nan, np.inf)
    return contrast(d[1][healthy_S], d[0][healthy_S])


def _point(put: Put, claim: Claim, row: dict[str, Any]) -> dict[str, Any]:
    relative = claim["relative"] or KINDS[claim["test"]].relative
    sign = 1 if claim["direction"] == "above" else -1
    ends = [None if end is None else _reported(sign * end, relative) for end in thresholds(claim, relative)]
    fell = {of["method"]: of["collapsed"] for of in row["collapsed"]}
    first, second = [*claim["methods"], None][:2]
    return {
        **{"setting": put.at.setting, "value": put.at.value, "own": int(put.at.own), "claim": claim["id"]},
        **{key: row[key] for key in ("role", "test", "unit", "direction", "effect", "low", "high", "verdict", "reason")},
        **{"first": first, "second": second, "what": what(claim, put.runs.results.steps), "margin": ends[0], "half": ends[1]},
        **{"units": len(row["units"]), "runs": len(put.runs.results.seeds)},
        **{"first_collapsed": fell.get(first), "second_collapsed": fell.get(second)},
    }


def _change(puts: Sequence[Put], claim: Claim, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    verdicts = [row["verdict"] for row in rows]
    found = {
        **{"setting": puts[0].at.setting, "claim": claim["id"], "role": rows[0]["role"], "comparison": rows[0]["comparison"]},
        **{"what": what(claim, puts[0].runs.results.steps), "unit": rows[0]["unit"]},
        "conclusion": conclusion(verdicts),
    }
    for verdict, column in VERDICTS.items():
        found[column] = joined([value_text(put.at.value) for put, own in zip(puts, verdicts, strict=True) if own == verdict])
    if found["conclusion"] == CHANGES:
        found |= _apart(puts, claim, rows)
    return found


def _apart(puts: Sequence[Put], claim: Claim, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how far the effect is apart between where the claim is supported most and where it is refuted most."""
    sign = 1 if claim["direction"] == "above" else -1

    def most(verdict: str, way: int) -> Put:
        there = [(put, row) for put, row in zip(puts, rows, strict=True) if row["verdict"] == verdict]
        return max(there, key=lambda pair: way * sign * pair[1]["effect"])[0]

    start, end = most(SUPPORTED, 1), most(REFUTED, -1)
    relative = claim["relative"] or KINDS[claim["test"]].relative
    of = difference(start.runs, end.runs, claim)
    numbers = [_reported(number, relative) for number in (of.effect, *of.interval())]
    names = {"start": value_text(start.at.value), "end": value_text(end.at.value)}
    return names | dict(zip(("difference", "low", "high"), numbers, strict=True))


def _reported(number: float, relative: bool) -> float:
    """Return a number of the test's scale as it is reported: a logarithm as a relative change."""
    return float(np.expm1(number)) if relative else float(number)


def what(claim: Claim, steps: int | None) -> str:
    """Return what a claim compares its methods by, in a few words."""
    metric = claim.get("metric")
    name = MEASURES.get(metric, metric)
    where = {"evaluation": "evaluation"}.get(claim.get("data"), "rollouts")
    match claim["test"]:
        case "mean":
            return f"{name}, {where}, {_window(claim['window'], steps)}"
        case "area":
            return f"{name}, {where}, mean over the run"
        case "time_to":
            return f"{claim['axis']} to {claim['share']:.0%} of the end of {claim['methods'][1]}"
        case "change":
            return f"{name}, {where}, from {_window(claim['before'], steps)} to {_window(claim['after'], steps)}"
    return f"runs that collapse, {where}"


def _window(window: Sequence[float], steps: int | None) -> str:
    """Return the steps k with a < k / steps <= b."""
    if steps is None:
        return f"{window[0]:.0%} to {window[1]:.0%} of the run"
    first, last = (int(np.floor(end * steps + 1e-9)) for end in window)
    return f"steps {first + 1} to {last}" if last > first + 1 else f"step {last}"


def sentences(changes: pd.DataFrame, *, places: bool) -> str:
    """Return in words which conclusions change with each setting. places: and where they are decided how."""
    return " ".join(_sentence(setting, rows, places) for setting, rows in changes.groupby("setting", sort=False))


def _sentence(setting: str, rows: pd.DataFrame, places: bool) -> str:
    changed = [row.claim + f" ({_where(row)})" * places for row in rows[rows["conclusion"] == CHANGES].itertuples()]
    parts = [f"{CHANGES}: {', '.join(changed) or 'none'}"]
    for words in (SAME, ALIKE, ALONE, UNDECIDED):
        if ids := rows[rows["conclusion"] == words]["claim"].tolist():
            parts.append(f"{words}: {', '.join(ids)}")
    return f"With another {short_name(setting)}, {'; '.join(parts)}."


def _where(row: Any) -> str:
    text = f"supported at {row.supported}, refuted at {row.refuted}"
    text += f", not decided at {row.not_decided}" if row.not_decided else ""
    return text + (f"; {APART}" if row.low <= 0 <= row.high else "")


def apart_text(row: Any) -> str:
    """Return how far the effects of a conclusion that changes are apart; "" where that is not known."""
    if pd.isna(row.low):
        return ""
    by = effect_text({"effect": row.difference, "low": row.low, "high": row.high}, row.unit)
    return f"from {row.start} to {row.end} by {by}" + (f": {APART}" if row.low <= 0 <= row.high else "")

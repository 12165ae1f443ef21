"""When, where and from which commit a scale's results were made: what a reference says of itself (reference.json, `made`)."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sdpg.io import read_json
from sdpg.provenance.records import Time, read_times

FILE = "reference.json"
LM_EVAL = ("lm_evaluate_base", "lm_evaluate_run")  # which begin as a rule of scale `lm` does where that is one of several


class Jobs(BaseModel):
    """The jobs of one rule: how many, the median of their seconds, and the sum."""

    count: int
    median: float
    seconds: float


class Made(BaseModel):
    """How a scale's results came about.

    commits: of the runs and of what was made from them; one, unless something was made again later. date: of the last job, in
    UTC. minutes: of wall time in which at least one job ran; None where Snakemake's records are not there, as in a copy.
    rules: of each rule of the workflow its jobs. What each job was made from, code and config, is in manifest.json beside it.
    """

    model_config = ConfigDict(extra="forbid")

    commits: list[str]
    command: str
    overrides: dict[str, Any]
    date: str | None
    minutes: float | None
    processors: list[str]
    cores: int | None
    runs: int
    versions: dict[str, str]
    rules: dict[str, Jobs]


def made(root: Path, name: str, manifest: Mapping[str, Any], database: Path) -> Made:
    """Return how the results in `root` were made, from manifest, every run.json, and Snakemake's records if they are there.

    name: the scale's, under which the records have its files.
    """
    infos = [read_json(path) for path in sorted(root.glob("runs/*/seed*/run.json"))]
    hardware = [info.get("hardware", {}) for info in infos]
    commits = [*(info.get("git_commit") for info in infos), manifest.get("git_commit")]
    processors = [of.get("gpu") or of.get("processor") for of in hardware]
    jobs = _jobs(database, name)
    return Made(
        commits=_once(commits),
        command=manifest.get("command", ""),
        overrides=manifest.get("overrides", {}),
        date=_day(max(end for _, _, end in jobs)) if jobs else None,
        minutes=round(busy((start, end) for _, start, end in jobs) / 60, 1) if jobs else None,
        processors=_once(processors),
        cores=max((of["cores"] for of in hardware if of.get("cores")), default=None),
        runs=len(infos),
        versions=infos[0].get("versions", {}) if infos else {},
        rules={rule: _of_rule(rule, jobs) for rule in sorted({rule for rule, _, _ in jobs})},
    )


def read_made(folder: Path) -> Made | None:
    """Return what a reference says of itself; None if nothing (of an earlier form). Raises ValueError if it is broken."""
    content = read_json(folder / FILE)
    if "made" not in content:
        return None
    try:
        return Made.model_validate(content["made"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{folder / FILE}, made.{key}: got {first['input']!r}; {first['msg']}") from None


def busy(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of these intervals (start, end) lasted; pauses between them do not count."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _jobs(database: Path, name: str) -> list[tuple[str, float, float]]:
    """Return rule, start and end of each job of a scale, whose outputs have its log.

    The rules of a scale that was not the first one of its workflow begin with the scale's name, which is left out.
    """
    if not database.is_file():
        return []
    jobs: dict[str, list[Time]] = {}
    for target, time in read_times(database).items():
        if target.startswith(f"results/{name}/"):
            jobs.setdefault(time.log, []).append(time)
    every = all(of[0].rule.startswith(f"{name}_") for of in jobs.values())

    def plain(rule: str) -> str:
        return rule.removeprefix(f"{name}_") if every or rule not in LM_EVAL else rule

    return sorted((plain(of[0].rule), min(t.start for t in of), max(t.end for t in of)) for of in jobs.values())


def _of_rule(rule: str, jobs: list[tuple[str, float, float]]) -> Jobs:
    seconds = [end - start for name, start, end in jobs if name == rule]
    return Jobs(count=len(seconds), median=round(statistics.median(seconds), 1), seconds=round(sum(seconds), 1))


def _once(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()

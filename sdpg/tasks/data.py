"""The data sets of a run: built from their sources, made disjoint by content, kept as parquet files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdpg.io import write_atomic, write_json
from sdpg.tasks.prompts import load_template
from sdpg.tasks.sources import build_source
from sdpg.types import Problem

if TYPE_CHECKING:
    from sdpg.config.settings import Config

# What evaluation.lm_eval.forgetting may name, besides lm-eval's own tasks: skills that training does not touch.
FORGETTING = {"reverse": {"reverse": {"count": 128, "seed": 4}}}
COLUMNS = [field.name for field in fields(Problem)]


def content_key(question: str) -> str:
    """Return questions with the same key are the same problem: letters in lower case, all white space left out."""
    return "".join(question.casefold().split())


def load_problems(path: str | Path) -> list[Problem]:
    """Read a parquet file of `save_problems`. Raises ValueError if it is missing, empty, or lacks a column."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; run the data rule of this scale first")
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises several unrelated kinds for a file that is not parquet
        raise ValueError(f"{path} could not be read as parquet ({error}); delete it and run the data rule again") from error
    if missing := [column for column in COLUMNS if column not in frame.columns]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise ValueError(f"{path} is empty: got 0 problems, expected at least 1")
    return [Problem(*row) for row in frame[COLUMNS].itertuples(index=False, name=None)]


def save_problems(path: str | Path, problems: list[Problem]) -> None:
    """Write problems as parquet with columns id, question, answer, solution, source; atomically."""
    frame = pd.DataFrame([astuple(problem) for problem in problems], columns=COLUMNS)
    with write_atomic(path, "wb") as file:
        frame.to_parquet(file, index=False)


def build_data(config: Config, folder: str | Path) -> dict[str, Any]:
    """Build the sets of `config.data` and write train.parquet, validation/<name>.parquet, eval/<name>.parquet and
    disjoint.json into `folder`, and forgetting/<name>.parquet if `evaluation.lm_eval.forgetting` names one of FORGETTING.

    A problem that occurs twice in a set is kept once. The validation sets lose every problem that is also in an evaluation
    set, the training set every problem of either; all sets lose the questions that the template's worked examples answer.
    Nothing is written before every set is built. Returns what disjoint.json holds.
    """
    data = config.data
    shots = {content_key(q) for q in load_template(config.task.template).shot_questions()}
    reports: dict[str, dict[str, Any]] = {"evaluation": {}, "validation": {}}
    evaluation, validation = {}, {}
    for name, source in data.evaluation.items():
        evaluation[name], reports["evaluation"][name] = _clean(
            build_source(source, f"evaluation.{name}"), shots, "shown_in_prompt"
        )
    held_out = _keys(evaluation.values())
    for name, source in data.validation.items():
        problems = build_source(source, f"validation.{name}")
        validation[name], reports["validation"][name] = _disjoint(problems, shots, held_out)
    held_out |= _keys(validation.values())
    train, train_report = _disjoint(build_source(data.train, "train"), shots, held_out)
    sets = {"train": train} | {f"validation.{k}": v for k, v in validation.items()}
    for name, problems in (sets | {f"evaluation.{k}": v for k, v in evaluation.items()}).items():
        if not problems:
            raise ValueError(f"data.{name} has no problem left after duplicates and overlaps were taken out; give it more")
    overlap = (_keys([train]) & held_out) | (_keys(validation.values()) & _keys(evaluation.values()))
    report = {"train": train_report, **reports, "overlap_remaining": len(overlap)}
    assert report["overlap_remaining"] == 0
    folder = Path(folder)
    save_problems(folder / "train.parquet", train)
    forgetting = config.evaluation.lm_eval.forgetting if config.evaluation.lm_eval else None
    if forgetting in FORGETTING:
        save_problems(folder / "forgetting" / f"{forgetting}.parquet", build_source(FORGETTING[forgetting], forgetting))
    for part, several in (("eval", evaluation), ("validation", validation)):
        for name, problems in several.items():
            save_problems(folder / part / f"{name}.parquet", problems)
    write_json(folder / "disjoint.json", report)
    return report


def _keys(sets: Iterable[list[Problem]]) -> set[str]:
    return {content_key(p.question) for problems in sets for p in problems}


def _disjoint(problems: list[Problem], shots: set[str], held_out: set[str]) -> tuple[list[Problem], dict[str, Any]]:
    """Clean problems, and leave out those that a set with precedence has -> what is left, and the counts."""
    kept, report = _clean(problems, shots, "shown_in_prompt")
    kept, overlap = _clean(kept, held_out, "overlap_removed")
    report["overlap_removed"] = overlap["overlap_removed"]
    report["removed_ids"] = (report["removed_ids"] + overlap["removed_ids"])[:20]
    report["problems"] = len(kept)
    return kept, report


def _clean(problems: list[Problem], unwanted: set[str], reason: str) -> tuple[list[Problem], dict[str, Any]]:
    """Drop repeated and unwanted questions -> what is left, and the counts. Ids must differ."""
    if repeated := [id for id, n in Counter(p.id for p in problems).items() if n > 1]:
        raise ValueError(f"problem ids must differ, got {repeated[0]!r} more than once ({len(repeated)} such ids)")
    seen: set[str] = set()
    kept, duplicates, removed = [], 0, []
    for problem in problems:
        key = content_key(problem.question)
        if key in unwanted:
            removed.append(problem.id)
        elif key in seen:
            duplicates += 1
        else:
            kept.append(problem)
        seen.add(key)
    report = {
        "problems": len(kept),
        "duplicates_removed": duplicates,
        reason: len(removed),
        "without_solution": sum(not p.solution for p in kept),
        "removed_ids": removed[:20],
    }
    return kept, report

"""The data sets of a run: built from their sources, checked, made disjoint by content, kept as parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdpg.io import write_atomic, write_json
from sdpg.tasks.cleaning import MOST_ROWS, Row, content_key, keys, leave_out, unique
from sdpg.tasks.gold import Gold
from sdpg.tasks.lengths import Lengths, Room
from sdpg.tasks.pinned import content_hash
from sdpg.tasks.solutions import with_solutions
from sdpg.tasks.sources import build_source
from sdpg.types import Problem

if TYPE_CHECKING:
    from sdpg.config.settings import Config

# What evaluation.lm_eval.forgetting may name, besides lm-eval's own tasks: skills that training does not touch.
FORGETTING = {"reverse": {"reverse": {"count": 128, "seed": 4}}}
SHOWN = 3  # rows in an error
COLUMNS = [field.name for field in fields(Problem)]


def load_problems(path: str | Path) -> list[Problem]:
    """Read a parquet file of `save_problems`. Raises ValueError if it is missing, empty, or lacks a column."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; `sdpg data --scale NAME` makes it (or snakemake, by itself)")
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises several unrelated kinds for a file that is not parquet
        raise ValueError(f"{path} could not be read as parquet ({error}); delete it, then `sdpg data --scale NAME`") from error
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


def training_problems(config: Config, *, room: Room | None = None) -> list[Problem]:
    """Return the training problems as `build_data` keeps them, but that none goes for want of a worked solution, or because of
    its length. Raises ValueError as `build_data` does.
    """
    checks = _Checks(config, room._replace(teacher=False) if room else None)
    try:
        raw = _read(config)
        held_out = keys(problems for name, problems in raw.items() if name != "train")
        return checks.cleaned("train", raw["train"], held_out)[0]
    finally:
        checks.gold.close()


def _read(config: Config) -> dict[str, list[Problem]]:
    """Return the sets as their sources have them; the training set last."""
    data = config.data
    read = {f"evaluation.{name}": source for name, source in data.evaluation.items()}
    read |= {f"validation.{name}": source for name, source in data.validation.items()}
    return {name: build_source(source, name, data.mirror) for name, source in (read | {"train": data.train}).items()}


def build_data(
    config: Config, folder: str | Path, *, room: Room | None = None, solutions: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Build the sets of `config.data` and write train.parquet, validation/<name>.parquet, eval/<name>.parquet and report.json
    into `folder`, and forgetting/<name>.parquet if `evaluation.lm_eval.forgetting` names one of FORGETTING.

    A question that occurs twice in a set is kept once. The validation sets lose every problem that is also in an evaluation
    set, the training set every problem of either; all sets lose the questions that the template's worked examples answer.
    Reference answers are judged, solutions looked for and prompts measured as the keys of `data` say; without `room` the last
    two are left out. solutions: written ones for training problems that have none (see `with_solutions`), None if nobody wrote
    any. Nothing is written before every set is built. Returns what report.json holds.
    """
    data, checks = config.data, _Checks(config, room)
    try:
        raw = _read(config)
        filled = None
        if solutions is not None:
            raw["train"], filled = with_solutions(raw["train"], solutions)
        evaluation = keys(raw[f"evaluation.{name}"] for name in data.evaluation)
        held_out = evaluation | keys(raw[f"validation.{name}"] for name in data.validation)
        made: dict[str, list[Problem]] = {}
        reports: dict[str, dict[str, Any]] = {}
        for name in list(raw):
            unwanted = {"train": held_out, "validation": evaluation, "evaluation": None}[name.partition(".")[0]]
            made[name], reports[name] = checks.cleaned(name, raw.pop(name), unwanted)
    finally:
        checks.gold.close()
    if filled:
        reports["train"]["solutions"] = filled
    parts = {part: _part(made, part) for part in ("evaluation", "validation")}
    overlap = (keys([made["train"]]) & held_out) | (keys(parts["validation"].values()) & evaluation)
    report = {"train": reports["train"], **{part: _part(reports, part) for part in parts}, "overlap_remaining": len(overlap)}
    assert report["overlap_remaining"] == 0
    folder = Path(folder)
    save_problems(folder / "train.parquet", made["train"])
    forgetting = config.evaluation.lm_eval.forgetting if config.evaluation.lm_eval else None
    if forgetting in FORGETTING:
        save_problems(folder / "forgetting" / f"{forgetting}.parquet", build_source(FORGETTING[forgetting], forgetting))
    for part, several in (("eval", parts["evaluation"]), ("validation", parts["validation"])):
        for name, problems in several.items():
            save_problems(folder / part / f"{name}.parquet", problems)
    write_json(folder / "report.json", report)
    return report


def _part(sets: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the sets of "evaluation" or "validation" by their names alone."""
    return {name.partition(".")[2]: value for name, value in sets.items() if name.startswith(f"{part}.")}


class _Checks:
    """What every set goes through."""

    def __init__(self, config: Config, room: Room | None):
        self.data, self.room = config.data, room
        self.gold = Gold(config.task)
        self.least = ""  # before the number of rejected answers, where not all were judged
        self.lengths = Lengths(config.task, room) if room else None
        self.shots = {content_key(question) for question in self.gold.template.shot_questions()}

    def cleaned(self, name: str, problems: list[Problem], unwanted: set[str] | None) -> tuple[list[Problem], dict[str, Any]]:
        """Return what is left of a set, and the counts. unwanted: content keys of the sets with precedence, if any has.

        Raises ValueError in one line for what the config does not allow.
        """
        try:
            rows, counts = unique(problems, name, self.gold.accepts, conflicts=self.data.conflicting_answers)
            rows, shown = leave_out(rows, self.shots)
            report = {"rows": len(problems), "content": content_hash(problems)} | counts | {"shown_in_prompt": len(shown)}
            if unwanted is not None:
                rows, taken = leave_out(rows, unwanted)
                report["overlap_removed"] = len(taken)
                shown += taken
            report["removed_ids"] = shown[:20]
            train = name == "train"
            report["without_solution"] = sum(not row.problem.solution for row in rows)
            if train and self.room:
                rows, report["missing_solutions"] = self._solutions(rows)
            policy = self.data.rejected_answers
            rejected, report["answers"] = self.gold.check(rows, every=policy == "drop")
            judged_all = report["answers"]["judged"] == report["answers"]["needed_a_judge"]
            self.least = "" if judged_all else "at least "
            rows = self._after(name, rows, rejected, policy, self._rejection)
            if self.lengths:
                overlong, report["prompts"] = self.lengths.check(rows, teacher=train)
                rows = self._after(name, rows, overlong, self.data.overlong, self._overlong)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith("data.") else f"data.{name}: {text}") from error
        if not rows:
            raise ValueError(f"data.{name} has no problem left after {_reasons(report)} were taken out; give it more")
        return [row.problem for row in rows], {"problems": len(rows), **report}

    def _after(self, name: str, rows: list[Row], found: Mapping[int, str], policy: str, said) -> list[Row]:
        """Return the rows that stay, or raise ValueError with the first that were found."""
        if not found or policy == "keep":
            return rows
        if policy == "error":
            first = [row for row in rows if row.number in found][:SHOWN]
            raise ValueError(f"data.{name}: {said(rows, first, found)}")
        return [row for row in rows if row.number not in found]

    def _rejection(self, rows: list[Row], first: list[Row], found: Mapping[int, str]) -> str:
        listed = "; ".join(
            f"row {row.number} ({row.problem.id}): {row.problem.answer[:40]!r}"
            + (f" when the response says {found[row.number][:40]!r}" if found[row.number] != row.problem.answer else "")
            for row in first
        )
        asked = self.gold.forms("...")[0]
        return (
            f"the verifier {self.gold.name!r} rejects {self.least}{len(found)} of {len(rows)} reference answers: {listed}; "
            f"responses are asked for as {asked!r}. Correct them (a mark in the column: answer_after), choose another "
            "verifier or template, or set data.rejected_answers to drop or keep"
        )

    def _overlong(self, rows: list[Row], first: list[Row], found: Mapping[int, str]) -> str:
        listed = "; ".join(f"row {row.number} ({row.problem.id}): {found[row.number]}" for row in first)
        return (
            f"{len(found)} of {len(rows)} problems have a prompt of more than {self.lengths.limit} tokens "
            f"({self.lengths.named}): {listed}; raise the limit, shorten them, or set data.overlong to drop"
        )

    def _solutions(self, rows: list[Row]) -> tuple[list[Row], dict[str, Any]]:
        """Return the training problems that stay, by whether they have the solution that a teacher reads, and the counts."""
        template, policy = self.gold.template, self.data.missing_solutions
        missing = [row for row in rows if not row.problem.solution]
        read = self.room.teacher and template.reads_solution
        counts = {"read_by_a_teacher": read, "rows": [row.number for row in missing][:MOST_ROWS]}
        if not read or not missing:
            return rows, counts | {"dropped": 0, "kept": len(missing)}
        first = ", ".join(f"{row.number} ({row.problem.id})" for row in missing[:SHOWN])
        said = f"{len(missing)} of {len(rows)} problems have no worked solution, the first in row {first}"
        if policy == "error":
            raise ValueError(
                f"data.train: {said}, but the teacher reads one (template {template.name!r}); name its column (columns: "
                "{solution: ...}), take a template without {solution}, or set data.missing_solutions to drop or keep"
            )
        if policy == "keep" and template.teacher_without_solution is None:
            raise ValueError(
                f"data.train: {said}, and data.missing_solutions is keep, but template {template.name!r} has no "
                "teacher_without_solution to show instead; add it, or drop these problems"
            )
        if policy == "keep":
            return rows, counts | {"dropped": 0, "kept": len(missing)}
        return [row for row in rows if row.problem.solution], counts | {"dropped": len(missing), "kept": 0}


def _reasons(report: Mapping[str, Any]) -> str:
    """Return what took problems out of a set."""
    counts = {
        "duplicates": report["duplicates_removed"],
        "overlaps": report["shown_in_prompt"] + report.get("overlap_removed", 0),
        "conflicts": report["conflicts_removed"],
        "problems without solution": report.get("missing_solutions", {}).get("dropped", 0),
        "rejected answers": report["answers"]["rejected"],
        "overlong prompts": report.get("prompts", {}).get("overlong", 0),
    }
    named = [name for name, count in counts.items() if count or name in ("duplicates", "overlaps")]
    return f"{', '.join(named[:-1])} and {named[-1]}"

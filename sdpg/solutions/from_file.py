"""Solutions from a file that the user has: rows belong to problems by question, or by id where the file has no questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from sdpg.config.solutions import SolutionFile
from sdpg.solutions.accepting import Accepting
from sdpg.tasks.cleaning import exact_key
from sdpg.tasks.layouts import MISSING, as_text, lookup
from sdpg.tasks.rows import FORMATS, format_of, read_rows
from sdpg.tasks.solutions import solution_key
from sdpg.types import Problem

AT = "data.solutions.file"


def check_file(settings: SolutionFile) -> None:
    """Raise ValueError for a file that is not there, or of no known kind."""
    path = Path(settings.path)
    if format_of(path) is None:
        raise ValueError(f"{AT}.path: {path} must end in one of .{', .'.join(FORMATS)}, or one of these and .gz")
    if not path.is_file():
        raise ValueError(f"{AT}.path: {path} does not exist (looked in {path.absolute().parent})")


def read_solutions(settings: SolutionFile) -> tuple[dict[str, list[str]], str]:
    """Return ({question or id: its solutions, in the file's order}, "question" or "id"). Raises ValueError by row."""
    check_file(settings)
    columns, path = settings.columns, Path(settings.path)
    found: dict[str, list[str]] = defaultdict(list)
    by, seen = "", {}
    try:
        for place, row in read_rows(path, [columns.solution, columns.question, columns.id]):
            seen |= dict.fromkeys(row)
            by = by or next((f for f in ("question", "id") if lookup(row, getattr(columns, f)) is not MISSING), "")
            values = {field: _text(row, getattr(columns, field), path.name, place) for field in ("solution", by or "id")}
            if lookup(row, columns.solution) is MISSING or not by:
                continue
            if not values[by]:
                raise ValueError(f"{path.name}, {place}: {by} (column {getattr(columns, by)!r}) is empty")
            if values["solution"]:
                found[exact_key(values[by]) if by == "question" else values[by]].append(values["solution"])
    except ValueError as error:
        raise ValueError(f"{AT}: {error}") from error
    if not seen:
        raise ValueError(f"{AT}: {path.name} is empty: got 0 rows, expected at least 1")
    if not found:
        lacks = columns.solution if by else f"{columns.question} or {columns.id}"
        raise ValueError(
            f"{AT}: {path.name} has no solution in a column {lacks!r}; it has {', '.join(map(repr, seen))}; "
            "say which with columns"
        )
    return found, by


def _text(row: dict[str, Any], column: str, name: str, place: str) -> str:
    value = lookup(row, column)
    try:
        return "" if value is MISSING else as_text(value).strip()
    except ValueError as error:
        raise ValueError(f"{name}, {place}: column {column!r} {error}") from None


def from_file(
    settings: SolutionFile, problems: list[Problem], accept: Accepting
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return (a row for each problem with an accepted solution, the counts). Raises ValueError if no row is of any problem."""
    given, by = read_solutions(settings)
    rows, rejected, matched, tries = [], Counter(), 0, 0
    for problem in problems:
        texts = given.get(exact_key(problem.question) if by == "question" else problem.id, [])
        matched += bool(texts)
        for number, text in enumerate(texts, start=1):
            tries += 1
            verdict = accept(problem, text)
            if verdict.solution:
                row = {"key": solution_key(problem), "id": problem.id, "solution": verdict.solution, "try": number}
                rows.append(row | {"writer": "file", "model": Path(settings.path).name})
                break
            rejected[verdict.why] += 1
    if problems and not matched:
        first = problems[0].question if by == "question" else problems[0].id
        raise ValueError(
            f"{AT}: none of the {len(given)} {by}s of {Path(settings.path).name} is one of the {len(problems)} problems "
            f"without a solution (first: {first[:60]!r}); compare the {by}s"
        )
    counts = {"matched_by": by, "matched": matched, "in_the_file": len(given), "responses": tries, "rejected": dict(rejected)}
    return rows, counts

"""One set's problems without repeated ones, without conflicts, and without those that another set has; all by row."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from sdpg.types import Problem

_BESIDE_SIGNS = re.compile(r"(?<!\w) | (?!\w|[-.]\d)")
MOST_ROWS = 200  # listed of each kind; the counts are of all


class Row(NamedTuple):
    """A problem and its number, from 1, in the set as it was read."""

    number: int
    problem: Problem

    def facts(self, **more: Any) -> dict[str, Any]:
        """Return what a report says of it."""
        problem = self.problem
        return {"row": self.number, "id": problem.id, "answer": problem.answer[:80], "question": problem.question[:80], **more}


def exact_key(question: str) -> str:
    """Return questions with the same key are the same: they differ in white space alone, and have the same words and numbers.

    `2 + 3` is `2+3`, but `1 1/2` is not `11/2`, `for X` not `for x`, `5 -3` (two numbers) not `5-3`.
    """
    return _BESIDE_SIGNS.sub("", " ".join(unicodedata.normalize("NFC", question).split()))


def content_key(question: str) -> str:
    """Return questions with the same key may be the same: letters in lower case, all white space left out."""
    return "".join(unicodedata.normalize("NFC", question).casefold().split())


def unique(
    problems: list[Problem], name: str, same: Callable[[Problem, str], bool], *, conflicts: str
) -> tuple[list[Row], dict[str, Any]]:
    """Return each question once, the first row of it, and the counts. Where its rows have different answers, none is kept, or
    ValueError is raised (conflicts: "drop" or "error").

    same: whether another answer is the problem's own in another spelling. Raises ValueError for ids that are not unique.
    """
    groups: dict[str, list[Row]] = {}
    for number, problem in enumerate(problems, start=1):
        groups.setdefault(exact_key(problem.question), []).append(Row(number, problem))
    kept: list[Row] = []
    conflicting: list[list[Row]] = []
    for rows in groups.values():
        first = rows[0].problem
        answers = dict.fromkeys(row.problem.answer for row in rows[1:])
        if all(answer == first.answer or same(first, answer) for answer in answers):
            kept.append(rows[0])
        else:
            conflicting.append(rows)
    if conflicting and conflicts == "error":
        first = conflicting[0]
        shown = "; ".join(f"row {row.number}: {row.problem.answer[:40]!r}" for row in first[:4])
        raise ValueError(
            f"data.{name}: {len(conflicting)} question(s) with different answers: {shown} for "
            f"{first[0].problem.question[:60]!r}; correct the data, or set data.conflicting_answers to drop"
        )
    if repeated := [id for id, n in Counter(row.problem.id for row in kept).items() if n > 1]:
        where = ", ".join([f"{row.number}" for row in kept if row.problem.id == repeated[0]][:4])
        text = f"problem ids must differ, got {repeated[0]!r} more than once, in rows {where} ({len(repeated)} such ids)"
        raise ValueError(f"data.{name}: {text}; take another column (columns: {{id: ...}}), or leave it out to number the rows")
    loose = Counter(content_key(row.problem.question) for row in kept)
    rows = [row for group in conflicting for row in group]
    return kept, {
        "rows": len(problems),
        "duplicates_removed": len(problems) - len(kept) - len(rows),
        "near_duplicates_kept": len(kept) - len(loose),
        "conflicts_removed": len(rows),
        "conflicts": [row.facts() for row in rows[:MOST_ROWS]],
    }


def keys(sets: Iterable[Iterable[Problem]]) -> set[str]:
    """Return the content keys of all problems."""
    return {content_key(p.question) for problems in sets for p in problems}


def leave_out(rows: list[Row], unwanted: Collection[str]) -> tuple[list[Row], list[str]]:
    """Return the rows whose question is not among the content keys, and the ids of the others."""
    found = [content_key(row.problem.question) in unwanted for row in rows]
    kept = [row for row, out in zip(rows, found, strict=True) if not out]
    return kept, [row.problem.id for row, out in zip(rows, found, strict=True) if out]

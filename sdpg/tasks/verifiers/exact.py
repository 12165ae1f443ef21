"""Its answer equals the reference, but for case, white space and a final full stop."""

from __future__ import annotations

from sdpg.tasks.answers import MAX_ANSWER, find_answer, normalise
from sdpg.types import Problem, Score


def verify(problem: Problem, text: str, *, answer_after: str | None = None, **_) -> Score:
    """Compare the answer that the text gives (see `find_answer`)."""
    found = find_answer(text, answer_after)
    return Score(len(found) <= MAX_ANSWER and normalise(found) == normalise(problem.answer))

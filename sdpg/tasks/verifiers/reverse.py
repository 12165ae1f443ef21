"""It is the reference answer, to the letter."""

from __future__ import annotations

from sdpg.types import Problem, Score


def verify(problem: Problem, text: str, **_) -> Score:
    """Compare the whole text."""
    return Score(text == problem.answer)

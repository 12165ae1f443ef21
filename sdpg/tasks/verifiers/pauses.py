"""It ends in `#` and the right answer; process accuracy: it is the worked solution to the letter, but for its pauses."""

from __future__ import annotations

from sdpg.tasks.pauses import verify_pauses
from sdpg.types import Problem, Score


def verify(problem: Problem, text: str, **_) -> Score:
    """Judge a chain with pauses."""
    return verify_pauses(problem, text)

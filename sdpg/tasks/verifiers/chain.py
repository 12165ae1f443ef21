"""It ends in `#` and the right answer; process accuracy: it is the worked solution, to the letter."""

from __future__ import annotations

from sdpg.tasks.chain import verify_chain
from sdpg.types import Problem, Score


def verify(problem: Problem, text: str, **_) -> Score:
    """Judge a chain."""
    return verify_chain(problem, text)

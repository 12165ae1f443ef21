"""The content of its last \\boxed{} is mathematically equal to the reference (math-verify)."""

from __future__ import annotations

from sdpg.tasks.answers import MAX_ANSWER, find_box
from sdpg.types import Problem, Score

LIBRARY = "math_verify"


def verify(problem: Problem, text: str, *, ask, **_) -> Score:
    """Compare the last box with the reference; most right answers are equal to the letter, and need no judge."""
    found = find_box(text)
    if not found or len(found) > MAX_ANSWER:
        return Score(False)
    return Score(found == problem.answer.strip() or ask(answer=problem.answer, given=found))


def judge(answer: str, given: str) -> bool:
    """Compare two contents of boxes with math-verify, without its own time limit. Raises ValueError for a reference unread."""
    from math_verify import LatexExtractionConfig, parse, verify

    box = [LatexExtractionConfig(boxed_match_priority=0)]
    gold = parse(f"\\boxed{{{answer}}}", box, parsing_timeout=None)
    if not gold:
        raise ValueError(f"the reference answer {answer!r} could not be read")
    return verify(gold, parse(f"\\boxed{{{given}}}", box, parsing_timeout=None), timeout_seconds=None)

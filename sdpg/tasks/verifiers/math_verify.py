r"""The content of its last \boxed{} is mathematically equal to the reference, exactly (read by math-verify's grammar).

Spelling does not count (`1\,000`, `\frac12`, `½`, `42.`, `x = 42`, `42 \text{ apples}`), the value does, to the last digit: see
`sdpg.tasks.spelling`, `quantities` and `equality`.
"""

from __future__ import annotations

from sdpg.tasks.answers import MAX_ANSWER, find_box
from sdpg.tasks.equality import quick, refuse, same
from sdpg.tasks.judge import Unjudged
from sdpg.tasks.spelling import clean
from sdpg.types import Problem, Score

LIBRARY = "sdpg.tasks.algebra"
WARM = {"answer": r"\frac{\sqrt{2}}{2}", "given": r"\frac{1}{\sqrt{2}}"}  # a first request, which loads what is loaded late


def verify(problem: Problem, text: str, *, ask, **_) -> Score:
    """Compare the last box with the reference; most answers are numbers, and need no judge. Raises Unjudged."""
    found = find_box(text)
    if not found or found == problem.answer.strip():
        return Score(bool(found))
    for whose, one in (("an answer", found), ("a reference answer", problem.answer)):
        if len(one) > MAX_ANSWER:
            raise Unjudged(f"{whose} of more than {MAX_ANSWER} characters")
    answer, given = clean(problem.answer), clean(found)
    verdict = quick(answer, given)
    if verdict is None:
        refuse(answer, given)
        verdict = ask(answer=answer, given=given)
    return Score(verdict)


def given(text: str) -> str | None:
    """Return the content of the last box."""
    return find_box(text)


def judge(answer: str, given: str) -> bool:
    """Compare two contents of boxes. Raises Unjudged if one cannot be read, or equality can be neither shown nor ruled out."""
    return same(clean(answer), clean(given))

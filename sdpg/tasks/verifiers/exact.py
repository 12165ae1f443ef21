"""Its answer is the reference's text, but for case, white space and a final full stop, or a number of the same value.

Numbers are read as people write them, with a unit or a currency sign (`72`, `72.0`, `$72`, `1,000`, `1e3`, `1/2`, `72 dollars`;
see `sdpg.tasks.quantities`), and compared exactly. Expressions (`2*36`) are text.
"""

from __future__ import annotations

from sdpg.tasks.answers import MAX_ANSWER, find_answer, normalise
from sdpg.tasks.quantities import Quantity, read_quantity, same_quantity
from sdpg.tasks.spelling import clean
from sdpg.types import Problem, Score


def verify(problem: Problem, text: str, *, answer_after: str | None = None, **_) -> Score:
    """Compare the answer that the text gives (see `find_answer`)."""
    found = find_answer(text, answer_after)
    if normalise(found) == normalise(problem.answer):
        return Score(True)
    reference, given = _number(problem.answer), _number(found)
    return Score(bool(reference and given and same_quantity(reference, given)))


def _number(text: str) -> Quantity | None:
    return read_quantity(clean(text)) if len(text) <= MAX_ANSWER else None

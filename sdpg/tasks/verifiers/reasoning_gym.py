"""reasoning-gym's own scorer gives its answer full marks."""

from __future__ import annotations

from sdpg.tasks.answers import MAX_ANSWER, find_answer
from sdpg.tasks.judge import Unjudged
from sdpg.types import Problem, Score

LIBRARY = "sdpg.tasks.gym"


def verify(problem: Problem, text: str, *, answer_after: str | None = None, ask) -> Score:
    """Ask the scorer about the answer that the text gives (see `find_answer`)."""
    found = find_answer(text, answer_after)
    if not found:
        return Score(False)
    if len(found) > MAX_ANSWER:
        raise Unjudged(f"an answer of more than {MAX_ANSWER} characters")
    return Score(ask(answer=problem.answer, given=found, source=problem.source))


def judge(answer: str, given: str, source: str) -> bool:
    """Score an answer; the entry is generated again from `source`. Raises ValueError if it is another one now."""
    from sdpg.tasks.gym import regenerate

    dataset, entry = regenerate(source)
    if entry["answer"] != answer:
        raise ValueError(f"reasoning-gym now generates {entry['answer']!r} where the data says {answer!r}; make the data again")
    return dataset.score_answer(given, entry) >= 1.0

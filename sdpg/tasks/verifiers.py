"""Verifiers: (problem, response text) -> Score. Model text is hostile: sizes are limited and nothing of it is run.

| name          | a response is correct if                                                                          |
|---------------|---------------------------------------------------------------------------------------------------|
| chain         | it ends in `#` and the right answer; process accuracy: it is the worked solution, to the letter    |
| reverse       | it is the reference answer, to the letter                                                          |
| exact         | its answer (see `find_answer`) equals the reference after `normalise`                              |
| reasoning-gym | reasoning-gym's scorer gives its answer (see `find_answer`) full marks                             |
| math-verify   | the content of its last \\boxed{} is mathematically equal to the reference (math-verify)            |

A judge that raises or runs out of time means "wrong", and is counted in `Verifier.failures`.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from difflib import get_close_matches

from sdpg.tasks.chain import verify_chain
from sdpg.tasks.judge import JUDGE_SECONDS, Judge, JudgeError
from sdpg.types import Problem, Score

MAX_TEXT = 4000  # characters at the end of a response that are looked at
MAX_ANSWER = 400  # characters of an answer; a longer one is wrong


def find_answer(text: str, marker: str | None) -> str:
    """The answer in a response: the rest of the line after the last `marker` (in any case), else the last line with text.

    White space around it and one final full stop are dropped. Only the last MAX_TEXT characters are looked at.
    """
    text = text[-MAX_TEXT:].strip()
    places = [match.end() for match in re.finditer(re.escape(marker), text, re.IGNORECASE)] if marker else []
    found = text[places[-1] :].strip().partition("\n")[0] if places else text.rpartition("\n")[2]
    return found.strip().removesuffix(".").rstrip()


def normalise(answer: str) -> str:
    """How `exact` compares: case folded, white space collapsed, one final full stop dropped."""
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


def find_box(text: str) -> str | None:
    """The content of the last complete \\boxed{...} in the last MAX_TEXT characters, braces balanced; None without one."""
    text = text[-MAX_TEXT:]
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for i in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : i].strip()
    return None


class Verifier:
    """Calls one rule on (problem, text); counts in `failures` what the rule could not judge."""

    def __init__(self, name: str, rule: Callable[[Problem, str], Score], judge: Judge | None = None):
        self.name, self.rule, self.judge = name, rule, judge
        self.failures: Counter[str] = Counter()  # message -> how often
        self._lock = threading.Lock()

    def __call__(self, problem: Problem, text: str) -> Score:
        """The score of one response's text, without its stop token."""
        try:
            return self.rule(problem, text)
        except JudgeError as error:
            with self._lock:
                self.failures[str(error)[:200]] += 1
            return Score(False)

    def close(self) -> None:
        """End the judging process, if there is one."""
        if self.judge is not None:
            self.judge.close()


def _chain(answer_after: str | None, seconds: float) -> Verifier:
    return Verifier("chain", verify_chain)


def _reverse(answer_after: str | None, seconds: float) -> Verifier:
    return Verifier("reverse", lambda problem, text: Score(text == problem.answer))


def _exact(answer_after: str | None, seconds: float) -> Verifier:
    def rule(problem: Problem, text: str) -> Score:
        found = find_answer(text, answer_after)
        return Score(len(found) <= MAX_ANSWER and normalise(found) == normalise(problem.answer))

    return Verifier("exact", rule)


def _gym(answer_after: str | None, seconds: float) -> Verifier:
    judge = Judge("reasoning-gym", seconds)

    def rule(problem: Problem, text: str) -> Score:
        found = find_answer(text, answer_after)
        if not found or len(found) > MAX_ANSWER:
            return Score(False)
        return Score(judge.ask(answer=problem.answer, given=found, source=problem.source))

    return Verifier("reasoning-gym", rule, judge)


def _math(answer_after: str | None, seconds: float) -> Verifier:
    judge = Judge("math-verify", seconds)

    def rule(problem: Problem, text: str) -> Score:
        found = find_box(text)
        if not found or len(found) > MAX_ANSWER:
            return Score(False)
        if found == problem.answer.strip():
            return Score(True)  # most right answers: no need to ask
        return Score(judge.ask(answer=problem.answer, given=found))

    return Verifier("math-verify", rule, judge)


VERIFIERS = {"chain": _chain, "reverse": _reverse, "exact": _exact, "reasoning-gym": _gym, "math-verify": _math}


def make_verifier(name: str, answer_after: str | None = None, seconds: float = JUDGE_SECONDS) -> Verifier:
    """A verifier by name. answer_after: the template's marker. Raises ValueError with the nearest name."""
    if name not in VERIFIERS:
        near = get_close_matches(name, VERIFIERS, n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"unknown verifier {name!r}{hint}; known: {', '.join(VERIFIERS)}")
    return VERIFIERS[name](answer_after, seconds)

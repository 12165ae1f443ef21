"""Whether the verifier accepts the reference answers themselves: one that it does not accept scores zero for ever.

Each answer is put in the form that the template asks for, and judged; so is at least one other spelling that means the same,
above all the bare number of a reference such as `#### 42` or `42 dollars`. What needs a judging process is judged in part.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sdpg.config.settings import Task as TaskSettings
from sdpg.tasks.cleaning import MOST_ROWS, Row
from sdpg.tasks.prompts import load_template
from sdpg.tasks.task import OWN_VERIFIER
from sdpg.tasks.verifiers import Verifier, make_verifier
from sdpg.types import Problem

JUDGED = 64  # requests to judging processes for a set, where nothing is to be dropped
TO_THE_LETTER = ("chain", "reverse", "reasoning-gym")  # verifiers of generated problems, with rules of their own
_NUMBER = r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
_WORDS = r"(?:\s+(?!(?:and|cos|exp|log|mod|sin|sqrt|tan)\b)[A-Za-z]{3,}){0,3}"
_AROUND = re.compile(rf"[#=:>*\s]*(?:\\?[$€£]\s?)?({_NUMBER})(?:\s*[€£]|{_WORDS})\s*\.?", re.DOTALL)
_SAID = re.compile(r"(?i)(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:final\s+)?answer\s*(?:is\b\s*:?|[:=])\s*(.+?)\.?")
_BOXED = re.compile(r"\$?\\boxed\s?\{([^{}]*)\}\$?\.?")
_TAGGED = re.compile(r"(?i)<answer>(.*)</answer>", re.DOTALL)
_CONTROL = re.compile(r"(?:\s*(?:</s>|<\|[^<|>]+\|>))+$")


def bare_number(answer: str) -> str | None:
    """Return the number that an answer means, as most would write it; None for anything but a number with something around it.

    42 for `42.`, `#### 42`, `$42`, `42 dollars`, `42.0`; 1000 for `1,000` and `1e3`.
    """
    answer = answer.rpartition("####")[2].strip() if "####" in answer else answer
    match = _AROUND.fullmatch(answer)
    if not match or not re.search(r"^[+-]?\.?[0-9]", match[1]):
        return None
    value = Decimal(match[1].replace(",", ""))
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def said(answer: str) -> str | None:
    """Return what an answer gives inside a sentence, a box, a tag or before a control token; None where it is itself.

    42 for `The answer is 42.`, also as the last line of several, `\\boxed{42}`, `<answer>42</answer>` and `42</s>`.
    """
    text = _CONTROL.sub("", answer)
    if tagged := _TAGGED.fullmatch(text):
        text = tagged[1].strip()
    last = text.strip().rpartition("\n")[2]
    if found := _SAID.fullmatch(last):
        text = found[1]
    if boxed := _BOXED.fullmatch(text.strip()):
        text = boxed[1].strip()
    return text if text and text != answer else None


def other_spellings(verifier: str, answer: str) -> list[str]:
    """Return spellings of an answer that the verifier should take for it."""
    if verifier in TO_THE_LETTER:
        return []
    if inner := said(answer):
        return [bare_number(inner) or inner]
    number = bare_number(answer)
    found = [number] if number not in (None, answer) else []
    if verifier == "exact":
        found.append(f" {answer}. ")
    elif verifier == "math-verify" and number is None:
        found.append(rf"\displaystyle {answer}")
    elif verifier == "math-verify" and number == answer and "." not in number:
        found.append(f"{answer}.0")
        found += [f"{int(answer):,}"] if len(answer.lstrip("-")) > 3 else []
    return found


class _Asked(Exception):
    """The verifier needs a judging process."""


class Gold:
    """Judges reference answers under a config's block `task`."""

    def __init__(self, task: TaskSettings):
        self.template = load_template(task.template)
        self.name, self.verifier = task.verifier, make_verifier(task.verifier, self.template.answer_after)
        self._own = {source: make_verifier(name) for source, name in OWN_VERIFIER.items()}

    def forms(self, answer: str) -> list[str]:
        """Return responses that give an answer: as the template asks for it, and bare."""
        mark, boxed = self.template.answer_after, f"\\boxed{{{answer}}}"
        found = [f"{mark}{answer}", f"{mark} {answer}"] if mark else []
        if "\\boxed" in self.template.student or not mark:
            found += [f"{mark} {boxed}"] * bool(mark) + [boxed]
        return [*found, answer]

    def accepts(self, problem: Problem, answer: str) -> bool:
        """Return whether the verifier takes an answer for the problem's own."""
        return any(self._called(self._verifier(problem), problem, text) for text in self.forms(answer))

    def check(self, rows: Iterable[Row], *, every: bool) -> tuple[dict[int, str], dict[str, Any]]:
        """Return {row number: the spelling that was rejected}, and the counts.

        every: judge all that needs a judging process, not JUDGED at most. Raises ValueError for a problem that is none of the
        verifier's.
        """
        rejected: dict[int, str] = {}
        undecided: list[tuple[Row, str]] = []
        spellings = 0
        rows = list(rows)
        for row in rows:
            name = self._verifier(row.problem).name
            for spelling in [row.problem.answer, *other_spellings(name, row.problem.answer)]:
                spellings += 1
                verdict = self._without_judge(row.problem, spelling)
                if verdict is None:
                    undecided.append((row, spelling))
                elif not verdict:
                    rejected[row.number] = spelling
                    break
        chosen = undecided if every else random.Random(0).sample(undecided, min(JUDGED, len(undecided)))
        verdicts = self.verifier.map(lambda item: self.accepts(item[0].problem, item[1]), chosen)
        for (row, spelling), right in zip(chosen, verdicts, strict=True):
            if not right:
                rejected.setdefault(row.number, spelling)
        listed = [row.facts(rejected=rejected[row.number][:80]) for row in rows if row.number in rejected]
        return rejected, {
            "answers": len(rows),
            "spellings": spellings,
            "needed_a_judge": len(undecided),
            "judged": len(chosen),
            "rejected": len(rejected),
            "rejected_rows": listed[:MOST_ROWS],
        }

    def close(self) -> None:
        """End the judging processes."""
        self.verifier.close()

    def _verifier(self, problem: Problem) -> Verifier:
        return self._own.get(problem.source, self.verifier)

    def _without_judge(self, problem: Problem, answer: str) -> bool | None:
        """Return the verdict as far as no judging process is needed; else None."""
        verifier, undecided = self._verifier(problem), False
        for text in self.forms(answer):
            try:
                if verifier.verify(problem, text, answer_after=verifier.answer_after, ask=_ask).correct:
                    return True
            except _Asked:
                undecided = True
            except ValueError:  # the answer's, which the call below counts, or the problem's
                if self._called(verifier, problem, text):
                    return True
        return None if undecided else False

    def _called(self, verifier: Verifier, problem: Problem, text: str) -> bool:
        try:
            return verifier(problem, text).correct
        except ValueError as error:
            raise ValueError(f"problem {problem.id!r} is none for the verifier {verifier.name!r}: {error}") from error


def _ask(**_: str) -> bool:
    raise _Asked

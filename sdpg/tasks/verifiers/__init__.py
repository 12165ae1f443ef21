"""Verifiers: how a response is judged, a file for each.

The file's name is the verifier's (`math_verify.py`: math-verify). Its docstring says what counts as correct, and it has

    verify(problem, text, *, answer_after, ask) -> Score      answer_after: the template's marker of the answer, or None

Where judging takes a library that can hang or crash on hostile text, the file also has `judge(**fields) -> bool`, which runs in
child processes with limits of time and memory, reached by `ask(**fields)`, and `LIBRARY`, the module that these import before
they answer (optionally `WARM`, the fields of a first request). A judge that raises or runs out of time means "wrong", and is
counted in `Verifier.failures`; so is a `verify` that raises `Unjudged`. Equal requests are asked once. A file whose responses
give their answer elsewhere than `find_answer` looks also has `given(text) -> str | None`: the answer, be it right or wrong.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from types import ModuleType

from sdpg.tasks.answers import find_answer
from sdpg.tasks.judge import JUDGE_SECONDS, Item, JudgeError, JudgeLost, Judges, Result, Unjudged
from sdpg.types import Problem, Score

MOST_KNOWN = 4096  # verdicts kept


def names() -> tuple[str, ...]:
    """Return the verifiers' names."""
    return tuple(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def verifier_file(name: str) -> str:
    """Return a verifier's file, relative to the project."""
    return f"{__name__.replace('.', '/')}/{name.replace('-', '_')}.py"


def verifier_module(name: str) -> ModuleType:
    """Import a verifier's file."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


class Verifier:
    """Calls one file's `verify` on (problem, text); counts in `failures` what could not be judged."""

    def __init__(self, name: str, answer_after: str | None = None, seconds: float = JUDGE_SECONDS):
        """Import the file. seconds: the limit of one request to a judging process, processor time."""
        module = verifier_module(name)
        self.name, self.answer_after, self.verify = name, answer_after, module.verify
        self.judges = Judges(name, seconds) if hasattr(module, "judge") else None
        self.failures: Counter[str] = Counter()  # message -> how often
        self._known: dict[tuple, bool | str] = {}  # request -> verdict, or why there is none; the oldest go first
        self._lock = threading.Lock()

    def __call__(self, problem: Problem, text: str) -> Score:
        """Return the score of one response's text, without its stop token."""
        try:
            return self.verify(problem, text, answer_after=self.answer_after, ask=self.judges and self._ask)
        except (JudgeError, Unjudged) as error:
            reason = str(error) if isinstance(error, JudgeError) else f"{self.name}: {error}"
            with self._lock:
                self.failures[reason[:200]] += 1
            return Score(False, unjudged=reason[:200])

    def given(self, text: str) -> str | None:
        """Return the answer that a response gives, right or wrong; None if it gives none."""
        if own := getattr(verifier_module(self.name), "given", None):
            return own(text) or None
        if self.answer_after and self.answer_after.casefold() not in text.casefold():
            return None
        return find_answer(text, self.answer_after) or None

    def _ask(self, **fields: str) -> bool:
        """Return the verdict of a judging process, asked once for equal requests: many responses have the same answer."""
        key = tuple(sorted(fields.items()))
        with self._lock:
            known = self._known.get(key)
        if known is None:
            try:
                known = self.judges.ask(**fields)
            except JudgeLost:
                raise
            except JudgeError as error:
                known = str(error)
            with self._lock:
                if len(self._known) >= MOST_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[key] = known
        if isinstance(known, str):
            raise JudgeError(known)
        return known

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return function(item) of all items, in their order, for a function that calls this verifier: at once as far as there
        may be judging processes, and one after the other where there are none.
        """
        return [function(item) for item in items] if self.judges is None else self.judges.map(function, items)

    def close(self) -> None:
        """End the judging processes, if there are any."""
        if self.judges is not None:
            self.judges.close()


def make_verifier(name: str, answer_after: str | None = None, seconds: float = JUDGE_SECONDS) -> Verifier:
    """Return a verifier by name. Raises ValueError with the nearest name."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"unknown verifier {name!r}{hint}; known: {', '.join(names())}")
    return Verifier(name, answer_after, seconds)

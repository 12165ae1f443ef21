"""What makes a response a worked solution: it ended by itself, is text of a sensible size, and its answer is accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from sdpg.config.settings import Config
from sdpg.tasks.cleaning import Row
from sdpg.tasks.lengths import Lengths, Room
from sdpg.tasks.prompts import load_template
from sdpg.tasks.task import OWN_VERIFIER
from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem

LONGEST = 100_000  # characters of a solution
THINKING_ENDS = "</think>"  # what stands before it is a draft


class Verdict(NamedTuple):
    """The solution, or why the response is none."""

    solution: str = ""
    why: str = ""


class Accepting:
    """Judges responses under a config. room: what a run has room for, so that the teacher's prompt with the solution fits."""

    def __init__(self, config: Config, room: Room | None, *, verify: bool = True):
        self.verify = verify
        self.verifier = make_verifier(config.task.verifier, load_template(config.task.template).answer_after)
        self._own = {source: make_verifier(name) for source, name in OWN_VERIFIER.items()}
        self.lengths = Lengths(config.task, room) if room else None

    def __call__(self, problem: Problem, text: str, finish: str = "stop") -> Verdict:
        """Return the verdict on one response. finish: "stop", or anything else for one that was cut."""
        solution = text.rpartition(THINKING_ENDS)[2].strip()
        if finish != "stop":
            return Verdict(why="cut at max_tokens" if finish == "length" else "ended by the endpoint")
        if not solution:
            return Verdict(why="empty")
        if len(solution) > LONGEST:
            return Verdict(why=f"longer than {LONGEST} characters")
        if any(char == "\0" or 0xD800 <= ord(char) < 0xE000 for char in solution):
            return Verdict(why="no valid text")
        if self.verify:
            score = self._own.get(problem.source, self.verifier)(problem, solution)
            if not score.correct:
                return Verdict(why="not judged" if score.unjudged else "wrong answer")
        if self.lengths:
            row = Row(1, replace(problem, solution=solution))
            if self.lengths.check([row], teacher=True)[0]:
                return Verdict(why="too long for the teacher's prompt")
        return Verdict(solution=solution)

    def close(self) -> None:
        """End the judging processes."""
        self.verifier.close()

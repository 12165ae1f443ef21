"""How long the prompts of a set are in the model's tokens, and which of them are too long for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sdpg.config.settings import Task as TaskSettings
from sdpg.tasks.cleaning import MOST_ROWS, Row
from sdpg.tasks.task import make_task


class Room(NamedTuple):
    """What a run has room for, in tokens, and where the model's tokenizer comes from.

    load: returns the tokenizer and the model's context length, None where it names none. teacher: whether a teacher reads the
    problems' own context.
    """

    load: Callable[[], tuple[Any, int | None]]
    prompt: int
    response: int
    teacher: bool


class Lengths:
    """Measures prompts. The tokenizer is loaded with the first set."""

    def __init__(self, task: TaskSettings, room: Room):
        self.settings, self.room = task, room
        self.task = None

    def check(self, rows: Iterable[Row], *, teacher: bool) -> tuple[dict[int, str], dict[str, Any]]:
        """Return {row number: what is too long}, and the counts. teacher: the set is trained on, so its hints count too.

        Raises ValueError for a prompt that the tokenizer has no tokens for.
        """
        if self.task is None:
            tokenizer, context = self.room.load()
            self.task = make_task(self.settings, tokenizer)
            room = self.room.prompt if context is None else min(self.room.prompt, context - self.room.response)
            self.limit, self.named = room, "train.max_prompt_tokens"
            if room < self.room.prompt:
                self.named = f"the model's context of {context} less train.max_response_tokens={self.room.response}"
        longest = {"student": 0, "teacher": 0} if teacher else {"student": 0}
        found: dict[int, str] = {}
        rows = list(rows)
        for row in rows:
            lengths = {"student": len(self.task.student_prompt(row.problem))}
            if teacher:
                lengths["teacher"] = len(self.task.teacher_prompt(row.problem))
            for who, length in lengths.items():
                longest[who] = max(longest[who], length)
                if length > self.limit and (who == "student" or self.room.teacher):
                    found[row.number] = f"{length} tokens ({who})"
        listed = [row.facts(prompt=found[row.number]) for row in rows if row.number in found]
        limit = {"limit_tokens": self.limit, "longest_prompt": longest}
        return found, {**limit, "overlong": len(found), "overlong_rows": listed[:MOST_ROWS]}

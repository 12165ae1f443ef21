"""What a teacher reads of the other responses to a prompt: a right one (SDPO, RLCSD), and wrong ones in contrast (RLCSD).

Never the response itself. Which ones is derived from (seed, step, problem), so a resumed run sees the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from sdpg.rollout.engine import derive_seed
from sdpg.types import Problem, Rollout, Score

OF_WRONG = ("groups_without_wrong", "wrong_no_answer", "wrong_no_room")  # what is counted beside "no_room"


class Hints:
    """Hints from the responses of one group. limit: tokens that a teacher's prompt may have. counts: of what is left out."""

    def __init__(
        self,
        task,
        problem: Problem,
        rollouts: Sequence[Rollout],
        scores: Sequence[Score],
        *,
        limit: int,
        seed: tuple[int, int],
        counts: Counter,
    ):
        """Hold what it takes to make them. seed: of the run, and the step."""
        self.task, self.problem, self.rollouts, self.scores = task, problem, rollouts, scores
        self.limit, self.seed, self.counts = limit, seed, counts
        self.right = [j for j, score in enumerate(scores) if score.correct]

    def sibling(self, j: int) -> list[int] | None:
        """Return the prompt with another right response for response j; None if there is none, or if it is too long."""
        others = [i for i in self.right if i != j]
        if not others:
            return None
        chosen = others[derive_seed("sibling", *self.seed, self.problem.id, j) % len(others)]
        prompt = self.task.sibling_prompt(self.problem, self.rollouts[chosen].ids)
        if len(prompt) > self.limit:
            self.counts["no_room"] += 1
            return None
        return prompt

    def wrong(self, j: int, most: int) -> tuple[list[int], ...]:
        """Return the prompts with wrong responses for response j: the first that are not itself, so that a group has few."""
        return tuple(prompt for i, prompt in self._wrong if i != j)[:most]

    @cached_property
    def _wrong(self) -> list[tuple[int, list[int]]]:
        """All wrong responses that can be a hint, in a random order, with their prompts."""
        wrong = [j for j, score in enumerate(self.scores) if not score.correct and not score.unjudged]
        self.counts["groups_without_wrong"] += not wrong
        found = []
        for i in sorted(wrong, key=lambda i: derive_seed("wrong", *self.seed, self.problem.id, i)):
            prompt = self.task.wrong_prompt(self.problem, self.rollouts[i].ids)
            if prompt is None:
                self.counts["wrong_no_answer"] += 1
            elif len(prompt) > self.limit:
                self.counts["wrong_no_room"] += 1
            else:
                found.append((i, prompt))
        return found

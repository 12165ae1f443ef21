"""Tries until one is accepted: what the journal knows is not asked again, the rest is estimated first and counted after."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sdpg.config.solutions import Endpoint, Local
from sdpg.progress import Interrupted, Progress
from sdpg.solutions.accepting import Accepting
from sdpg.solutions.asking import Answer, Ask, Refused, Stop, Writer, tokens_in
from sdpg.solutions.journal import Journal
from sdpg.tasks.solutions import solution_key
from sdpg.types import Problem


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked, and its cost: if every try is needed and as long as may be, or as the settings expect it."""

    problems: int
    tries: float
    prompt_tokens: float
    completion_tokens: float
    cost: float
    spent: float

    def text(self, max_cost: float | None) -> str:
        """Return one line."""
        if not self.problems:
            return f"nothing is left to ask; spent so far {self.spent:.4g}"
        line = (
            f"{self.problems} problems, {self.tries:.4g} tries, about {self.prompt_tokens:.3g} tokens in and "
            f"{self.completion_tokens:.3g} out: "
        )
        if max_cost is None:
            return line + "on this machine, without a price"
        return line + f"cost {self.cost:.4g}, beside {self.spent:.4g} spent so far (max_cost {max_cost:g})"


@dataclass
class _State:
    """One problem's tries: which is the next."""

    problem: Problem
    prompt: str
    number: int = 1


@dataclass
class Writing:
    """Brings writer, journal and judge together.

    writer: made by a function, since what it needs (a key, an engine) is looked for only when there is something to ask.
    """

    settings: Local | Endpoint
    identity: dict[str, Any]
    prompt: Callable[[Problem], str]
    accept: Accepting
    journal: Journal
    facts: dict[str, Any]
    rejected: Counter = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    responses: int = 0

    def begin(self, problems: list[Problem]) -> list[_State]:
        """Judge what the journal has, and return the problems that are not done."""
        states = [_State(problem, self.prompt(problem)) for problem in problems]
        return [state for state in states if not self._done(state)]

    def estimate(self, states: list[_State]) -> Estimate:
        """Return what is still to be asked, and its cost, as the settings expect it."""
        s, tries, into, out = self.settings, 0.0, 0.0, 0.0
        mean = getattr(s, "expected_tokens", None) or s.max_tokens
        for state in states:
            used = state.number - 1
            left = min(s.tries - used, max(1.0, (getattr(s, "expected_tries", None) or s.tries) - used))
            tries, into, out = tries + left, into + left * tokens_in(state.prompt), out + left * mean
        cost = s.cost(into, out) if isinstance(s, Endpoint) else 0.0
        return Estimate(len(states), tries, into, out, cost, self.journal.spent)

    def check(self, estimate: Estimate) -> None:
        """Raise ValueError for an estimate beyond max_cost."""
        s = self.settings
        if isinstance(s, Endpoint) and estimate.problems and estimate.cost + estimate.spent > s.max_cost + 1e-9:
            raise ValueError(
                f"data.solutions.endpoint.max_cost: got {s.max_cost:g}, but {estimate.text(s.max_cost)}; nothing was asked: "
                "raise it, lower tries or max_tokens, or say what is to be expected with expected_tokens and expected_tries"
            )

    def run(self, states: list[_State], make: Callable[[], Writer], stop: Stop, title: str) -> None:
        """Ask until every problem has an accepted solution or no try left. Raises Interrupted after a wish to stop."""
        if not states:
            return
        writer = make()
        try:
            with Progress(len(states), title, "problem") as progress:
                while states and not stop.asked:
                    by_request = {self._request(state): state for state in states}
                    asks = [Ask(s.problem, s.number, request, s.prompt) for request, s in by_request.items()]
                    for result in writer.ask(asks, stop):
                        self._record(writer, result)
                        if self._done(by_request[result.ask.request]):
                            del by_request[result.ask.request]
                            progress.update(1, self._facts())
                    states = list(by_request.values())
        finally:
            writer.close()
        if stop.asked and states:
            raise Interrupted(
                f"{title}: stopped, problems not done: {len(states)}; every answer is kept, and the same command goes on"
            )

    def counts(self, problems: int) -> dict[str, Any]:
        """Return what the report says. tokens and cost: of all answers that the journal has, other settings' too."""
        answers = list(self.journal.answers.values())
        tokens = {kind: sum(a.get(kind, 0) for a in answers) for kind in ("prompt_tokens", "completion_tokens")}
        return {
            **{"problems": problems, "accepted": len(self.rows), "without": problems - len(self.rows)},
            **{"responses": self.responses, "rejected": dict(self.rejected), "refused": dict(self.refused)},
            **{"accepted_by_try": {str(n): c for n, c in sorted(Counter(row["try"] for row in self.rows).items())}},
            **{"tokens": tokens, "cost": round(self.journal.spent, 6), "without_answer": self.journal.unanswered},
            "token_counts_guessed": sum(bool(a.get("guessed")) for a in answers),
        }

    def _facts(self) -> str:
        seen = max(1, self.responses)
        facts = f"accepted {len(self.rows)}, {len(self.rows) / seen:.0%} of {self.responses} responses"
        return facts + (f", cost {self.journal.spent:.4g}" if isinstance(self.settings, Endpoint) else "")

    def _request(self, state: _State) -> str:
        """Return what the journal knows a try by: its writer, settings, prompt and number."""
        text = json.dumps([self.identity, state.prompt, state.number], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]

    def _done(self, state: _State) -> bool:
        """Take the tries in the journal into account -> whether the problem is done: accepted, refused, or tried enough."""
        while state.number <= self.settings.tries:
            request = self._request(state)
            if request in self.journal.refused:
                self.refused[self.journal.refused[request]] += 1
                return True
            if (answer := self.journal.answers.get(request)) is None:
                return False
            self.responses += 1
            verdict = self.accept(state.problem, answer["text"], answer.get("finish", "stop"))
            if verdict.solution:
                self.rows.append(self._row(state, answer, verdict.solution))
                return True
            self.rejected[verdict.why] += 1
            state.number += 1
        return True

    def _row(self, state: _State, answer: dict[str, Any], solution: str) -> dict[str, Any]:
        known = ("served", "host", "at", "prompt_tokens", "completion_tokens", "cost", "prompt")
        head = {"key": solution_key(state.problem), "id": state.problem.id, "solution": solution, "try": state.number}
        return {
            **head,
            **self.facts,
            **{key: answer.get(key) for key in known},
            "temperature": float(self.settings.temperature),
        }

    def _record(self, writer: Writer, result: Answer | Refused) -> None:
        """Write an answer to the disk before anything else is done with it."""
        ask = result.ask
        facts = {"key": solution_key(ask.problem), "id": ask.problem.id, "try": ask.number}
        if isinstance(result, Refused):
            self.journal.add("refused", ask.request, **facts, why=result.why)
            return
        self.journal.add(
            "answered",
            ask.request,
            **facts,
            **{"text": result.text, "finish": result.finish, "served": result.served, "guessed": result.guessed},
            **{"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens},
            cost=writer.cost(result.prompt_tokens, result.completion_tokens),
            seconds=result.seconds,
            host=writer.host,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            prompt=hashlib.sha256(ask.prompt.encode("utf-8", "replace")).hexdigest(),
        )

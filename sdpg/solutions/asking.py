"""What goes to a writer, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sdpg.types import Problem

CHAT_FORMAT = 256  # tokens


class Stop:
    """Whether the work was asked to stop: nothing new is begun then, and what is on its way is waited for."""

    asked = False


@dataclass(frozen=True)
class Ask:
    """One try at one problem. request: what the journal knows it by; prompt: what is asked, as text."""

    problem: Problem
    number: int
    request: str
    prompt: str


@dataclass(frozen=True)
class Answer:
    """A response. served: the model's name by its own account; guessed: its tokens were guessed from the text."""

    ask: Ask
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    served: str
    guessed: bool = False


@dataclass(frozen=True)
class Refused:
    """This prompt gets no response, however often it is asked."""

    ask: Ask
    why: str


class Writer(Protocol):
    """Writes responses. host: where from, for the record."""

    host: str

    def ask(self, asks: Iterable[Ask], stop: Stop) -> Iterator[Answer | Refused]:
        """Yield what comes back, in any order, as soon as it does; less than all of it after a wish to stop."""

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what so many tokens cost."""

    def close(self) -> None:
        """Free what it holds."""


def tokens_in(text: str) -> int:
    """Return a cautious guess at a text's tokens: one for two bytes."""
    return -(-len(text.encode("utf-8", "replace")) // 2)


def most_tokens(prompt: str) -> int:
    """Return the most tokens that a prompt can have: one for each byte, and a chat format around it."""
    return len(prompt.encode("utf-8", "replace")) + CHAT_FORMAT

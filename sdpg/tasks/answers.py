"""Where the answer lies in a response. Model text is hostile: sizes are limited and nothing of it is run."""

from __future__ import annotations

import re

MAX_TEXT = 4000  # characters at the end of a response that are looked at
MAX_ANSWER = 400  # characters of an answer; a longer one is wrong


def find_answer(text: str, marker: str | None) -> str:
    """Return the answer in a response: the rest of the line after the last `marker` (in any case), else the last line with
    text.

    White space around it and one final full stop are dropped. Only the last MAX_TEXT characters are looked at.
    """
    text = text[-MAX_TEXT:].strip()
    places = [match.end() for match in re.finditer(re.escape(marker), text, re.IGNORECASE)] if marker else []
    found = text[places[-1] :].strip().partition("\n")[0] if places else text.rpartition("\n")[2]
    return found.strip().removesuffix(".").rstrip()


def normalise(answer: str) -> str:
    """Return the form that `exact` compares: case folded, white space collapsed, one final full stop dropped."""
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


def find_box(text: str) -> str | None:
    r"""Return the content of the last \boxed{...} (also \fbox, \framebox) in the last MAX_TEXT characters; None without one, or
    where that one is not closed. Escaped braces do not count.
    """
    text = text[-MAX_TEXT:]
    starts = [match.end() for match in re.finditer(r"\\(?:boxed|fbox|framebox)\s*\{", text)]
    end = closing(text, starts[-1] - 1) if starts else -1
    return text[starts[-1] : end].strip() if end >= 0 else None


def closing(text: str, start: int) -> int:
    """Return the place of the bracket `}` that closes the `{` at `start`, or -1. Escaped braces do not count."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] in "{}":
            depth += 1 if text[i] == "{" else -1
            if not depth:
                return i
        i += 1
    return -1

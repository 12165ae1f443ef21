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
    """Return the content of the last complete \\boxed{...} in the last MAX_TEXT characters, braces balanced; None without
    one.
    """
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

"""From the layouts of data sets to question, answer and worked solution: nested columns, chats, answers in solutions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sdpg.tasks.rows import NOT_NUMBERS, Row, parse_json

MISSING = object()
SHOWN = 60  # characters of a value in an error
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # GSM8K's marks: 48/2 = <<48/2=24>>24


def lookup(row: Row, column: str) -> Any:
    """Return the value of a column, or MISSING. `a.b` is column `a.b`, or entry b of column a, which may be JSON text."""
    if column in row:
        return row[column]
    node: Any = row
    for part in column.split("."):
        if isinstance(node, str):
            node = _json_text(node)
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None if node is None else MISSING
    return node


def _json_text(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def as_text(value: Any) -> str:
    """Return text or a number as text without white space around it; "" for None, NaN and infinity, and for the text "nan".

    72.0 is 72, as a table of numbers may make one of the other; no number is written with an exponent. Raises ValueError.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return "" if value.strip() in NOT_NUMBERS else _encodable(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        kind = {bool: f"{value} (true or false)", dict: "mapping", list: "list"}.get(type(value), type(value).__name__)
        inner = ", ".join(map(repr, list(value)[:8])) if isinstance(value, Mapping) else ""
        hint = f" of {inner}; name an entry of it as column.entry" if inner else ""
        raise ValueError(f"must be text or a number, got {kind}{hint}")
    if not math.isfinite(value):
        return ""
    exact = value if isinstance(value, int) else Decimal(repr(value)) if isinstance(value, float) else value
    return str(int(exact)) if exact == int(exact) else format(exact.normalize(), "f")


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has half of a surrogate pair, {text[error.start]!r} at place {error.start + 1}") from None
    return text


def user_turn(value: Any, *, drop_system: bool) -> Any:
    """Return the user's text of a chat, a list of {role, content} or JSON text of one; any other value as it is.

    Raises ValueError unless there is exactly one turn, the user's; a system turn may be dropped.
    """
    turns = _json_text(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) and "role" in turn for turn in turns):
        return value
    roles = [turn["role"] for turn in turns]
    if "system" in roles and not drop_system:
        raise ValueError(
            "has a system turn, which the project's own prompts have no place for; `system_turn: drop` leaves it out"
        )
    left = [turn for turn in turns if turn["role"] != "system"]
    if [turn["role"] for turn in left] != ["user"]:
        raise ValueError(f"must be a chat with one turn, the user's; got the turns {', '.join(map(str, roles))}")
    content = left[0].get("content")
    if isinstance(content, list):  # parts
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise ValueError("must be text, got a turn with parts of other kinds")
        content = "".join(str(part.get("text", "")) for part in content)
    return content


def without(text: str, prefix: str | None, suffix: str | None) -> str:
    """Return a question without the instruction around it. Raises ValueError if it does not stand there."""
    if prefix and not text.startswith(prefix.strip()):
        raise ValueError(f"does not begin with `prefix`, {_cut(prefix)!r}: it begins {text[:SHOWN]!r}")
    text = text.removeprefix((prefix or "").strip())
    if suffix and not text.endswith(suffix.strip()):
        raise ValueError(f"does not end with `suffix`, {_cut(suffix)!r}: it ends {text[-SHOWN:]!r}")
    return text.removesuffix((suffix or "").strip()).strip()


def split_answer(text: str, mark: str) -> tuple[str, str]:
    """Return (answer, worked solution): what stands after the last mark, and before it, without calculator marks."""
    before, found, after = text.rpartition(mark)
    if not found:
        raise ValueError(f"has no {mark!r} (answer_after) in it: it ends {text[-SHOWN:]!r}")
    return after.strip(), without_marks(before).strip()


def without_marks(text: str) -> str:
    """Return a worked solution without calculator marks."""
    return _CALCULATOR.sub("", text)


def _cut(text: str) -> str:
    return text.strip() if len(text) <= SHOWN else f"{text.strip()[:SHOWN]}..."

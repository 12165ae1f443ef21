"""Every answer as it came, one JSON object a line, on the disk before the next step: a killed run asks nothing twice.

A line has `event` and `request`, which stands for the writer, its settings, the prompt and the number of the try:

    asked     it is about to be sent; `ceiling`: the most that it can cost
    answered  `text`, `finish`, tokens, `cost`, and where it comes from
    failed    the endpoint refused to work on it; costs nothing, and may be sent again
    lost      no answer came; it may have been billed, and counts with its ceiling, as does one that was asked before a kill
    refused   the endpoint will not answer this prompt; `why`
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sdpg.io import make_folder, naming

EVENTS = ("asked", "answered", "failed", "lost", "refused")


class Journal:
    """Read when it is made, and added to. Attributes: path; answers, {request: its line}; refused, {request: why}; spent, what
    all answers cost, and may have cost where none came; unanswered, how many those are; half_written, of the last line.

    Raises ValueError for a line that is broken. The last one, of which a killed process wrote the half, is taken off.
    """

    def __init__(self, path: Path):
        self.path = path
        self.answers: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        self.spent, self.unanswered, self.half_written = 0.0, 0, False
        self.open: dict[str, float] = {}
        make_folder(path.parent)
        with naming(path), path.open("ab+") as file:
            file.seek(0)
            lines = file.read().split(b"\n")
            if lines[-1]:
                self.half_written = True
                file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        for number, line in enumerate(lines[:-1], start=1):
            self._take(self._parsed(number, line))
        for request in list(self.open):
            self._lost(request)
        self.file = path.open("ab", buffering=0)

    @property
    def committed(self) -> float:
        """What is spent, with the most that requests on their way can cost."""
        return self.spent + sum(self.open.values())

    def add(self, event: str, request: str, **facts: Any) -> dict[str, Any]:
        """Write a line to the disk, and count it. Returns the line."""
        line = {"event": event, "request": request, **facts}
        with naming(self.path):
            self.file.write(json.dumps(line, ensure_ascii=True, allow_nan=False).encode() + b"\n")
            os.fsync(self.file.fileno())
        self._take(line)
        return line

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            value = json.loads(line)
            if value["event"] not in EVENTS or not isinstance(value["request"], str):
                raise ValueError("unknown event")
            amount = {"asked": "ceiling", "answered": "cost"}.get(value["event"])
            if amount and not (isinstance(value[amount], int | float) and value[amount] >= 0):
                raise ValueError(f"no {amount}")
            if value["event"] == "answered" and not isinstance(value["text"], str):
                raise ValueError("no text")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}, line {number} is no line of this journal ({' '.join(str(error).split())[:80]}); take that line "
                "out, and its try is asked again"
            ) from None
        return value

    def _take(self, line: dict[str, Any]) -> None:
        request = line["request"]
        match line["event"]:
            case "asked":
                if request in self.open:  # of a process that was killed
                    self._lost(request)
                self.open[request] = line["ceiling"]
            case "answered":
                self.open.pop(request, None)
                self.answers[request] = line
                self.spent += line["cost"]
            case "failed":
                self.open.pop(request, None)
            case "lost":
                self._lost(request)
            case "refused":
                self.open.pop(request, None)
                self.refused[request] = str(line.get("why", ""))

    def _lost(self, request: str) -> None:
        self.unanswered += 1
        self.spent += self.open.pop(request, 0.0)

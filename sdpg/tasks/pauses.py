"""The chain task with a free length: after each value a response may pause, for as many marks as it likes.

    question  6-2*9?        direct  6-2=4*9=6#6        with pauses  6-2=4??*9=6?#6

A pause says nothing and costs nothing but tokens. Whether a response pauses is free, so lengths and entropy can move without
accuracy; the hinted teacher has a taste of its own (`model.warm_start.pauses`). Questions, answers, solutions and hints are
those of `sdpg.tasks.chain`; the solution is the direct way.
"""

from __future__ import annotations

import re

from sdpg.tasks.chain import MAX_RESPONSE, verify_chain
from sdpg.types import Problem, Score

MARK = "?"
LONGEST = 4  # marks of a pause in a demonstration; a response may write more
_PAUSE = re.compile(r"(?<==[0-9])\?+")


def without_pauses(text: str) -> str:
    """Return the text without the marks that follow a value."""
    return _PAUSE.sub("", text)


def verify_pauses(problem: Problem, text: str) -> Score:
    """Judge a response. correct: `text` ends in `#` and the answer. process: 1.0 only if it is the worked solution, with pauses
    of any length. A text without its pauses is bounded as a chain's is.
    """
    if len(text) > 4 * MAX_RESPONSE:
        return Score(False, 0.0)
    return verify_chain(problem, without_pauses(text))

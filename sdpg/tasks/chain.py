"""The chain task: + - * in Z_10, from left to right, one token per character; and `reverse`, a second, unrelated skill.

A chain with three operations, its worked solution (= the response asked for) and its answer:

    question  6-2*9+5?        solution  6-2=4*9=6+5=1#1        answer  1

Every running value is the value before it, combined with the next digit, modulo 10. A *fact* is one such step (a, op, b).
Reversal: question `<719?`, solution and answer `917`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from sdpg.types import Problem, Score

MODULUS = 10
OPERATORS = "+-*"
DIGITS = "0123456789"
ANSWER_MARK = "#"
MAX_OPERATIONS = 64
MAX_RESPONSE = 4 * MAX_OPERATIONS + 16  # characters; a longer text is not a chain, whatever it says


def apply(a: int, op: str, b: int) -> int:
    """Return one step in Z_10; op is one of + - *."""
    if op == "+":
        return (a + b) % MODULUS
    if op == "-":
        return (a - b) % MODULUS
    return (a * b) % MODULUS


def parse_question(question: str) -> tuple[int, list[tuple[str, int]]]:
    """Return `6-2*9?` -> (6, [("-", 2), ("*", 9)]). Raises ValueError for anything that is not a chain question."""
    body = question.strip()
    steps = body[1:-1]
    right = (
        3 <= len(body) <= 2 * MAX_OPERATIONS + 2
        and body[-1] == "?"
        and body[0] in DIGITS
        and len(steps) % 2 == 0
        and all(op in OPERATORS for op in steps[::2])
        and all(b in DIGITS for b in steps[1::2])
    )
    if not right:
        raise ValueError(f"not a chain question: got {question[:80]!r}, expected something like '6-2*9?'")
    return int(body[0]), [(op, int(b)) for op, b in zip(steps[::2], steps[1::2], strict=True)]


def work(question: str) -> tuple[str, str]:
    """Return the worked solution and the answer of a chain question, both as text."""
    value, steps = parse_question(question)
    text = str(value)
    for op, b in steps:
        value = apply(value, op, b)
        text += f"{op}{b}={value}"
    return f"{text}{ANSWER_MARK}{value}", str(value)


def draw_question(rng: random.Random, operations: int) -> str:
    """Return a random chain: first digit 0-9, every later one 1-9 (a step with 0 would give its value away)."""
    body = str(rng.randrange(MODULUS))
    for _ in range(operations):
        body += f"{rng.choice(OPERATORS)}{rng.randrange(1, MODULUS)}"
    return body + "?"


def chain_problems(
    operations: list[int], count: int, seed: int, exclude: Iterable[str] = (), prefix: str = "chain"
) -> list[Problem]:
    """Return `count` different chain problems; operation counts take turns, so each gets an equal share.

    exclude: questions that must not be drawn. Raises ValueError if so many different problems do not exist.
    """
    _check_sizes("operations", operations, MAX_OPERATIONS)
    # no question of another length can be drawn, so only the shortest decides; a third is left free to keep drawing fast
    room = MODULUS * (len(OPERATORS) * (MODULUS - 1)) ** min(operations)
    needed = -(-count // len(operations))
    if count < 1 or needed > room * 2 // 3:
        raise ValueError(
            f"chain: count is {count} over operations {list(operations)}; expected 1 to {room * 2 // 3 * len(operations)}"
            " (more different chains of the shortest kind do not exist); lower count or add operations"
        )
    rng = random.Random(f"chain/{seed}")
    seen = set(exclude)
    problems = []
    while len(problems) < count:
        question = draw_question(rng, operations[len(problems) % len(operations)])
        if question not in seen:
            seen.add(question)
            solution, answer = work(question)
            problems.append(Problem(f"{prefix}-{len(problems):06d}", question, answer, solution, "chain"))
    return problems


def reverse_problems(count: int, seed: int, digits: list[int] | None = None, prefix: str = "reverse") -> list[Problem]:
    """Return `count` different problems of writing 4 to 6 (or `digits`) digits backwards."""
    digits = digits or [4, 5, 6]
    _check_sizes("digits", digits, 16)
    room = MODULUS ** min(digits)
    if count < 1 or -(-count // len(digits)) > room * 2 // 3:
        raise ValueError(f"reverse: count is {count}; expected 1 to {room * 2 // 3 * len(digits)} for digits {digits}")
    rng = random.Random(f"reverse/{seed}")
    seen: set[str] = set()
    problems = []
    while len(problems) < count:
        text = "".join(rng.choice(DIGITS) for _ in range(digits[len(problems) % len(digits)]))
        if text not in seen:
            seen.add(text)
            back = text[::-1]
            problems.append(Problem(f"{prefix}-{len(problems):06d}", f"<{text}?", back, back, "reverse"))
    return problems


def _check_sizes(name: str, sizes: list[int], largest: int) -> None:
    if not sizes or any(not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= largest for k in sizes):
        raise ValueError(f"{name} must be a non-empty list of whole numbers from 1 to {largest}, got {sizes!r}")


def verify_chain(problem: Problem, text: str) -> Score:
    """Judge a response. correct: `text` ends in `#` and the answer. process: 1.0 only if it is the worked solution itself.

    The answer part is everything after the last `#`. There is one right chain, so comparing with it checks every copied
    step and every running value. Plain comparisons on a bounded text: nothing that a model writes is evaluated.
    """
    if len(text) > MAX_RESPONSE:
        return Score(False, 0.0)
    solution, answer = work(problem.question)
    _, mark, given = text.rpartition(ANSWER_MARK)
    return Score(bool(mark) and given == answer, float(text == solution))

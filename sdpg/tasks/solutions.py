"""Worked solutions that were written for a set's problems, by what the problem says and not by its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sdpg.tasks.cleaning import exact_key
from sdpg.types import Problem


def solution_key(problem: Problem) -> str:
    """Return what a solution belongs to: a question, up to white space, with this reference answer."""
    return hashlib.sha256(f"{exact_key(problem.question)}\0{problem.answer}".encode()).hexdigest()[:24]


def with_solutions(problems: list[Problem], solutions: Mapping[str, str]) -> tuple[list[Problem], dict[str, Any]]:
    """Give the problems without a solution theirs ({key: text}) -> problems, and the counts."""
    filled = [replace(p, solution=solutions.get(solution_key(p), "")) if not p.solution else p for p in problems]
    return filled, {
        "in_the_data": sum(bool(p.solution) for p in problems),
        "written": sum(not p.solution and bool(f.solution) for p, f in zip(problems, filled, strict=True)),
        "missing": sum(not p.solution for p in filled),
    }

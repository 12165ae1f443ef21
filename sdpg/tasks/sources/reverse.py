"""Generated: write digits backwards, a skill that the chain task does not touch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdpg.tasks.chain import reverse_problems
from sdpg.types import Count, Length, Problem, Seed, Settings


class Options(Settings):
    """Generated numbers to write backwards."""

    digits: Annotated[list[Length], Field(min_length=1)] = [4, 5, 6]
    """Lengths of the numbers, which take turns."""
    count: Count
    """Problems."""
    seed: Seed
    """Seed of the generator."""


def problems(options: Options, prefix: str) -> list[Problem]:
    """Generate the problems. Raises ValueError if so many different ones do not exist."""
    return reverse_problems(options.count, options.seed, options.digits, prefix=prefix)

"""Generated chains of + - x in Z_10 with worked solutions (see `sdpg.tasks.chain`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdpg.tasks.chain import chain_problems
from sdpg.types import Count, Length, Problem, Seed, Settings


class Options(Settings):
    """Generated chains of + - x in Z_10 with worked solutions."""

    operations: Annotated[list[Length], Field(min_length=1)]
    """Numbers of operations in a chain, which take turns."""
    count: Count
    """Problems."""
    seed: Seed
    """Seed of the generator."""


def problems(options: Options, prefix: str) -> list[Problem]:
    """Generate the problems. Raises ValueError if so many different ones do not exist."""
    return chain_problems(options.operations, options.count, options.seed, prefix=prefix)

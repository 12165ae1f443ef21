"""Who does what in an update: a pure function of what every process has to do, so that none ever waits for another thing.

Under FSDP2 every forward and backward pass gathers and reduces weights together with all other processes. So all of them run
the same passes in the same order: a row of slots. In a slot a process reads one of its micro-batches, or, where it has none
left, a dummy without any weight; the same for the teacher. One process alone has one slot for each micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """One micro-batch of a process. learns: it has a backward pass. teacher: how many passes a teacher makes over some of its
    responses (more than one with wrong hints).
    """

    learns: bool
    teacher: int


class Slot(NamedTuple):
    """What all processes run at the same time, and which micro-batch this one reads (its number; None: a dummy)."""

    learns: bool
    teacher: int
    piece: int | None


def slots(pieces: Sequence[Sequence[Piece]], rank: int) -> list[Slot]:
    """Return what process `rank` does, given every process's micro-batches, those that learn first.

    A slot learns if any process needs it, and has as many teacher's passes as any one needs. As long as others learn, a process
    without a micro-batch that learns reads one that does not; so no process runs more slots than the one with most work asks
    for.
    """
    for own in pieces:
        assert list(own) == sorted(own, key=lambda piece: not piece.learns), "micro-batches that learn come first"
    learning = max(sum(piece.learns for piece in own) for own in pieces)
    count = max(learning, *map(len, pieces))
    plan = []
    for i in range(count):
        there = [own[i] for own in pieces if i < len(own)]
        plan.append(Slot(i < learning, max((p.teacher for p in there), default=0), i if i < len(pieces[rank]) else None))
    return plan


def deal(costs: Sequence[int], shares: int) -> list[list[int]]:
    """Deal out items so that the shares cost about the same -> the items of each share, ascending.

    The costliest item goes first, each to the share that has least so far (Graham 1969: at most 4/3 of the best possible).
    """
    dealt: list[list[int]] = [[] for _ in range(shares)]
    load = [0] * shares
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        share = min(range(shares), key=lambda s: (load[s], s))
        dealt[share].append(i)
        load[share] += costs[i]
    return [sorted(items) for items in dealt]

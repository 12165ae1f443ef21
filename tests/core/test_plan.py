"""The plan of an update: all processes run the same passes, every micro-batch is read once, work is dealt out evenly."""

from random import Random

import pytest

from sdpg.core.plan import Piece, Slot, deal, slots

LEARNS, WITH_TEACHER, IDLE = Piece(True, False), Piece(True, True), Piece(False, False)


def test_one_process_does_what_it_has():
    pieces = [WITH_TEACHER, LEARNS, IDLE]
    assert slots([pieces], 0) == [Slot(True, True, 0), Slot(True, False, 1), Slot(False, False, 2)]
    assert slots([[]], 0) == []


def test_who_has_nothing_left_reads_a_dummy_and_who_has_idle_work_does_it_while_others_learn():
    pieces = [[WITH_TEACHER, LEARNS, LEARNS], [LEARNS, IDLE], []]
    assert slots(pieces, 0) == [Slot(True, True, 0), Slot(True, False, 1), Slot(True, False, 2)]
    assert slots(pieces, 1) == [Slot(True, True, 0), Slot(True, False, 1), Slot(True, False, None)]
    assert slots(pieces, 2) == [Slot(True, True, None), Slot(True, False, None), Slot(True, False, None)]


@pytest.mark.parametrize("seed", range(200))
def test_no_two_processes_ever_run_different_passes(seed):
    random = Random(seed)
    every = []
    for _ in range(random.randint(1, 8)):
        own = [Piece(random.random() < 0.7, random.random() < 0.5) for _ in range(random.randint(0, 6))]
        every.append(sorted(own, key=lambda piece: not piece.learns))
    plans = [slots(every, rank) for rank in range(len(every))]
    assert len({tuple((slot.learns, slot.teacher) for slot in plan) for plan in plans}) == 1
    for own, plan in zip(every, plans, strict=True):
        assert [slot.piece for slot in plan if slot.piece is not None] == list(range(len(own)))
        for slot in plan:
            if slot.piece is not None:  # a slot gives a micro-batch all that it needs
                assert slot.learns >= own[slot.piece].learns and slot.teacher >= own[slot.piece].teacher
    assert len(plans[0]) == max(max(map(len, every)), max(sum(p.learns for p in own) for own in every))


def test_micro_batches_that_learn_come_first():
    with pytest.raises(AssertionError, match="that learn come first"):
        slots([[IDLE, LEARNS]], 0)


@pytest.mark.parametrize("seed", range(50))
def test_groups_are_dealt_out_evenly_and_completely(seed):
    random = Random(seed)
    costs, shares = [random.randint(1, 5000) for _ in range(random.randint(0, 40))], random.randint(1, 8)
    dealt = deal(costs, shares)
    assert sorted(i for share in dealt for i in share) == list(range(len(costs)))
    assert all(share == sorted(share) for share in dealt) and len(dealt) == shares
    loads = [sum(costs[i] for i in share) for share in dealt]
    assert max(loads) - min(loads) <= max(costs, default=0)
    assert deal(costs, 1) == [list(range(len(costs)))]


def test_the_papers_prompts_leave_a_few_percent_of_idle_time():
    """128 groups of 8 responses, mean 2,600 of at most 4,096 tokens, over 8 processes; without dealing it is 8 to 15%."""
    random = Random(0)
    groups = [sum(min(4096, max(200, int(random.gauss(2600, 1100)))) for _ in range(8)) for _ in range(128)]
    loads = [sum(groups[i] for i in share) for share in deal(groups, 8)]
    assert max(loads) / (sum(loads) / 8) < 1.01
    strided = [sum(groups[rank::8]) for rank in range(8)]
    assert max(strided) > max(loads)

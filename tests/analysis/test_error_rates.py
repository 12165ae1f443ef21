"""Every rule of verdicts keeps its level on runs of which one in ten collapses: the project's own functions, simulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.error_rates import HALF, MARGIN, World, agreement, collapses, family, performance, rates
from sdpg.analysis.layout import contrast

LEVEL = 0.025  # of a wrong verdict in one direction
TRIALS = 600


def most(trials: int, level: float = LEVEL) -> float:
    """The level and what Monte Carlo may add to it."""
    return level + 3.5 * np.sqrt(level * (1 - level) / trials)


WORLDS = {
    "ten units": World(),
    "five units": World(units=5),
    "two methods": World(methods=2),
    "no collapse": World(collapse=(0.0, 0.0)),
    "a collapses in one of three": World(collapse=(0.33, 0.1)),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
def test_a_claim_that_is_true_in_the_mean_is_not_refuted_and_a_false_one_not_supported(world):
    """At the thresholds themselves, where errors are most frequent. Two of three would be called refuted by a t-interval of all
    runs in which no collapse was seen."""
    assert rates(performance, replace(world, effect=HALF), TRIALS)["refuted"] <= most(TRIALS)
    assert rates(performance, replace(world, effect=MARGIN), TRIALS, seed=1)["supported"] <= most(TRIALS)


@pytest.mark.parametrize("effect, verdict", [(MARGIN, "supported"), (HALF, "refuted")])
def test_runs_that_vary_more_than_those_that_lend_their_error_do_not_cost_the_level(effect, verdict):
    """Few healthy pairs, with four times the variance of the others: where the pool is most wrong before it is noticed. Had a
    pair to be shown to vary more (at 20%) before it kept its own error, it would be .04."""
    world = World(effect=effect, noisier=2.0, collapse=(0.3, 0.3))
    assert rates(performance, world, 2000, seed=2)[verdict] <= most(2000)


def test_what_the_paper_found_is_found_and_its_absence_too():
    assert rates(performance, World(effect=0.1), 200)["supported"] > 0.95
    assert rates(performance, World(effect=0.0), 200)["refuted"] > 0.75


@pytest.mark.parametrize("units", [5, 10])
@pytest.mark.parametrize("chance", [0.1, 0.3, 0.5])
def test_as_many_collapses_in_both_methods_are_no_difference(chance, units):
    found = rates(collapses, World(collapse=(chance, chance), units=units), 600)
    assert found["supported"] <= most(600)


def test_a_method_that_needs_its_gate_is_found_and_is_not_refuted():
    assert rates(collapses, World(collapse=(0.9, 0.1)), 300)["supported"] > 0.8
    assert rates(collapses, World(collapse=(0.6, 0.0)), 600)["refuted"] <= most(600)  # the difference is .6, half is .5
    assert rates(collapses, World(collapse=(0.1, 0.1)), 300)["refuted"] > 0.6


@pytest.mark.parametrize("role", ["primary", "exploratory"])
def test_of_ten_claims_together_none_is_wrong_more_often_than_said(role):
    """All at the margin; all at half of the paper's effect; and some false ones among true ones, as one family."""
    mixed = [World(effect=effect) for effect in [0.1, MARGIN, 0.08, MARGIN, HALF, 0.1, MARGIN, 0.08, 0.0, HALF]]
    for worlds in ([World(effect=MARGIN)] * 10, [World(effect=HALF)] * 10, mixed):
        found = family(worlds, 60, role=role)
        assert found["supported"] <= most(60) and found["refuted"] <= most(60)


@pytest.mark.parametrize("shared", [True, False])
def test_two_honest_runs_agree_in_at_least_95_of_100_comparisons(shared):
    """With so many collapses that the healthy units of the two runs are seldom the same."""
    assert agreement(World(methods=6, collapse=(0.3, 0.3)), 300, shared=shared) <= most(300, 0.05)


def test_a_shift_between_two_runs_is_told():
    assert agreement(World(methods=6, collapse=(0.0, 0.1)), 40, shared=True, shift=0.2) > 0.9


def test_a_t_interval_of_all_runs_with_one_threshold_errs_where_no_collapse_was_seen():
    """What these rules take the place of: a is better than b in the mean by .06, since one run of b in ten collapses; five
    units.
    """
    world, rng = World(units=5, methods=2, collapse=(0.0, 0.1), sd=0.003), np.random.default_rng(0)
    drawn = [world.draw(rng) for _ in range(300)]
    before = [2 * contrast(of["a"].x_SP, of["b"].x_SP).p_below(MARGIN) <= 0.05 for of in drawn]
    assert np.mean(before) == pytest.approx(0.9**5, abs=0.1)
    assert rates(collapses, replace(world, collapse=(0.1, 0.0)), 300)["refuted"] == 0  # as a collapse, it is left open

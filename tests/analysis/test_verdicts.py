"""From estimates to verdicts: thresholds, several sets, many claims together, and exact estimates by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sdpg.analysis.intervals import Contrast, Median, PairedShares, Share
from sdpg.analysis.multiplicity import fallback, holm
from sdpg.artefacts.claims.verdicts import Combined, Part, combine, decide, thresholds


def part(effect, error=0.01, margin=0.02, half=0.05, task="a"):
    return Part(task, Contrast(effect, error, 30.0), margin, half)


def test_a_claim_about_every_set_falls_with_one_and_one_about_any_stands_with_one():
    good, bad, unclear = part(0.2, task="good"), part(-0.2, task="bad"), part(0.03, error=0.1, task="open")
    assert combine([good, bad], "all").part is bad
    assert combine([good, bad], "any").part is good
    assert combine([good, unclear], "all").p_support > 0.05 > combine([good, unclear], "any").p_support
    assert combine([bad, unclear], "any").p_refute > 0.05 > combine([bad, unclear], "all").p_refute
    assert combine([good, part(0.1)], "all").p_support == part(0.1).p_support  # no correction: each must hold
    assert combine([bad, bad], "all").p_refute == pytest.approx(2 * bad.p_refute)  # Bonferroni: one is enough


@pytest.mark.parametrize(
    ("effect", "verdict", "reason"),
    [
        (0.1, "supported", "beyond the margin"),
        (0.035, "supported", "beyond the margin, though short of half of the paper's effect"),
        (0.02, "refuted", "no effect as large as half of the paper's"),
        (0.0, "refuted", "no effect as large as half of the paper's"),
        (-0.2, "refuted", "the opposite holds"),
    ],
)
def test_verdicts_of_one_claim(effect, verdict, reason):
    for role in ("primary", "exploratory"):
        (decided,) = decide([combine([part(effect, error=0.005)], "all")], 0.05, role)
        assert (decided.verdict, decided.reason) == (verdict, reason)


def test_a_share_of_runs_is_refuted_in_its_own_words():
    (decided,) = decide([combine([Part(None, PairedShares(0, 0, 10), 0.0, 0.5)], "all")], 0.05, "primary")
    assert (decided.verdict, decided.reason) == ("refuted", "fewer than 50% of runs")


def test_what_the_data_allow_both_of_is_open_and_without_the_papers_effect_nothing_is_refuted():
    for half, words in ((0.05, "beyond half of the paper's"), (None, "no effect to be short of")):
        (decided,) = decide([combine([part(0.03, error=0.03, half=half)], "all")], 0.05, "primary")
        assert decided.verdict == "open" and words in decided.reason
    (decided,) = decide([combine([part(-0.5, half=None)], "all")], 0.05, "primary")
    assert decided.verdict == "open"


def test_many_claims_together_ask_for_more():
    one = combine([part(0.045, error=0.01)], "all")
    assert 2 * one.p_support == pytest.approx(0.019, abs=0.001)
    assert decide([one], 0.05, "exploratory")[0].verdict == "supported"
    unclear = Combined(0.5, 0.5, part(0.0), part(0.0))
    decision = decide([one, unclear, unclear], 0.05, "exploratory")[0]
    assert (decision.p_adjusted, decision.verdict) == (pytest.approx(3 * 2 * one.p_support), "open")
    assert decision.reason == "would be supported alone, not among the exploratory claims together"
    assert decide([one, None, None], 0.05, "exploratory")[0] == decision  # what is not testable keeps its place
    assert decide([one, None, None], 0.05, "exploratory")[1:] == [None, None]


def test_the_fallback_hands_on_what_is_won_and_a_stuck_claim_does_not_hold_up_the_others():
    assert fallback([0.02]) == [0.02]
    assert fallback([0.01, 0.03]) == pytest.approx([0.02, 0.03])  # the first at half, the second then at the whole
    assert fallback([0.9, 0.02]) == pytest.approx([0.9, 0.04])  # stuck: the second has its half
    assert fallback([0.03, 0.01]) == pytest.approx([0.03, 0.02])  # and the last hands back to the first
    assert fallback([0.004, 0.9, 0.016, 0.012]) == pytest.approx(
        [0.016, 0.9, 0.064, 0.048]
    )  # the second keeps what it is handed
    assert fallback([]) == []
    p = np.random.default_rng(3).random((2000, 10))
    assert np.mean([min(fallback(row)) <= 0.05 for row in p]) == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 2000))
    assert all(min(fallback(row)) == pytest.approx(min(holm(row))) for row in p[:50])


def test_exact_estimates_by_hand():
    assert Share(0, 10).interval() == (0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert Share(10, 10).interval() == (pytest.approx(0.025 ** (1 / 10)), 1)
    assert PairedShares(10, 0, 10).p_above() == 2**-10
    assert PairedShares(5, 1, 10).p_above() == pytest.approx(7 / 64)  # at least 5 of 6 heads
    assert PairedShares(0, 0, 10).p_above() == 1
    assert PairedShares(0, 3, 10).p_below(0.5) == pytest.approx(2**-10)
    assert PairedShares(3, 1, 10).p_above(0.1) == 1  # not tested
    values = tuple(range(10))
    assert Median(values).interval() == (1, 8)
    assert Median(values).p_above(0.5) == pytest.approx(11 / 1024) == Median(values).p_below(8.5)
    assert Median(values).p_above(0) == pytest.approx(11 / 1024)  # a value on the threshold does not speak for it
    assert np.isnan(Median((1.0, 2.0, 3.0, 4.0, 5.0)).interval()).all()


def test_few_units_that_say_the_same_leave_a_claim_open_and_it_is_said():
    for units, verdict in ((3, "open"), (9, "open"), (10, "supported")):
        (decided,) = decide([combine([Part(None, Contrast(0.2, 0.0, np.inf, units), 0.02, 0.05)], "all")], 0.05, "primary")
        assert decided.verdict == verdict
        assert verdict == "supported" or (decided.reason, decided.p) == (
            f"all {units} units say the same: no spread to judge by",
            1.0,
        )


def test_the_p_value_is_that_of_the_verdict_s_direction():
    """Beyond the margin and, far more surely, short of half of the paper's effect: supported, by the p-value of support."""
    both = combine([part(0.035, error=0.004, half=0.2)], "all")
    assert both.p_refute < both.p_support < 0.001
    (decided,) = decide([both], 0.05, "primary")
    assert (decided.verdict, decided.p) == ("supported", 2 * both.p_support)
    assert decided.p_adjusted == decided.p
    (decided,) = decide([combine([part(0.0, error=0.005)], "all")], 0.05, "primary")
    assert (decided.verdict, decided.p) == ("refuted", 2 * part(0.0, error=0.005).p_refute)


def test_a_missing_value_speaks_for_neither_side():
    nan = np.nan
    there, some = Median(tuple(range(10))), Median((nan, *range(1, 9), nan))
    assert some.p_above(0.5) == Median((0, *range(1, 9), 0)).p_above(0.5) > there.p_above(0.5)
    assert some.p_below(8.5) == Median((9, *range(1, 9), 9)).p_below(8.5) > there.p_below(8.5)
    assert some.effect == 4.5 and some.missing == 2
    assert there.interval() == (1, 8) and Median((nan, *range(1, 10))).interval() == (1, 9)
    assert some.interval() == (-np.inf, np.inf)  # two may lie beyond either end
    assert np.isnan(Median((nan,) * 10).effect) and Median((nan,) * 10).p_above(-1e9) == 1
    (decided,) = decide([combine([Part(None, Median((nan,) * 6 + (1.0,) * 4), 0.0, 0.5)], "all")], 0.05, "primary")
    assert (decided.verdict, decided.reason) == ("open", "4 runs are too few for an exact test")


@pytest.mark.parametrize("loss", [lambda x: x > 0.5, lambda x: x < -0.5, lambda x: np.abs(x) > 1, lambda x: x > 9])
def test_the_level_holds_whatever_decides_which_values_are_missing(loss):
    """The median is on the threshold: neither side of it is shown more often than said, also if all of one side are lost."""
    x = np.random.default_rng(0).normal(size=(4000, 10))
    found = [Median(tuple(row)) for row in np.where(loss(x), np.nan, x)]
    for p in ([of.p_above(0.0) for of in found], [of.p_below(0.0) for of in found]):
        assert np.mean(np.array(p) <= 0.025) <= 0.025
    ends = np.array([of.interval() for of in found])
    assert np.mean((ends[:, 0] <= 0) & (0 <= ends[:, 1])) >= 0.95


def test_the_set_that_is_shown_is_the_one_that_decided():
    """Beyond the margin and short of half of the paper's effect: supported, by the set that is least sure of it."""
    unsure, sure = part(0.03, error=0.004, task="unsure"), part(0.035, error=0.001, task="sure")
    both = combine([unsure, sure], "all")
    assert both.part is sure and both.p_refute < both.p_support < 0.02
    (decided,) = decide([both], 0.05, "primary")
    assert decided.verdict == "supported" and decided.part is unsure
    (decided,) = decide([combine([part(0.0, error=0.001), unsure], "all")], 0.05, "primary")
    assert decided.verdict == "refuted" and decided.part.up.effect == 0.0


def test_runs_that_all_say_the_same_up_to_rounding_prove_nothing_about_what_is_on_the_threshold():
    same = Contrast(0.3 - 0.1, 1e-17, 9.0)  # .19999999999999998
    assert same.p_above(0.2) == same.p_below(0.2) == 1
    assert Contrast(0.1 + 0.2, 1e-18, 9.0).p_above(0.3) == 1  # .30000000000000004
    assert same.p_above(0.1) == same.p_below(0.3) == 0


def test_relative_thresholds_are_shares_on_either_side_and_half_is_half_of_the_logarithm():
    claim = {"margin": 0.2, "effect": 0.5}
    assert thresholds(claim | {"direction": "above"}, True) == pytest.approx((np.log(1.2), np.log(1.5) / 2))
    assert thresholds(claim | {"direction": "below"}, True) == pytest.approx((-np.log(0.8), -np.log(0.5) / 2))
    assert thresholds(claim | {"direction": "below"}, False) == (0.2, 0.25)
    assert thresholds({"margin": 0.2, "direction": "above"}, False) == (0.2, None)

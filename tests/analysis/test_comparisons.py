"""Paired contrasts against SciPy and by simulation; Holm by hand; the probability of improvement against a count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sdpg.analysis.collapse import collapse, fallen
from sdpg.analysis.comparisons import Outcome, area_weights, compare, improvement, late, pool, scored
from sdpg.analysis.intervals import Contrast, bootstrap_means, probability_of_improvement
from sdpg.analysis.layout import Pool, contrast, interaction, residual
from sdpg.analysis.multiplicity import holm


def draw(rng, *, seeds=5, problems=64, samples=4, spread=0.0, base=0.0, collapse=0.0, problem_effect=0.0):
    """Scores of two methods, [S, P] each, whose expected difference is 0. base: what runs of one seed share."""
    difficulty, shared = rng.normal(0, 1.5, problems), rng.normal(0, base, seeds) if base else np.zeros(seeds)
    both = []
    for sign in (1, -1):
        logit = 1 + difficulty + (shared + rng.normal(0, spread, seeds))[:, None]
        p = 1 / (1 + np.exp(-(logit + sign * problem_effect * rng.normal(0, 1, problems))))
        p = np.where((rng.random(seeds) < collapse)[:, None], 0.1, p)
        both.append(rng.binomial(samples, p) / samples)
    return both


def test_a_value_per_run_is_the_ordinary_paired_t_test():
    a, b = np.random.default_rng(0).random((2, 6, 1))
    expected = stats.ttest_rel(a[:, 0], b[:, 0])
    result = contrast(a, b)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert result.df == pytest.approx(5)


def test_one_seed_is_the_paired_t_test_over_problems():
    a, b = np.random.default_rng(1).random((2, 1, 30))
    assert contrast(a, b).p == pytest.approx(stats.ttest_rel(a[0], b[0]).pvalue)


def test_both_parts_add_up_and_the_degrees_of_freedom_are_satterthwaites():
    d = np.random.default_rng(2).normal(size=(4, 10)) + np.arange(4)[:, None]
    seeds, problems = stats.sem(d.mean(axis=1)) ** 2, stats.sem(d.mean(axis=0)) ** 2
    assert contrast(d).error == pytest.approx(np.sqrt(seeds + problems))
    assert contrast(d).df == pytest.approx((seeds + problems) ** 2 / (seeds**2 / 3 + problems**2 / 9))


def test_one_sided_p_values_meet_at_the_threshold_and_add_to_one():
    result = Contrast(0.1, 0.05, 4)
    assert result.p_above(0.1) == pytest.approx(0.5)
    assert result.p_above(0.02) + result.p_below(0.02) == pytest.approx(1)
    low, high = result.interval()
    assert result.p_above(low) == pytest.approx(0.025) == pytest.approx(result.p_below(high))


def test_a_single_number_has_neither_interval_nor_significance():
    result = contrast(np.array([[0.7]]), np.array([[0.1]]))
    assert result.effect == pytest.approx(0.6)
    assert np.isnan(result.interval()).all()
    assert result.p == result.p_above() == 1


def test_scores_that_never_differ():
    same = np.full((3, 4), 0.5)
    assert contrast(same, same).p == 1
    assert contrast(same + 0.25, same)[:2] == (0.25, 0)
    many = np.full((10, 4), 0.5)
    assert contrast(many + 0.25, many).p == 0
    assert contrast(many + 0.25, many).interval() == (0.25, 0.25)


@pytest.mark.parametrize("units", [1, 2, 3, 9])
def test_few_units_that_all_say_the_same_are_no_certainty(units):
    same = np.full((units, 4), 0.5)
    found = contrast(same + 0.25, same)
    assert found.p == found.p_above() == found.turned().p_below() == 1 and not found.known
    assert np.isnan(found.interval()).all()
    assert contrast(same + 0.25 + np.arange(units)[:, None] / 100, same).known == (units > 1)  # a spread, however small


def test_other_seeds_or_problems_are_an_error():
    with pytest.raises(ValueError, match=r"same units and problems: got \[U, P\] = \(2, 3\) and \(3, 3\)"):
        contrast(np.zeros((2, 3)), np.zeros((3, 3)))


TRIALS = 600
CASES = {
    "runs hardly differ": {"spread": 0.05},
    "runs differ": {"spread": 0.8},
    "runs of a seed are alike": {"spread": 0.3, "base": 1.0},
    "problems favour one method": {"spread": 0.3, "problem_effect": 0.7},
    "one run in five collapses": {"spread": 0.3, "collapse": 0.2},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seeds", [3, 5])
def test_true_null_hypotheses_are_rejected_at_most_as_often_as_said(case, seeds):
    """Type-I error at 5% and at 1%, with 3.5 standard errors of the simulation; with 3 seeds that differ, a little more."""
    rng = np.random.default_rng(7)
    p = np.array([contrast(*draw(rng, seeds=seeds, **CASES[case])).p for _ in range(TRIALS)])
    for alpha in (0.05, 0.01):
        tolerance = 3.5 * np.sqrt(alpha * (1 - alpha) / TRIALS)
        assert (p <= alpha).mean() <= alpha + tolerance + (0.02 if seeds == 3 else 0)


def test_the_percentile_bootstrap_rejects_too_often_which_is_why_it_does_not_decide():
    rng = np.random.default_rng(8)
    pairs = [draw(rng, spread=1.2, problems=128) for _ in range(400)]
    draws = [bootstrap_means(a - b, draws=500, seed=i) for i, (a, b) in enumerate(pairs)]
    wrong = np.mean([low > 0 or high < 0 for low, high in np.quantile(draws, [0.025, 0.975], axis=1).T])
    ours = np.mean([contrast(a, b).p <= 0.05 for a, b in pairs])
    assert wrong > 0.07
    assert ours < wrong


def test_a_real_difference_is_found():
    rng = np.random.default_rng(9)
    found = []
    for _ in range(100):
        a, b = draw(rng, spread=0.3)
        found.append(contrast(np.clip(a + 0.3, 0, 2), b).p <= 0.05)
    assert np.mean(found) > 0.95


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_keeps_the_family_wise_error():
    p = np.random.default_rng(3).random((2000, 10))
    assert np.mean([min(holm(row)) <= 0.05 for row in p]) == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 2000))


def test_probability_of_improvement_counts_pairs_of_runs():
    a, b = np.array([[0.2, 0.4], [0.6, 0.8]]), np.array([[0.3, 0.3], [0.1, 0.1], [0.9, 0.9]])
    # means .3, .7 against .3, .1, .9: a tie, two wins of the second, one of the first
    assert probability_of_improvement(a, b).mean == pytest.approx(3.5 / 6)
    estimate = probability_of_improvement(*np.random.default_rng(0).random((2, 5, 20)))
    back = probability_of_improvement(*np.random.default_rng(0).random((2, 5, 20))[::-1])
    assert estimate.mean == pytest.approx(1 - back.mean)
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1
    assert probability_of_improvement(a + 1, a) == (1, 1, 1)


def test_equal_means_of_other_problems_tie():
    a = np.array([[0.1, 0.2, 0.3]])
    assert probability_of_improvement(a, a[:, ::-1]).mean == 0.5


def made(rows: dict[str, list[float]], curves=None) -> dict[str, Outcome]:
    """Outcomes with one value per run; a value below .2 is a run that collapsed."""
    found = {}
    for name, values in rows.items():
        x_S = np.array(values)
        ends = np.stack([np.full(len(x_S), 0.6), np.where(x_S < 0.2, 0.1, 0.6)], axis=1)
        found[name] = Outcome(x_S[:, None], collapse(ends, np.array([0, 10])))
    return found


def test_a_residual_is_that_of_the_two_way_analysis_of_variance():
    y = np.random.default_rng(5).normal(size=(4, 6))
    left = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    assert residual(y) == (pytest.approx((left**2).sum() / 15), 15)
    holes = y.copy()
    holes[1, 2] = holes[3, 5] = np.nan
    assert residual(holes).df == 13
    shifted = holes + np.arange(6) + 10 * np.arange(4)[:, None]  # methods and units are taken out, holes or not
    assert residual(shifted).variance == pytest.approx(residual(holes).variance)
    assert residual(np.full((2, 3), np.nan)).df == residual(y[:1]).df == 0


def test_the_error_is_pooled_unless_the_pair_varies_more():
    rng = np.random.default_rng(6)
    a, b = rng.normal(0, 0.9, (2, 10, 1))
    lent = Pool(rng.normal(0, 1, (5, 10)), tuple("cdefg"))
    own, found = contrast(a, b), contrast(a, b, lent)
    rest = residual(lent.y_MU)
    variance = (own.error**2 * 10 / 2 * 9 + rest.variance * rest.df) / (9 + rest.df)
    assert found[:3] == (own.effect, pytest.approx(np.sqrt(2 * variance / 10)), 9 + 36)
    assert contrast(10 * a, b, lent) == contrast(10 * a, b)
    assert contrast(a, b, lent.without("c", "d", "e", "f")) == own  # one method alone says nothing about its residual


def test_collapsed_runs_are_left_out_of_performance_and_counted():
    runs = {"a": [0.8, 0.81, 0.79, 0.1, 0.8], "b": [0.7, 0.71, 0.69, 0.7, 0.1], "c": [0.5, 0.52, 0.49, 0.5, 0.51]}
    outcomes = made(runs)
    found = compare("a", "b", outcomes, pool(outcomes), range(5))
    assert found.kept_S.tolist() == [True, True, True, False, False]
    assert found.difference.effect == pytest.approx(0.1)
    assert (found.fell.first, found.fell.second, found.fell.n) == (1, 1, 5)
    assert pool(outcomes).methods == ("a", "b", "c")
    assert np.isnan(pool(outcomes).y_MU).sum() == 2
    outcomes = made(runs | {"b": [0.1, 0.1, 0.1, 0.7, 0.7]})
    found = compare("a", "b", outcomes, pool(outcomes), range(5))
    assert np.isnan(found.difference.effect) and found.difference.p == 1  # one pair
    assert pool(outcomes).methods == ("a", "c")


def test_an_interaction_is_the_one_way_analysis_of_variance():
    d = np.random.default_rng(7).normal(size=9)
    base = np.array([0, 1, 2] * 3)
    expected = stats.f_oneway(*(d[base == i] for i in range(3)))
    found = interaction(d, base)
    assert (found.F, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.df1, found.df2) == (2, 6)
    assert interaction(d, np.arange(9)) is None  # one unit each
    assert interaction(d, np.zeros(9)) is None


def test_a_collapse_is_a_fall_below_half_of_the_highest_so_far():
    curves = np.array(
        [[0.2, 0.8, 0.41, 0.9], [0.2, 0.8, 0.39, 0.9], [0.2, 0.8, 0.7, 0.3], [0.06, 0.06, 0.02, 0.02], [0.3, 0.1, 0.1, 0.1]]
    )
    found = collapse(curves, np.array([0, 10, 20, 30]))
    assert found.ever.tolist() == [False, True, True, False, True]
    assert found.end.tolist() == [False, False, True, False, True]
    np.testing.assert_array_equal(found.step, [np.nan, 20, 30, np.nan, 10])
    stopped = collapse(curves, np.array([0, 10, 20, 30]), np.array([25, 25, 25, np.nan, 5]))
    assert stopped.ever.tolist() == [True, True, True, False, True] and stopped.end.tolist() == [True, True, True, False, True]
    np.testing.assert_array_equal(stopped.step, [25, 20, 25, np.nan, 5])
    assert fallen(np.array([0.5, 0.2])).tolist() == [False, True]


def test_measures_by_hand():
    steps = np.array([0, 10, 40])
    assert area_weights(steps).tolist() == pytest.approx([5 / 40, 20 / 40, 15 / 40])
    assert area_weights(np.array([7])).tolist() == [1]
    assert late(np.array([0, 40, 80, 120, 160])).tolist() == [False, False, False, True, True]
    x = np.array([0.2, 0.4, 0.8]).reshape(1, 3, 1)
    assert scored(steps, x, "late").item() == pytest.approx(0.8)
    assert scored(steps, x, "area").item() == pytest.approx(0.3 * 0.25 + 0.6 * 0.75)


def test_improvement_counts_collapsed_runs_too():
    outcomes = made({"a": [0.8, 0.1, 0.8], "b": [0.7, 0.7, 0.7]})
    assert improvement(outcomes["a"], outcomes["b"])[0] == pytest.approx(6 / 9)

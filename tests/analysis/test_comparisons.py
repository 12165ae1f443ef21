"""Paired contrasts against SciPy and by simulation; Holm by hand; the probability of improvement against a count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sdpg.analysis.comparisons import Contrast, compare, contrast, holm, variances
from sdpg.analysis.intervals import bootstrap_p, paired_difference, probability_of_improvement


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
    parts = variances(d)
    seeds, problems = stats.sem(d.mean(axis=1)) ** 2, stats.sem(d.mean(axis=0)) ** 2
    assert (parts.seeds, parts.problems) == pytest.approx((seeds, problems))
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
    assert contrast(same + 0.25, same).p == 0
    assert contrast(same + 0.25, same).interval() == (0.25, 0.25)


def test_other_seeds_or_problems_are_an_error():
    with pytest.raises(ValueError, match=r"same seeds and problems: got \[S, P\] = \(2, 3\) and \(3, 3\)"):
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
    estimates = [paired_difference(a, b, draws=500, seed=i) for i, (a, b) in enumerate(pairs)]
    wrong = np.mean([low > 0 or high < 0 for _, low, high in estimates])
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


def test_bootstrap_p_has_a_floor():
    assert bootstrap_p(np.full(1999, 0.1)) == pytest.approx(2 / 2000)
    assert bootstrap_p(np.zeros(10)) == 1
    assert bootstrap_p(np.array([-1.0, 1.0, 2.0, 3.0])) == pytest.approx(2 * 2 / 5)


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


def test_compare_is_all_of_it_in_the_order_of_the_columns():
    a, b = np.random.default_rng(4).random((2, 4, 12))
    row = compare(a, b)
    assert row[0] == pytest.approx(a.mean() - b.mean())
    assert row[3] == contrast(a, b).p
    assert row[4:6] == paired_difference(a, b)[1:]
    assert row[7:] == probability_of_improvement(a, b)

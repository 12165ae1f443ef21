"""The bootstrap: what it averages, that it reproduces, and that its intervals cover."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sdpg.analysis.intervals import bootstrap_means, bootstrap_weights, hierarchical_interval, interval_name, iqm_interval


@pytest.fixture
def x_SP():
    return np.random.default_rng(0).random((3, 40))


def test_mean_is_the_plain_mean_and_inside_the_interval(x_SP):
    estimate = hierarchical_interval(x_SP)
    assert estimate.mean == pytest.approx(x_SP.sum() / x_SP.size)
    assert estimate.low < estimate.mean < estimate.high


def test_same_arguments_same_numbers_and_another_seed_others(x_SP):
    assert hierarchical_interval(x_SP, seed=1) == hierarchical_interval(x_SP.copy(), seed=1)
    assert hierarchical_interval(x_SP, seed=1) != hierarchical_interval(x_SP, seed=2)


def test_global_generator_is_neither_read_nor_moved(x_SP):
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    hierarchical_interval(x_SP, seed=9)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize("count", [2, 3, 10])
def test_weights_sum_to_one_and_give_the_unbiased_variance_of_a_mean(count):
    w = bootstrap_weights(count, 40_000, np.random.default_rng(0))
    assert w.shape == (40_000, count)
    np.testing.assert_allclose(w.sum(axis=1), 1)
    x = np.random.default_rng(1).normal(size=count)
    assert (w @ x).var() == pytest.approx(x.var(ddof=1) / count, rel=0.05)


def test_weights_by_hand_for_two_units():
    w = bootstrap_weights(2, 50, np.random.default_rng(0))
    assert {tuple(row) for row in w} == {(1.0, 0.0), (0.0, 1.0)}


def test_one_seed_leaves_the_spread_of_the_problems():
    x = np.random.default_rng(0).random((1, 200))
    estimate = hierarchical_interval(x, draws=4000)
    standard_error = x.std(ddof=1) / np.sqrt(200)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * standard_error, rel=0.07)


def test_identical_scores_have_no_width():
    assert hierarchical_interval(np.full((3, 8), 0.5)) == pytest.approx((0.5, 0.5, 0.5))


def simulate(rng, seeds, problems, samples, spread_of_seeds):
    """Scores [S, P] whose expectation over seeds and problems is exactly 0.5."""
    logit = rng.normal(0, 1.5, problems) + rng.normal(0, spread_of_seeds, (seeds, 1))
    return rng.binomial(samples, 1 / (1 + np.exp(-logit))) / samples


@pytest.mark.parametrize("seeds, spread", [(3, 0.1), (10, 0.3)])
def test_interval_covers_the_truth(seeds, spread):
    rng = np.random.default_rng(5)
    intervals = [hierarchical_interval(simulate(rng, seeds, 64, 8, spread), draws=500, seed=i) for i in range(300)]
    covered = np.mean([low <= 0.5 <= high for _, low, high in intervals])
    assert 0.91 <= covered <= 0.985  # 0.95 +- 3 standard errors of 300 trials, and a little for the percentile method


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.02, 0.05, 0.15])
def test_few_runs_that_differ_much_are_covered_as_well(runs, spread):
    """128 problems with 8 samples; spread: SD of accuracy between runs. Not stretched it is .85 of 3 runs at .15."""
    rng = np.random.default_rng(1)
    covered = []
    for i in range(300):
        chance = np.clip(rng.beta(0.7, 0.7, 128) + rng.normal(0, spread, (runs, 1)), 0, 1)  # in the mean .5
        found = hierarchical_interval(rng.binomial(8, chance) / 8, draws=400, seed=i).within(0, 1)
        covered.append(found.low <= 0.5 <= found.high)
    assert np.mean(covered) >= 0.92 - 2 * np.sqrt(0.92 * 0.08 / 300)  # what chance takes from .92


def test_the_stretch_by_hand_and_the_ends_stop_at_what_can_be():
    x = np.array([[0.2], [0.4], [0.9]])  # problems have no spread: df = 2
    draws = bootstrap_means(x)
    low, high = np.quantile(draws, [0.025, 0.975])
    factor = stats.t.ppf(0.975, 2) * draws.std() / ((high - low) / 2)
    assert factor > 1.5
    found = hierarchical_interval(x)
    assert found[1:] == pytest.approx((0.5 - factor * (0.5 - low), 0.5 + factor * (high - 0.5)))
    assert found.within(0, 1)[1:] == (0, 1) and found.low < 0 and found.high > 1
    assert hierarchical_interval(x, fewer=0)[1:] == pytest.approx(
        tuple(np.quantile(bootstrap_means(x, fewer=0), [0.025, 0.975]))
    )
    many = np.random.default_rng(0).normal(size=(60, 1))
    assert iqm_interval(many).low < iqm_interval(many).mean < iqm_interval(many).high


def test_name_says_what_was_resampled():
    assert interval_name(3) == "95% interval, bootstrap over seeds and problems"
    assert "one seed" in interval_name(1)


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0))])
def test_wrong_shape_is_an_error(x):
    with pytest.raises(ValueError, match=r"\[seeds, problems\], got shape"):
        bootstrap_means(x)


def test_nan_names_its_place():
    x = np.zeros((2, 3))
    x[1, 2] = np.nan
    with pytest.raises(ValueError, match="seed index 1, problem index 2"):
        hierarchical_interval(x)


def test_nothing_else_computes_an_interval():
    """Quantiles of a distribution are taken here, and for the power of tests; that of layout.py is a critical value."""
    root = Path(__file__).resolve().parents[2]
    found = {
        path.relative_to(root).as_posix() for path in root.glob("sdpg/**/*.py") if re.search(r"\b(ppf|isf)\(", path.read_text())
    }
    assert found == {"sdpg/analysis/intervals.py", "sdpg/analysis/layout.py", "sdpg/artefacts/power.py"}

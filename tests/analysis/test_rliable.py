"""Our estimators on the matrices that rliable was run on: points to 1e-12, intervals within the Monte-Carlo error of both.

Two deliberate differences are set aside here: we draw S - 1 of S runs (`fewer` = 1), and a run is drawn whole, with all its
problems. rliable draws S of S, and the runs of each task by themselves: its mean over tasks is that of one-column matrices.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sdpg.analysis.intervals import (
    bootstrap_means,
    improvement_draws,
    interquartile_mean,
    iqm_interval,
    probability_of_improvement,
    resample,
)

REFERENCE = json.loads((Path(__file__).parent / "rliable" / "reference.json").read_text())
X, Y = np.array(REFERENCE["x"]), np.array(REFERENCE["y"])  # [10 runs, 6 tasks]
TASKS = range(X.shape[1])
DRAWS, REPEATS = 4000, 24


def means(seed):
    return np.mean([bootstrap_means(X[:, [m]], draws=DRAWS, seed=seed, seed_stream=m, fewer=0) for m in TASKS], axis=0)


def iqm_of_first_task(seed):
    return interquartile_mean(*resample(X[:, :1], draws=DRAWS, seed=seed, fewer=0))


def improvements(seed, tasks=TASKS):
    # another generator seed for each task: its two streams are taken by the two methods
    draws = [improvement_draws(X[:, [m]], Y[:, [m]], draws=DRAWS, seed=100 * seed + m, fewer=0) for m in tasks]
    return np.mean(draws, axis=0)


def improvement_of_first_task(seed):
    return improvements(seed, tasks=[0])


def test_points_agree_exactly():
    assert X.mean() == pytest.approx(REFERENCE["mean"][0], abs=1e-12)
    # of the whole matrix; rounding the number to cut per row would differ
    assert interquartile_mean(X.reshape(1, -1))[0] == pytest.approx(REFERENCE["iqm"][0], abs=1e-12)
    assert iqm_interval(X[:, :1]).mean == pytest.approx(REFERENCE["iqm_of_first_task"][0], abs=1e-12)
    points = [probability_of_improvement(X[:, [m]], Y[:, [m]]).mean for m in TASKS]
    assert np.mean(points) == pytest.approx(REFERENCE["probability_of_improvement"][0], abs=1e-12)
    assert points[0] == pytest.approx(REFERENCE["probability_of_first_task"][0], abs=1e-12)


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("mean", means),
        ("iqm_of_first_task", iqm_of_first_task),
        ("probability_of_improvement", improvements),
        ("probability_of_first_task", improvement_of_first_task),
    ],
)
def test_intervals_agree_within_monte_carlo_error(name, draw):
    ends = np.array([np.quantile(draw(seed), [0.025, 0.975]) for seed in range(REPEATS)])
    ours, spread = ends.mean(axis=0), ends.std(axis=0, ddof=1)  # of one interval of DRAWS draws
    error = spread * np.sqrt(1 / REPEATS + DRAWS / REFERENCE["reps"])
    grid = 1e-12 if "first" not in name else 1 / X.shape[0] ** 2 / 2  # P(X > Y) of one task moves in steps of 1/200
    assert np.abs(ours - REFERENCE[name][1:]) == pytest.approx(0, abs=(4 * error + grid).max())
    width = REFERENCE[name][2] - REFERENCE[name][1]
    assert (4 * error + grid).max() < 0.1 * width  # tight enough to tell another bootstrap apart


def test_the_difference_to_rliable_is_the_one_that_is_meant():
    """Drawing one run fewer widens the interval by sqrt(S / (S - 1)), to first order."""
    S = len(X)
    all_runs, fewer = (bootstrap_means(X[:, :1], draws=40_000, fewer=fewer).std() for fewer in (0, 1))
    assert fewer / all_runs == pytest.approx(np.sqrt(S / (S - 1)), rel=0.02)


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 7, 8])
def test_interquartile_mean_is_scipys_trimmed_mean(runs):
    x = np.random.default_rng(runs).random((3, runs))
    expected = [stats.trim_mean(row, 0.25) for row in x]
    np.testing.assert_allclose(interquartile_mean(x), expected, atol=1e-14)


def test_weighted_interquartile_mean_is_that_of_the_repeated_values():
    x = np.random.default_rng(0).random(8)
    counts = np.array([0, 3, 1, 0, 2, 0, 1, 1])
    expected = stats.trim_mean(np.repeat(x, counts), 0.25)
    assert interquartile_mean(x[None], counts[None] / 8)[0] == pytest.approx(expected, abs=1e-14)

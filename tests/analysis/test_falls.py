"""What a collapse is: falls, ends below the start, runs that ended; after a rise; and how seldom chance alone makes one."""

from __future__ import annotations

import numpy as np
import pytest

from sdpg.analysis.collapse import LEAST, collapse, fallen, of_rollouts, smoothed, sunk
from tests.analysis.fake_claims import STEPS, FakeRuns, fake, of, usual
from tests.analysis.test_claims import verdict_of

STEP = 10 * np.arange(6)


def found(*curves, **options):
    fell = collapse(np.array(curves), STEP, **options)
    return fell.ever.tolist(), fell.end.tolist(), fell.step.tolist()


def test_a_run_that_ends_below_its_start_has_collapsed_from_where_it_stays_there():
    """The first falls straight to chance, which is above half of its start; the second comes back; the third ends a little
    below; the fourth rises first and is below its start only at the end.
    """
    curves = np.array(
        [
            [0.19, 0.15, 0.20, 0.16, 0.12, 0.13],
            [0.19, 0.12, 0.11, 0.12, 0.18, 0.19],
            [0.19, 0.18, 0.17, 0.16, 0.15, 0.15],
            [0.30, 0.40, 0.45, 0.40, 0.31, 0.24],
        ]
    )
    assert not fallen(curves).any()
    ever, end, step = found(*curves)
    assert ever == end == [True, False, False, True]
    assert np.array_equal(step, [40, np.nan, np.nan, 50], equal_nan=True)
    assert sunk(np.array([[0.2, 0.2 - LEAST - 1e-9], [0.2, 0.2 - LEAST + 1e-9]])).tolist() == [True, False]
    assert not collapse(np.array([[0.2]]), np.array([0])).ever.any()  # one checkpoint ends where it starts


def test_the_first_of_two_ways_to_collapse_has_the_step():
    assert found([0.5, 0.6, 0.2, 0.4, 0.4, 0.4])[2] == [20]  # fell at 20, and stays below its start from then on
    assert found([0.5, 0.4, 0.4, 0.4, 0.2, 0.3])[2] == [10]  # stays below from 10 on, falls at 40
    assert found([0.2, 0.6, 0.2, 0.6, 0.6, 0.6])[:2] == ([True], [False])  # fell, and came back


def test_after_a_rise_only_what_had_risen_counts():
    rises, never, later = [0.2, 0.4, 0.4, 0.1, 0.1, 0.1], [0.2, 0.25, 0.1, 0.1, 0.1, 0.1], [0.2, 0.1, 0.1, 0.1, 0.5, 0.2]
    assert found(rises, never, later)[0] == [True, True, True]
    ever, _, step = found(rises, never, later, rise=0.1)
    assert ever == [True, False, True] and step[0] == 30 and step[2] == 50  # its dip at 10 came before it rose
    ended = np.array([35.0, 35.0, np.nan])
    assert found([0.2, 0.4, *[0.39] * 4], [0.2, 0.25, *[0.24] * 4], rises, ended_S=ended, rise=0.1)[0] == [True, False, True]
    assert found([0.2, 0.25, *[0.24] * 4], ended_S=ended[:1])[0] == [True]


def batches(accuracy: float, problems: int, steps: int, runs: int, seed: int = 0) -> np.ndarray:
    """Return the accuracy of batches of problems with 8 responses each, [runs, steps]: of a model that does not change, to
    which most problems are either easy or hard.
    """
    rng = np.random.default_rng(seed)
    chance = rng.beta(accuracy, 1 - accuracy, (runs, steps, problems))
    return rng.binomial(8, chance).mean(axis=2) / 8


@pytest.mark.parametrize("accuracy", [0.3, 0.5])
@pytest.mark.parametrize("problems, steps", [(8, 40), (16, 160), (2, 200), (128, 40)])
def test_batches_of_a_model_that_does_not_change_are_no_collapse(accuracy, problems, steps):
    curves = batches(accuracy, problems, steps, 2000)
    assert of_rollouts(curves, problems).ever.mean() < 0.01
    if problems < 16:  # as the figures are smoothed, an unlucky batch or three would be one
        assert of_rollouts(curves, None).ever.mean() > 0.1


def test_a_real_fall_of_small_batches_is_still_found():
    curves = np.hstack([batches(0.4, 8, 20, 500), batches(0.05, 8, 20, 500, seed=1)])
    fell = of_rollouts(curves, 8)
    assert fell.ever.mean() > 0.95 and np.nanmedian(fell.step) == pytest.approx(17, abs=6)
    slow = np.hstack([batches(0.4, 16, 20, 300), batches(0.25, 16, 140, 300, seed=1)])  # above half of its start
    assert not fallen(smoothed(slow, 16)).any(axis=1).all() and of_rollouts(slow, 16).ever.mean() > 0.9


def test_whether_rollouts_sank_is_asked_of_whole_runs():
    curve = np.r_[np.full(50, 0.4), np.full(50, 0.3)][None]
    assert of_rollouts(curve, 16).ever.all() and not of_rollouts(curve, 16, until=60).ever.any()


def test_smoothing_is_over_as_many_problems_as_said_also_at_the_ends():
    x = np.random.default_rng(0).random((1, 160))
    assert np.allclose(smoothed(x, 16)[0, 4:-4], np.convolve(x[0], np.ones(9) / 9, "valid"))  # 144 problems, at scale cpu
    assert (smoothed(x, 16)[0, :4] == smoothed(x, 16)[0, 4]).all()
    assert np.allclose(smoothed(x, 8)[0, 8:-8], np.convolve(x[0], np.ones(17) / 17, "valid"))
    assert np.allclose(smoothed(x, 200), smoothed(x, None))  # a twentieth of the run, as the figures
    assert np.allclose(smoothed(x[:, :4], 4), x[:, :4].mean())  # too few problems in the whole run


def test_a_claim_of_a_collapse_after_a_rise_counts_runs_that_had_risen(tmp_path):
    """OPCD falls in every unit, in four of them without having risen; without the key all ten would be counted."""
    claim = of("5a")
    curves = dict(fake(claim, "claimed").curves)
    falls = curves["opcd"]["accuracy"]
    straight = lambda t, s: max(0.05, 0.3 - 0.6 * t)  # noqa: E731
    curves["opcd"] = curves["opcd"] | {"accuracy": lambda t, s: falls(t, s) if s > 3 else straight(t, s)}
    row = verdict_of(claim, FakeRuns(curves), tmp_path)
    assert [each["collapsed"] for each in row["collapsed"]] == [6, 0] and row["effect"] == pytest.approx(0.6)
    assert row["reason"].endswith("; collapsed without having risen so far, not counted: opcd 4")
    any_fall = {key: value for key, value in claim.items() if key != "after_rise"}
    assert verdict_of(any_fall, FakeRuns(curves), tmp_path)["effect"] == 1
    curves["grpo"] = curves["grpo"] | {"accuracy": lambda t, s: straight(t, s) if s == 5 else usual("accuracy")(t, s)}
    row = verdict_of(claim, FakeRuns(curves), tmp_path)  # and so of the other method
    assert [each["collapsed"] for each in row["collapsed"]] == [6, 0] and "opcd 4, grpo 1" in row["reason"]
    assert STEPS == 80

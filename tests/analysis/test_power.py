"""The number of seeds: its formula by simulation, its components on data made with known ones, its file by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpg.analysis.comparisons import contrast
from sdpg.artefacts.power import MOST, Spread, power, sampling_variance, seeds_needed, spread
from tests.making import make

KNOWN = Spread(seeds=0.03**2, problems=0.1**2, rest=0.2**2, P=64)


def draw(rng, of: Spread, S: int, effect: float, trials: int) -> np.ndarray:
    """Differences [trials, S, P] of the two-way random-effects model."""
    seeds = rng.normal(0, np.sqrt(of.seeds), (trials, S, 1))
    problems = rng.normal(0, np.sqrt(of.problems), (trials, 1, of.P))
    return effect + seeds + problems + rng.normal(0, np.sqrt(of.rest), (trials, S, of.P))


@pytest.mark.parametrize(
    ("effect", "of"), [(0.06, KNOWN), (0.05, KNOWN._replace(seeds=0.08**2)), (0.2, KNOWN._replace(seeds=0.15**2))]
)
def test_the_seeds_needed_have_the_power_said_and_one_less_has_not(effect, of):
    S, trials = seeds_needed(effect, of), 1500
    assert power(effect, of, S) >= 0.8 > power(effect, of, S - 1)
    found = np.mean([contrast(d).p <= 0.05 for d in draw(np.random.default_rng(1), of, S, effect, trials)])
    assert found == pytest.approx(power(effect, of, S), abs=3.5 * np.sqrt(0.16 / trials) + 0.01)


def test_power_of_no_difference_is_alpha_and_power_grows():
    assert power(0, KNOWN, 5) == pytest.approx(0.05)
    grows = [power(0.05, KNOWN, S) for S in (2, 3, 5, 10, 100, 1000)]
    assert grows == sorted(grows)
    assert power(5.0, KNOWN, 5) == 1


def test_textbook_number_for_a_paired_t_test():
    """Cohen 1988: an effect of half a standard deviation takes 34 pairs for 80% at 5%, two-sided."""
    of = Spread(seeds=1.0, problems=0.0, rest=0.0, P=2)
    assert seeds_needed(0.5, of) == 34


def test_too_few_problems_cannot_be_made_good_by_seeds():
    assert seeds_needed(0.01, KNOWN._replace(seeds=0.0)) is None
    assert seeds_needed(0.0, KNOWN) is None
    assert seeds_needed(0.5, Spread(0.0, 0.0, 0.0, 8)) == 2


def test_components_are_recovered():
    rng = np.random.default_rng(2)
    found = np.mean([spread(d)[:3] for d in draw(rng, KNOWN, 6, 0.1, 400)], axis=0)
    assert found == pytest.approx(np.array(KNOWN[:3]), rel=0.12)
    assert spread(np.zeros((1, 5))) is None


def test_sampling_variance_is_that_of_repeated_sampling():
    rng = np.random.default_rng(3)
    p = rng.random(40)
    x = rng.binomial(8, p, (4000, 40)) / 8
    assert sampling_variance(x[:50], 8) == pytest.approx(x.mean(axis=1).var(), rel=0.1)
    assert np.isnan(sampling_variance(x, 1))


def test_file(full):
    rows = full.power
    assert len(rows) == 2 * 6 * 3
    row = rows.query("method == 'sdpg-ufkl' and other == 'opcd' and task == 'chain' and target == 'observed'").iloc[0]
    scores = full.scores.query("metric == 'mean@8' and task == 'chain' and step == 40")
    by = scores.pivot(index="seed", columns="method", values="value")
    difference = by["sdpg-ufkl"] - by["opcd"]
    assert row["difference"] == pytest.approx(difference.mean()) == row["effect"]
    total = row["sd_between"] ** 2 + row["sd_within"] ** 2
    assert total == pytest.approx(difference.var(ddof=1)) or row["sd_between"] == 0
    assert 2 <= row["seeds_needed"] <= MOST


def test_one_seed_gives_no_rows(full, tmp_path):
    (tmp_path / "eval").symlink_to(full.root / "eval")
    one = replace(full, root=tmp_path, seeds=(0,))
    (path,) = make("power", one)
    assert path.read_text().count("\n") == 1
    assert one.power.empty

"""The difference that so many units can find: its formula by simulation and by the textbook, its file by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpg.analysis.collapse import collapse
from sdpg.analysis.comparisons import Outcome, compare, pool
from sdpg.analysis.layout import residual
from sdpg.artefacts.power import COMPARISONS, PLANNED, detectable, power, problems_part
from tests.making import make

STEPS = np.array([0, 10])


def draw(rng, units: int, effect: float, sd: float = 0.03, methods: int = 6) -> dict[str, Outcome]:
    """Runs about their method and unit, none collapsed; method a is better by the effect."""
    x = 0.6 + rng.normal(0, 0.08, units) + rng.normal(0, sd, (methods, units))
    x[0] += effect
    healthy = collapse(np.full((units, 2), 0.6), STEPS)
    return {name: Outcome(row[:, None], healthy) for name, row in zip("abcdef", x, strict=False)}


@pytest.mark.parametrize("units", [5, 10, 20])
def test_the_detectable_difference_is_found_as_often_as_said(units):
    """Among six methods, of which four lend a pair their error unless its own is larger."""
    rng, trials = np.random.default_rng(1), 1000
    effect = detectable(0.03 * np.sqrt(2 / units), units - 1, rest_df=3 * (units - 1))
    drawn = [draw(rng, units, effect) for _ in range(trials)]
    p = np.array([compare("a", "b", made, pool(made), range(units)).difference.p for made in drawn])
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=3.5 * np.sqrt(0.16 / trials))


def test_textbook_number_for_a_paired_t_test():
    """Cohen 1988: half a standard deviation takes 34 pairs for 80% at 5%, two-sided."""
    assert detectable(1 / np.sqrt(34), 33) == pytest.approx(0.5, abs=0.01)
    assert power(0.5, 1 / np.sqrt(34), 33) >= 0.8 > power(0.5, 1 / np.sqrt(33), 32)


def test_power_of_no_difference_is_alpha_and_power_grows():
    assert power(0, 1.0, 9) == pytest.approx(0.05)
    grows = [power(effect, 1.0, 9) for effect in (0.5, 1, 2, 4, 40)]
    assert grows == sorted(grows) and grows[-1] == 1
    assert detectable(0.0, 9) == 0
    assert detectable(1.0, 9, 0.005) > detectable(1.0, 9)


def test_the_problems_part_is_what_more_units_do_not_reduce():
    rng = np.random.default_rng(2)
    taste = rng.normal(0, 0.2, (6, 1, 64))  # how much each method likes each problem
    healthy = collapse(np.full((4, 2), 0.6), STEPS)
    made = {name: Outcome(0.5 + taste[i] + np.zeros((4, 64)), healthy) for i, name in enumerate("abcdef")}
    expected = np.mean([(taste[i, 0] - taste[j, 0]).var(ddof=1) / 64 for i in range(6) for j in range(i)])
    assert problems_part(made, tuple("abcdef")) == pytest.approx(expected, rel=1e-6)
    one = {name: Outcome(of.x_SP[:, :1], healthy) for name, of in made.items()}
    assert problems_part(one, tuple("abcdef")) == 0


def test_file(full):
    rows = full.power
    assert set(rows["units"]) == {3, *PLANNED} and set(rows["comparisons"]) == set(COMPARISONS)
    assert len(rows) == 2 * 2 * 4 * 2
    late = full.scores.query("metric == 'mean@8' and task == 'chain' and step == 40")
    by = late.pivot(index="method", columns="seed", values="value")
    row = rows.query("task == 'chain' and measure == 'late' and units == 3 and comparisons == 10").iloc[0]
    kept = by if row["methods"] == 4 else by.drop("opcd")
    of = residual(kept.to_numpy())
    df = 2 * max(1, len(kept) - 2)
    assert (row["sd"], row["df"]) == (pytest.approx(np.sqrt(of.variance)), df)
    error = np.sqrt(2 * of.variance / 3 + row["se_problems"] ** 2)
    assert power(row["detectable"], error, 2, 0.005, rest_df=df - 2) == pytest.approx(0.8, abs=0.01)


def test_one_seed_gives_no_rows(full, tmp_path):
    (tmp_path / "eval").symlink_to(full.root / "eval")
    one = replace(full, root=tmp_path, seeds=(0,))
    (path,) = make("power", one)
    assert path.read_text().count("\n") == 1
    assert one.power.empty

"""Stability metrics against values worked out by hand, and stability.csv and its table from files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdpg.analysis.collapse import fallen
from sdpg.artefacts import matrix, stability
from sdpg.artefacts.stability import (
    ACCURACY,
    METRICS,
    TRAINING,
    drawdown,
    end,
    floor,
    last_minus_best,
    seed_spread,
    slope,
    spikes,
    text,
    training_metrics,
    worst,
)
from sdpg.artefacts.tables.stability import build
from tests.analysis.fake_results import write_analysis, write_results
from tests.making import make

ROLLOUTS = {"rollouts_collapsed", "rollouts_collapse_step"}
METRICS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_accuracy_metrics_by_hand():
    curve = np.array([0.5, 0.2, 0.4, 0.3])
    assert last_minus_best(curve) == pytest.approx(0.3 - 0.4)  # 0.5 is the base model: no candidate
    assert drawdown(curve) == pytest.approx(0.5 - 0.2)  # but falling from it counts
    assert drawdown(np.array([0.1, 0.6, 0.5, 0.7, 0.45])) == pytest.approx(0.25)  # the later fall, not first to last
    assert drawdown(np.array([0.1, 0.2, 0.3])) == 0
    assert seed_spread(np.array([0.1, 0.3])) == pytest.approx(math.sqrt(0.02))
    assert math.isnan(seed_spread(np.array([0.1])))


def test_one_checkpoint_has_neither_fallen_nor_a_better_one():
    curve = np.array([0.4])
    assert (last_minus_best(curve), drawdown(curve), bool(fallen(curve).any())) == (0, 0, False)


def test_training_metrics_by_hand():
    values = np.array([*range(18, -1, -1), 100.0])  # 20 steps: means of two neighbours
    assert floor(values) == pytest.approx(0.5)
    assert end(values) == pytest.approx((0 + 100) / 2)
    assert floor(np.array([3.0, 1.0])) == 1 and end(np.array([3.0, 1.0])) == 1  # short runs: single steps
    assert slope(np.array([9.0, 9, 9, 9, 1.0, 3.0, 5.0, 7.0])) == pytest.approx(200)  # the second half alone: 2 a step
    assert math.isnan(slope(np.array([1.0, 2.0])))  # its second half is one step


def test_spikes_by_hand():
    norms = np.ones(30)
    norms[[3, 10, 20]] = 100.0, 3.1, 3.0  # step 3 has too few before it; three times the median is no spike
    assert spikes(norms) == pytest.approx(1 / 25)
    jump = np.array([1.0] * 10 + [10.0] * 30)
    # The median of the 20 steps before is 1 until ten of them are 10 (then 5.5), and 10 after that: ten spikes.
    assert spikes(jump) == pytest.approx(10 / 35)
    assert spikes(np.zeros(30) + 1e-9 * (np.arange(30) == 29)) == 0  # nothing is a multiple of a median of 0
    assert math.isnan(spikes(np.ones(5)))


def run(steps=20, **columns) -> pd.DataFrame:
    """A metrics frame: ones, but for `columns`."""
    return pd.DataFrame({name: np.ones(steps) for name in stability.READ} | columns)


def test_a_run_by_hand():
    length = np.array([20.0, *[30.0] * 17, 4.0, 6.0])
    kl = np.array([*[0.1] * 10, 7.0, *[0.1] * 7, 0.2, 0.4])
    informative = np.array([0.5] * 18 + [0.0, 0.1])
    values = training_metrics(
        run(response_length=length, kl_ref=kl, informative_groups=informative, truncated=np.arange(20) / 20)
    )
    assert set(values) == set(TRAINING) - ROLLOUTS
    assert values["length_floor"] == pytest.approx(5 / 20)
    assert (values["kl_ref_max"], values["kl_ref_last"]) == pytest.approx((7, 0.3))
    assert (values["informative_mean"], values["informative_last"]) == pytest.approx((9.1 / 20, 0.05))
    assert (values["truncated_max"], values["truncated_last"]) == pytest.approx((0.95, 0.925))


def test_without_a_reference_there_is_no_kl():
    for kl in (np.full(20, None), np.array([None] + [0.1] * 19)):
        values = training_metrics(run(kl_ref=kl))
        assert math.isnan(values["kl_ref_max"]) and math.isnan(values["kl_ref_last"])


def test_the_file_holds_every_metric_of_every_run(full):
    frame = stability.read(full)
    assert not frame.duplicated(["method", "seed", "task", "metric"]).any()
    counts = frame.groupby("metric").size()
    runs, methods, tasks = len(full.runs), len(full.methods), len(full.tasks)
    assert counts.to_dict() == {
        **dict.fromkeys(ACCURACY, runs * tasks),
        "seed_spread": methods * tasks,
        **dict.fromkeys(TRAINING, runs),
    }
    null = frame[frame["value"].isna() & ~frame["metric"].str.contains("collapse_step")]
    assert set(zip(null["method"], null["metric"], strict=True)) == {("opcd", "kl_ref_max"), ("opcd", "kl_ref_last")}


def test_the_file_agrees_with_the_scores_and_the_runs(full):
    frame = stability.read(full).query("method == 'grpo'").set_index("metric")
    curves = full.scores.query("method == 'grpo' and task == 'chain' and metric == 'mean@8'")
    curves = curves.pivot(index="step", columns="seed", values="value")
    for seed in full.seeds:
        own = frame[frame["seed"] == seed]
        fall = max(curves.loc[i, seed] - curves.loc[j, seed] for i in curves.index for j in curves.index if i <= j)
        chain = own[own["task"] == "chain"]["value"]
        assert chain["drawdown"] == pytest.approx(fall)
        down = curves[seed] < 0.5 * curves[seed].cummax()
        assert (chain["collapsed"], chain["collapsed_end"]) == (down.any(), down.iloc[-1])
        metrics = full.run_metrics("grpo", seed)
        assert own["value"]["gate_fraction"] == pytest.approx(metrics["gate_fraction"].mean())
        assert own["value"]["kl_ref_last"] == pytest.approx(metrics["kl_ref"].tail(4).mean())  # 40 steps
    spread = stability.read(full).query("method == 'grpo' and task == 'chain' and metric == 'seed_spread'")["value"]
    assert spread.item() == pytest.approx(curves.iloc[-1].std(ddof=1))


def test_a_collapse_has_its_step(full, tmp_path):
    """opcd's runs begin at .22 and end at .06 on chain; the rollouts of the fake runs fall too."""
    own = stability.read(full).query("method == 'opcd'")
    fell = own[(own["task"] == "chain") & (own["metric"] == "collapsed")].set_index("seed")["value"]
    steps = own[(own["task"] == "chain") & (own["metric"] == "collapse_step")].set_index("seed")["value"]
    assert fell.sum() > 0 and steps[fell == 1].isin([20, 40]).all() and steps[fell == 0].isna().all()
    rolled = own[own["metric"] == "rollouts_collapse_step"].set_index("seed")["value"]
    assert rolled.between(1, 40).any()


def test_the_matrix_counts_the_same_collapses(full):
    cells = matrix.matrix([full]).set_index(["task", "method"])["collapsed"]
    counted = stability.read(full).query("metric == 'collapsed'").groupby(["task", "method"])["value"].sum()
    assert cells.sort_index().to_dict() == counted.to_dict()


def test_one_seed_and_two_checkpoints(tmp_path):
    tree = write_results(
        tmp_path / "fake", methods=("sdpg-ufkl", "opcd"), seeds=(0,), steps=4, every=4, problems=3, lm_eval=False
    )
    write_analysis(tree)
    frame = stability.read(tree)
    null = frame[frame["value"].isna() & ~frame["metric"].str.contains("collapse_step")].groupby("method")["metric"].agg(set)
    assert null["sdpg-ufkl"] == {"seed_spread", "gradient_spikes"}
    assert null["opcd"] == null["sdpg-ufkl"] | {"kl_ref_max", "kl_ref_last"}
    table = build(tree)
    cells = dict(zip([name for _, name in table.columns], table.rows[1][1], strict=False))
    assert cells["seed spread"].text == "–" and "(" not in cells["last − best"].text


def test_the_table_shows_the_mean_and_the_worst_seed(full):
    table = build(full)
    data = table.data.query("method == 'grpo' and task == 'chain'").set_index("metric")
    values = stability.read(full).query("method == 'grpo' and task == 'chain'").groupby("metric")["value"]
    assert data["mean"].to_dict() == pytest.approx(values.mean().to_dict(), nan_ok=True)
    assert data.loc["drawdown", "worst_seed"] == values.max()["drawdown"]
    assert data.loc["last_minus_best", "worst_seed"] == values.min()["last_minus_best"]
    cells = dict(zip(table.columns, dict(table.rows)["opcd"], strict=True))
    assert cells[("training", "KL to ref. max")].text == "–"
    fell = stability.read(full).query("method == 'opcd' and task == 'chain' and metric == 'collapsed'")["value"].sum()
    assert cells[("chain", "collapsed")].text == f"{fell:.0f} of 3"
    assert "in brackets the worst one" in table.caption


def test_the_worst_seed_follows_the_bad_direction():
    values = pd.Series([0.1, 0.4])
    assert (worst("drawdown", values), worst("length_floor", values)) == (0.4, 0.1)
    assert math.isnan(worst("gate_fraction", values))


@pytest.mark.parametrize(
    "value, shown", [(0.0, "0.00"), (-0.1, "−0.10"), (0.0123, "0.012"), (1e-6, "1e−6"), (float("nan"), "–"), (12.345, "12.35")]
)
def test_numbers_as_they_are_shown(value, shown):
    assert text(value) == shown


def test_a_run_without_a_column_is_named(results):
    path = results.run_dir("grpo", 1) / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["grad_norm"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"grpo/seed1/metrics.jsonl has no value for grad_norm in some rows"):
        make("stability", replace(results))


def test_a_table_of_another_config_is_refused(results):
    path = results.root / "stability.csv"
    stability.read(results).query("seed != 1").to_csv(path, index=False)
    with pytest.raises(ValueError, match="stability.csv has 1 rows for last_minus_best of sdpg-ufkl on chain, expected 2"):
        build(results)


def test_every_metric_is_defined_with_its_direction():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", METRICS_PAGE.read_text(encoding="utf-8"), re.M)
    directions = {name: bad.strip() for name, _, bad, _ in rows}
    assert set(METRICS) <= set(directions)
    for name, metric in METRICS.items():
        assert directions[name].split(":")[0] == (metric.bad or "depends"), name


def test_the_constants_of_spikes_are_those_of_the_page():
    page = METRICS_PAGE.read_text(encoding="utf-8")
    assert f"{stability.SPIKE_FACTOR:.0f} times the median of the {stability.SPIKE_WINDOW} steps before" in page
    assert f"at least {stability.SPIKE_LEAST} before" in page

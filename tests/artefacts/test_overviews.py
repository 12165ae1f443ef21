"""The figures of stability, cost and decomposition: that what is drawn is what the summaries hold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sdpg.analysis.intervals import Share
from sdpg.artefacts.cost import budgets
from sdpg.artefacts.cost import read as read_cost
from sdpg.artefacts.figures import cost, decomposition, stability
from sdpg.artefacts.figures.names import BASE, label
from sdpg.artefacts.stability import read as read_stability
from tests.artefacts.drawings import lines, texts_of, titled
from tests.making import make

# --- stability ---------------------------------------------------------------------------------------------------------


def test_four_numbers_each_with_its_seeds(tree):
    figure, data = stability.draw(tree)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "(a) collapsed",
        "(b) largest fall",
        "(c) truncated",
        "(d) final KL",
    ]
    frame = read_stability(tree)
    for ax, metric in zip(figure.axes, stability.SHOWN, strict=True):
        for y, method in enumerate(tree.methods):
            own = frame.query("method == @method and metric == @metric").groupby("seed")["value"].max()  # over the sets
            if own.isna().all():
                continue
            row = data.query("method == @method and metric == @metric and seed.isna()")
            assert row["value"].item() == pytest.approx(own.mean())
            (point,) = lines(ax, label(method))
            assert point.get_xydata().tolist() == [[row["value"].item(), y]]
            circles = [line for line in lines(ax, "_seeds") if round(line.get_ydata()[0]) == y]
            if metric == "rollouts_collapsed":
                assert not circles  # 0 or 1 of each run
                assert row[["low", "high"]].iloc[0].tolist() == list(Share(int(own.sum()), len(own)).interval())
            else:
                np.testing.assert_allclose(circles[0].get_xdata(), own)
        assert ax.get_xlim()[0] == 0


def test_a_metric_that_a_method_has_not_is_a_dash(tree):
    figure, data = stability.draw(tree)
    (dash,) = figure.axes[-1].texts
    assert dash.get_text() == "–" and dash.get_position()[1] == tree.methods.index("opcd")
    assert data.query("metric == 'kl_ref_last' and method == 'opcd'")["value"].isna().all()


def test_a_large_kl_does_not_hide_the_small_ones(tree, tmp_path):
    frame = read_stability(tree)
    frame.loc[(frame["metric"] == "kl_ref_last") & (frame["method"] == "grpo"), "value"] = 2e5
    frame.to_csv(tmp_path / "stability.csv", index=False)
    ax = stability.draw(replace(tree, root=tmp_path))[0].axes[-1]
    places = {
        name: ax.transAxes.inverted().transform(ax.transData.transform((value, 0)))[0]
        for name, value in (("one", 1), ("grpo", 2e5))
    }
    assert 0.1 < places["one"] < places["grpo"] < 1


def test_one_seed_and_two_checkpoints_are_drawn(make_tree):
    tree = make_tree(methods=("grpo", "opcd"), seeds=(0,), problems=3, steps=4, every=4, lm_eval=False)
    for module in (stability, cost):
        figure, data = module.draw(tree)
        assert len(data) > 0
        assert texts_of(figure)[0] != "mean over 1 seeds"


# --- cost --------------------------------------------------------------------------------------------------------------


def test_lines_are_means_of_cost_and_accuracy_at_each_checkpoint(tree):
    figure, data = cost.draw(tree)
    assert len(figure.axes) == 2 * len(tree.tasks)
    frame = read_cost(tree).query("task == 'chain' and method == 'grpo'")
    ax = figure.axes[0]
    assert ax.get_xlabel() == "generated tokens (thousand)"
    (line,) = lines(ax, "GRPO")
    np.testing.assert_allclose(line.get_xdata(), frame.groupby("step")["tokens"].mean() / 1000)
    np.testing.assert_allclose(line.get_ydata(), frame.groupby("step")["accuracy"].mean())
    rows = data.query("task == 'chain' and axis == 'tokens' and method == 'grpo'")
    np.testing.assert_allclose(rows.query("part == 'curve'")["cost"], frame.groupby("step")["tokens"].mean())
    thin = rows.query("part == 'run' and seed == 1")
    np.testing.assert_allclose(thin[["cost", "accuracy"]], frame.query("seed == 1")[["tokens", "accuracy"]])
    (dotted,) = lines(ax, "_budget")
    limit = budgets(read_cost(tree))["tokens"][0]
    assert dotted.get_xdata()[0] == pytest.approx(limit / 1000)
    assert set(data.query("axis == 'tokens' and part == 'budget'")["cost"]) == {limit}


def test_seconds_stand_where_no_run_has_recorded_flops(tree):
    figure, data = cost.draw(tree)
    assert set(data["axis"]) == {"tokens", "seconds"}
    assert figure.axes[1].get_xlabel() == "seconds of training"


def test_flops_are_drawn_where_they_are_recorded(make_tree):
    tree = make_tree(methods=("sdpg-ufkl", "grpo"), seeds=(0,), problems=3, steps=4, every=2, lm_eval=False)
    path = tree.run_dir("grpo", 0) / "metrics.jsonl"
    rows = [json.loads(line) | {"flops": 2e12} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make("cost", replace(tree))
    figure, data = cost.draw(tree)
    ax = figure.axes[1]
    assert ax.get_xlabel() == "teraFLOPs\nnot recorded: SDPG-UFKL"
    (line,) = lines(ax, "GRPO")
    assert line.get_xdata().tolist() == [0, 4, 8]
    assert set(data.query("axis == 'flops' and part == 'curve'")["method"]) == {"grpo"}


@pytest.mark.parametrize(
    "axis, largest, name, divisor",
    [
        ("tokens", 900, "generated tokens", 1),
        ("tokens", 2.5e6, "generated tokens (million)", 1e6),
        ("flops", 3e15, "petaFLOPs", 1e15),
        ("flops", None, "FLOPs", 1),
        ("seconds", 1e5, "seconds of training", 1),
    ],
)
def test_units(axis, largest, name, divisor):
    assert cost.units(axis, largest) == (name, divisor)


def test_of_many_methods_the_control_of_equal_compute_is_shown_too(make_tree):
    methods = ("sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd", "opsd", "grpo-double", "grpo-equal-compute")
    tree = make_tree(methods=methods, seeds=(0,), problems=3, steps=4, every=2, lm_eval=False)
    assert set(cost.draw(tree)[1].query("part != 'budget'")["method"]) == {*methods, BASE} - {"opsd"}


# --- decomposition -----------------------------------------------------------------------------------------------------


def test_the_bars_are_the_rows_of_the_summary(comparison):
    figure, data = decomposition.draw(comparison)
    pd.testing.assert_frame_equal(data, decomposition.read(comparison)[decomposition.COLUMNS])
    for title, source, task in (("(a) aime24", "runs", "aime24"), ("(e) published: aime25", "published", "aime25")):
        ax = titled(figure, title)
        rows = data[(data["source"] == source) & (data["task"] == task)].reset_index(drop=True)
        bars = [patch for container in ax.containers for patch in container.patches]
        drawn = rows[rows["kind"].isin(["change", "together"])]
        np.testing.assert_allclose([bar.get_x() for bar in bars], drawn["before"])
        np.testing.assert_allclose([bar.get_width() for bar in bars], drawn["difference"])
        np.testing.assert_allclose([bar.get_y() + bar.get_height() / 2 for bar in bars], drawn.index)
        intervals = [line.get_xdata() for line in lines(ax, "_interval")]
        known = drawn[drawn["low"].notna()]
        np.testing.assert_allclose(intervals or np.empty((0, 2)), known[["low", "high"]].add(known["before"], axis=0))
        assert len(ax.texts) == len(rows)
        assert ax.get_xlim()[0] <= 0  # below where an interval is
        assert ax.get_xlim()[1] >= max(drawn["before"] + drawn["difference"].clip(lower=0))
    assert len(lines(titled(figure, "(e) published: aime25"), "_interval")) == 0


def test_colours_say_gain_loss_and_what_cannot_be_told_from_nothing(comparison, tmp_path):
    frame = decomposition.read(comparison).query("source == 'runs' and task == 'aime24' or source == 'published'").copy()
    change = (frame["kind"] == "change") & (frame["source"] == "runs")
    frame.loc[change, ["difference", "low", "high"]] = [0.1, -0.1, 0.3]
    frame.loc[frame.index[change][0], ["difference", "low", "high"]] = [-0.2, -0.3, -0.1]
    frame.to_csv(tmp_path / "decomposition.csv", index=False)
    ax = titled(decomposition.draw(replace(comparison, root=tmp_path))[0], "(a) aime24")
    looks = [(bar.get_facecolor()[:3], bar.get_alpha()) for bars in ax.containers for bar in bars.patches]
    from matplotlib.colors import to_rgb

    assert looks[0] == (to_rgb(decomposition.DOWN), 1)
    assert looks[1] == (to_rgb(decomposition.UP), decomposition.PALE)

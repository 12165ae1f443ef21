"""The figures of stability, cost and decomposition: that what is drawn is what the summaries hold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sdpg.artefacts.cost import budgets
from sdpg.artefacts.cost import read as read_cost
from sdpg.artefacts.figures import cost, decomposition, stability
from sdpg.artefacts.stability import METRICS
from sdpg.artefacts.stability import read as read_stability
from tests.artefacts.drawings import lines, titled
from tests.making import make

# --- stability ---------------------------------------------------------------------------------------------------------


def test_every_cell_shows_its_mean_its_seeds_and_its_shade(tree):
    figure, data = stability.draw(tree)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["accuracy: chain", "accuracy: chain-long", "training"]
    values = read_stability(tree).query("task == 'chain' and metric == 'drawdown'")
    ax = titled(figure, "accuracy: chain")
    x, methods = stability.ON_SETS.index("drawdown"), list(tree.methods)
    means = values.groupby("method")["value"].mean()[methods]
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    shown = data.query("task == 'chain' and metric == 'drawdown' and seed.isna()").set_index("method")
    low, high = values["value"].min(), values["value"].max()
    for y, method in enumerate(methods):
        assert texts[(x + 0.5, y - 0.14)] == stability.text(means[method])
        assert shown.loc[method, "value"] == pytest.approx(means[method])
        (box,) = [p for p in ax.patches if p.get_label() == "_shade" and p.get_xy() == (x, y - 0.5)]
        assert box.get_alpha() == pytest.approx(stability.DEEPEST * shown.loc[method, "shade"])
        (circles,) = [
            line for line in lines(ax, "_seeds") if line.get_ydata()[0] == y + 0.27 and x <= line.get_xdata()[0] <= x + 1
        ]
        own = values.query("method == @method")["value"]
        np.testing.assert_allclose(circles.get_xdata(), x + 0.1 + 0.8 * (own - low) / (high - low))


def test_shades_by_hand():
    np.testing.assert_allclose(stability.shades("drawdown", [0.0, 0.3, 0.6]), [0, 0.5, 1])
    np.testing.assert_allclose(stability.shades("length_floor", [0.2, 1.0]), [1, 0])
    span = METRICS["drawdown"].span
    np.testing.assert_allclose(stability.shades("drawdown", [0.0, span / 10]), [0, 0.1])  # a small difference stays light
    np.testing.assert_allclose(stability.shades("kl_ref_last", [np.nan, 0.1, 5.1]), [0, 0, 1])
    assert not stability.shades("gate_fraction", [0.0, 1.0]).any()  # neither is bad
    assert not stability.shades("drawdown", [np.nan]).any()


def test_a_metric_that_a_method_has_not_is_a_dash(tree):
    figure, data = stability.draw(tree)
    x, y = stability.SHOWN.index("kl_ref_last"), tree.methods.index("opcd")
    texts = {text.get_position(): text.get_text() for text in titled(figure, "training").texts}
    assert texts[(x + 0.5, y - 0.14)] == "–"
    rows = data.query("metric == 'kl_ref_last' and method == 'opcd'")
    assert len(rows) == 1 and rows["shade"].item() == 0


def test_one_seed_and_two_checkpoints_are_drawn(make_tree):
    tree = make_tree(methods=("grpo", "opcd"), seeds=(0,), problems=3, steps=4, every=4, lm_eval=False)
    for module in (stability, cost):
        figure, data = module.draw(tree)
        assert len(data) > 0
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "one seed (no band)" in texts


# --- cost --------------------------------------------------------------------------------------------------------------


def test_lines_are_means_of_cost_and_accuracy_at_each_checkpoint(tree):
    figure, data = cost.draw(tree)
    frame = read_cost(tree).query("task == 'chain' and method == 'grpo'").groupby("step")
    ax = figure.axes[1]
    assert ax.get_xlabel() == "generated tokens (thousand)"
    (line,) = lines(ax, "GRPO")
    np.testing.assert_allclose(line.get_xdata(), frame["tokens"].mean() / 1000)
    np.testing.assert_allclose(line.get_ydata(), frame["accuracy"].mean())
    rows = data.query("task == 'chain' and axis == 'tokens' and method == 'grpo'")
    np.testing.assert_allclose(rows["cost"], frame["tokens"].mean())
    np.testing.assert_allclose(rows["high"], frame["accuracy"].max())
    (dotted,) = lines(ax, "_budget")
    assert dotted.get_xdata()[0] == pytest.approx(budgets(read_cost(tree))["tokens"][0] / 1000)


def test_what_is_not_recorded_is_said_and_not_drawn(tree):
    figure, data = cost.draw(tree)
    assert "flops" not in set(data["axis"])
    assert [text.get_text() for text in figure.axes[2].texts] == ["not recorded in these runs"]
    assert not figure.axes[2].get_lines()


def test_flops_are_drawn_where_they_are_recorded(make_tree):
    tree = make_tree(methods=("sdpg-ufkl", "grpo"), seeds=(0,), problems=3, steps=4, every=2, lm_eval=False)
    path = tree.run_dir("grpo", 0) / "metrics.jsonl"
    rows = [json.loads(line) | {"flops": 2e12} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make("cost", replace(tree))
    figure, data = cost.draw(tree)
    ax = figure.axes[2]
    assert ax.get_xlabel() == "teraFLOPs"
    (line,) = lines(ax, "GRPO")
    assert line.get_xdata().tolist() == [0, 4, 8]
    assert [text.get_text() for text in ax.texts] == ["not recorded: SDPG-UFKL"]
    assert set(data.query("axis == 'flops'")["method"]) == {"grpo"}


@pytest.mark.parametrize(
    "axis, largest, label, divisor",
    [
        ("tokens", 900, "generated tokens", 1),
        ("tokens", 2.5e6, "generated tokens (million)", 1e6),
        ("flops", 3e15, "petaFLOPs", 1e15),
        ("flops", None, "FLOPs", 1),
        ("seconds", 1e5, "seconds of training", 1),
    ],
)
def test_units(axis, largest, label, divisor):
    assert cost.units(axis, largest) == (label, divisor)


def test_of_many_methods_the_control_of_equal_compute_is_shown_too(make_tree):
    methods = ("sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd", "opsd", "grpo-double")
    tree = make_tree(methods=methods, seeds=(0,), problems=3, steps=4, every=2, lm_eval=False)
    assert set(cost.draw(tree)[1]["method"]) == {"sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd", "grpo-double"}


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

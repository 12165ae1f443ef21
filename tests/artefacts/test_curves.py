"""Curves over the training steps: the training curves, and the figures that compare certain methods with the paper's."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sdpg.artefacts import declared
from sdpg.artefacts.figures import curves, final_accuracy, self_distillation, training_curves
from sdpg.artefacts.figures import lines as lines_module
from sdpg.artefacts.figures.names import BASE, label
from sdpg.artefacts.figures.style import method_styles
from sdpg.config import resolve
from sdpg.config.files import SCALES
from tests.artefacts.drawings import MANY, SHOWN, lines, names, texts_of
from tests.making import make


def test_training_curves_csv_is_what_is_drawn(drawn):
    figure, data = drawn["figures/training_curves"]
    panels = dict(zip(data["panel"].unique(), figure.axes, strict=True))
    labels = {"sdpg-ufkl": "SDPG-UFKL", "grpo": "GRPO", "opcd": "OPCD"}
    for (panel, method), rows in data[data["method"] != BASE].groupby(["panel", "method"]):
        (line,) = lines(panels[panel], labels[method])
        np.testing.assert_allclose(line.get_xydata(), rows[rows["seed"].isna()][["step", "value"]].to_numpy())
    for panel, rows in data[data["seed"].notna()].groupby("panel"):
        thin = np.concatenate([line.get_xydata() for line in lines(panels[panel], "_seed")])
        np.testing.assert_allclose(thin, rows[["step", "value"]].to_numpy())


def test_training_curves_numbers_by_hand(tree, drawn):
    data = drawn["figures/training_curves"][1]
    scores = tree.scores.query("method == 'grpo' and task == 'chain' and metric == 'mean@8' and step == 40")
    rows = data.query("panel == 'chain' and method == 'grpo' and step == 40")
    assert rows[rows["seed"].isna()]["value"].item() == pytest.approx(scores["value"].mean())
    assert sorted(rows.dropna()["value"]) == pytest.approx(sorted(scores["value"]))
    rewards = tree.metrics.query("method == 'grpo'").pivot(index="step", columns="seed", values="reward")
    rows = data.query("panel == 'reward' and method == 'grpo'")
    mean = rows[rows["seed"].isna()].set_index("step")["value"]
    assert mean[40] == pytest.approx(rewards.loc[38:42].to_numpy().mean())  # 80 steps: five around each
    assert mean[1] == pytest.approx(rewards.loc[1:3].to_numpy().mean())  # shorter at the ends, never shifted
    thin = rows.query("seed == 0").set_index("step")["value"]
    assert thin.index[-1] == 80 and len(thin) < len(mean)
    assert thin[80] == pytest.approx(rewards.loc[78:80, 0].mean())


def test_accuracy_begins_at_0_and_the_base_model_is_marked(tree, drawn):
    figure, data = drawn["figures/training_curves"]
    for task, ax in zip(tree.tasks, figure.axes, strict=False):
        scores = tree.scores[tree.scores["task"] == task].query("metric == 'mean@8' and step == 0")["value"]
        assert data[(data["panel"] == task) & (data["method"] == BASE)]["value"].item() == pytest.approx(scores.mean())
        assert ax.get_ylim()[0] == 0
        assert lines(ax, "_base")[0].get_ydata()[0] == pytest.approx(scores.mean())
    assert not lines(figure.axes[-1], "_base")


@pytest.mark.parametrize("name", SHOWN)
def test_a_comparison_is_the_training_curves_of_its_methods(comparison, drawn, name):
    figure, data = drawn[name]
    runs = data.query("source == 'runs'").drop(columns="source").reset_index(drop=True)
    all_runs = curves.draw(comparison, method_styles(comparison.methods))[1]
    expected = all_runs[all_runs["method"].isin([*SHOWN[name], BASE])]
    order = ["panel", "method", "seed", "step"]
    pd.testing.assert_frame_equal(runs.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True))
    assert set(runs["method"]) == {*SHOWN[name], BASE}
    said = names(figure)
    labels = declared()[name].module.LABELS if name == "figures/ablations" else {}
    panels = dict(zip(runs["panel"].unique(), figure.axes, strict=True))
    for (panel, method), rows in runs[runs["method"] != BASE].groupby(["panel", "method"]):
        label = labels.get(method, method_styles([method])[method].label)
        assert said.count(label) >= len(panels)  # named beside each of its lines
        (line,) = lines(panels[panel], label)
        np.testing.assert_allclose(line.get_xydata(), rows[rows["seed"].isna()][["step", "value"]].to_numpy())


def test_ablations_are_named_by_what_is_left_out(drawn):
    said = names(drawn["figures/ablations"][0])
    for name in ("SDPG-URKL in full", "without distillation", "without anchor", "without gate", "without schedule", "GRPO"):
        assert name in said


@pytest.mark.parametrize(
    "name, method, published, label, reward",  # reward: the first value that the paper's figure shows
    [
        ("figures/ablations", "rpg", "sdpg-urkl-beta0", "without distillation", -0.607),
        ("figures/self_distillation", "opcd", "opcd", "OPCD", -0.947),
    ],
)
def test_published_curves_lie_over_the_same_benchmarks(comparison, drawn, name, method, published, label, reward):
    figure, data = drawn[name]
    number = "fig5" if name == "figures/ablations" else "fig6"
    overlaid = data.query("source == 'published'")
    assert set(overlaid["panel"]) == {"aime24", "aime25", "amc23", "reward", "entropy", "response_length"}
    ours = {"rpg": "sdpg-urkl-beta0", "sdpg-no-anchor": "sdpg-urkl-alpha0"}
    there = set(comparison.published_curves.query("figure == @number")["method"])
    assert set(overlaid["method"]) == {m for m in SHOWN[name] if ours.get(m, m) in there}
    for ax, panel in zip(figure.axes, overlaid["panel"].unique(), strict=True):
        curve = comparison.published_curves.query("figure == @number and method == @published and metric == @panel")
        (line,) = lines(ax, f"_published {label}")
        assert line.get_linestyle() == "--"
        values = (curve["value"] + 1) / 2 if panel == "reward" else curve["value"]  # our runs count 0 and 1
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([curve["step"], values]))
        rows = overlaid.query("panel == @panel and method == @method")
        np.testing.assert_allclose(line.get_xydata(), rows[["step", "value"]].to_numpy())
        if panel == "reward":
            assert line.get_ydata()[0] == pytest.approx((reward + 1) / 2)
    assert all(ax.get_ylim()[0] >= 0 for ax in figure.axes)
    assert any(text.startswith("published: Qwen3-") and f"Figure {number[-1]}" in text for text in texts_of(figure))


def test_published_rewards_follow_the_scale_of_the_runs(make_tree):
    tree = make_tree(methods=("grpo", "opcd"), seeds=(0,), tasks=("amc23",), problems=3, steps=4, every=2)
    for method in tree.methods:
        path = tree.run_dir(method, 0) / "run.json"
        path.write_text(path.read_text().replace('"train": {', '"train": {"reward": [-1, 1], '))
        path = tree.run_dir(method, 0) / "metrics.jsonl"
        path.write_text(path.read_text().replace('"reward": 0', '"reward": -0'))
    figure, data = self_distillation.draw(tree)
    rewards = data.query("panel == 'reward' and method == 'grpo'").set_index("step")["value"]
    published = data.query("panel == 'reward' and method == 'grpo' and source == 'published'")
    assert published["value"].iloc[0] == -0.947
    assert figure.axes[1].get_ylim()[0] < rewards.min()  # nothing below 0 is cut off


@pytest.mark.parametrize(
    "tasks, panels",
    [
        (("chain", "chain-long"), []),
        (("aime24", "chain"), ["aime24"]),  # lengths and entropies of other problems do not compare
        (("reward",), []),
        (("amc23",), ["amc23", "reward", "entropy", "response_length"]),
    ],
)
def test_panels_that_correspond_to_the_papers(comparison, tasks, panels):
    published = set(comparison.published_curves["metric"])
    assert curves.corresponding(tasks, published) == panels


@pytest.mark.parametrize("name", SHOWN)
def test_other_sets_have_no_published_curves(make_tree, name):
    tree = make_tree(methods=SHOWN[name][-2:], seeds=(0,), problems=3, steps=4, every=2, lm_eval=False)
    figure, data = declared()[name].module.draw(tree)
    assert set(data["source"]) == {"runs"}
    assert not [line for ax in figure.axes for line in ax.get_lines() if line.get_label().startswith("_published")]
    assert not [text for text in texts_of(figure) if "published" in text]


@pytest.mark.parametrize(
    "methods, message", [(("grpo", "gspo"), "has only grpo of them"), (("gspo", "dapo"), "has none of them")]
)
@pytest.mark.parametrize("name", SHOWN)
def test_a_comparison_of_one_method_is_refused(comparison, tmp_path, name, methods, message):
    (tmp_path / "scores.csv").symlink_to(comparison.root / "scores.csv")
    with pytest.raises(ValueError, match=message):
        make(name, replace(comparison, root=tmp_path, methods=methods))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("steps, window", [(4, 1), (39, 1), (40, 3), (160, 9), (400, 21)])
def test_smoothing_window(steps, window):
    assert curves.smoothing_window(steps) == window


def test_smoothing_and_what_lines_are_is_stated(drawn):
    texts = texts_of(drawn["figures/training_curves"][0])
    assert "rollout metrics: mean of 5 steps around each step" in texts
    assert texts[:3] == ["mean over 3 seeds", "one seed", "base model, before training"]


def test_of_many_methods_the_curves_show_those_of_the_papers_tables(make_tree):
    tree = make_tree(methods=MANY, seeds=(0, 1), problems=3, steps=40, lm_eval=False)
    headline = {"sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd"}
    assert set(training_curves.draw(tree)[1]["method"]) == {*headline, BASE}
    data = final_accuracy.draw(tree)[1]
    assert set(data.query("part == 'curve'")["method"]) == headline
    assert set(data.query("part == 'last'")["method"]) == set(MANY)


def test_task_without_process_accuracy_shows_truncation_instead(make_tree):
    tree = make_tree(methods=("grpo",), tasks=("a", "b"), seeds=(0,), process=False, problems=3, steps=4, every=2)
    figure, data = training_curves.draw(tree)
    assert "process_accuracy" not in set(data["panel"])
    assert "truncated" in set(data["panel"])
    assert texts_of(figure)[0] == "one seed"
    assert data["seed"].isna().all()  # the run is its mean


def test_names_stand_as_near_as_they_can_without_an_overlap():
    spread = lines_module.spread
    np.testing.assert_allclose(spread([10, 50, 90], [8, 8, 8], 100), [10, 50, 90])  # nothing to do
    np.testing.assert_allclose(spread([50, 50], [8, 8], 100), [46, 54])
    np.testing.assert_allclose(spread([52, 50, 20], [8, 16, 8], 100), [57, 45, 20])
    np.testing.assert_allclose(spread([99, 1], [8, 8], 100), [96, 4])  # not beyond the ends
    places = spread([5, 5, 5], [8, 8, 8], 12)  # no room: around the middle
    np.testing.assert_allclose(places, [-2, 6, 14])
    assert len(spread([], [], 10)) == 0


@pytest.mark.parametrize("scale", [path.stem for path in sorted(SCALES.glob("*.yaml"))])
def test_methods_are_named_in_words(scale):
    config = resolve(scale)
    for method, look in method_styles(config.methods if config.sweep is None else ()).items():  # a sweep's are its trials
        assert look.label != method and not re.search(r"[a-z]-[a-z]", look.label), look.label


def test_a_variant_is_called_after_its_method_and_a_users_method_as_the_user_wrote_it():
    assert label("sdpg-urkl-large-beta") == "SDPG-URKL, large beta"
    assert label("mine-2") == "mine-2" and label("mine.train.lr-0.1") == "mine.train.lr-0.1"
    assert label("sdpg-urkl.train.lr-1.5e-05") == "SDPG-URKL, lr 1.5e-05" and label("grpo.beta_base-3") == "GRPO, beta base 3"

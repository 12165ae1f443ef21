"""Every figure: its files, that its CSV is what is drawn, its numbers, its layout, and bad input."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from sdpg.artefacts.figures import (
    FIGURES,
    SHOWN,
    ablations,
    beta_schedule,
    cost,
    curves,
    decomposition,
    final_accuracy,
    make,
    published_curves,
    self_distillation,
    stability,
    training_curves,
)
from sdpg.artefacts.figures.style import method_styles
from sdpg.io import sha256

MODULES = {
    module.__name__.rsplit(".", 1)[1]: module
    for module in (
        ablations,
        beta_schedule,
        cost,
        decomposition,
        final_accuracy,
        published_curves,
        self_distillation,
        stability,
        training_curves,
    )
}
LONG = "a-method-of-a-user-with-a-rather-long-name"


@pytest.fixture(scope="module")
def trees(tree, comparison):
    """Figure -> the tree that it is drawn from."""
    return {name: comparison if name in (*SHOWN, "decomposition") else tree for name in MODULES}


@pytest.fixture(scope="module")
def drawn(trees):
    return {name: module.draw(trees[name]) for name, module in MODULES.items()}


def lines(ax, label):
    return [line for line in ax.get_lines() if line.get_label() == label]


def test_every_listed_figure_has_its_module():
    assert set(FIGURES) == {*MODULES, "sensitivity"}  # of a sweep: test_sensitivity.py


@pytest.mark.parametrize("name", MODULES)
def test_three_files_the_same_each_time(trees, drawn, tmp_path, name):
    tree = trees[name]
    paths = make(name, tree, tmp_path / "one")
    assert [path.name for path in paths] == [f"{name}.{kind}" for kind in ("pdf", "png", "csv")]
    again = make(name, tree, tmp_path / "two")
    assert sha256(paths[2]) == sha256(again[2])
    with Image.open(paths[1]) as one, Image.open(again[1]) as two:
        assert one.size == two.size
        difference = np.abs(np.asarray(one, dtype=int) - np.asarray(two, dtype=int))
    # Not the bytes: where arrays lie in memory decides how numpy's vector code rounds, and so a pixel's last bit.
    assert difference.max() <= 2
    assert (difference > 0).mean() < 1e-3
    pdf = paths[0].read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # the TrueType font is embedded
    assert b"CreationDate" not in pdf
    with Image.open(paths[1]) as image:
        assert image.size[0] > 500
        assert image.info["Description"] == MODULES[name].CAPTION
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), drawn[name][1], check_dtype=False, rtol=1e-6)


def test_training_curves_csv_is_what_is_drawn(drawn):
    figure, data = drawn["training_curves"]
    panels = dict(zip(data["panel"].unique(), figure.axes, strict=True))
    labels = {"sdpg-ufkl": "SDPG-UFKL", "grpo": "GRPO", "opcd": "OPCD"}
    for (panel, method), rows in data.groupby(["panel", "method"]):
        (line,) = lines(panels[panel], labels[method])
        np.testing.assert_allclose(line.get_xydata(), rows[["step", "mean"]].to_numpy())
        bands = [band.get_paths()[0].get_extents() for band in panels[panel].collections]
        assert any(np.isclose([b.y0, b.y1], [rows["low"].min(), rows["high"].max()]).all() for b in bands)


def test_training_curves_numbers_by_hand(tree, drawn):
    data = drawn["training_curves"][1]
    scores = tree.scores.query("method == 'grpo' and task == 'chain' and metric == 'mean@8' and step == 40")["value"]
    row = data.query("panel == 'chain' and method == 'grpo' and step == 40").iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((scores.mean(), scores.min(), scores.max()))
    rewards = tree.metrics.query("method == 'grpo'").pivot(index="step", columns="seed", values="reward")
    window = rewards.loc[38:42].mean()  # 80 steps: five around each
    row = data.query("panel == 'reward' and method == 'grpo' and step == 40").iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((window.mean(), window.min(), window.max()))
    assert row["unsmoothed_mean"] == pytest.approx(rewards.loc[40].mean())
    first = data.query("panel == 'reward' and method == 'grpo' and step == 1").iloc[0]
    assert first["mean"] == pytest.approx(rewards.loc[1:3].to_numpy().mean())  # shorter at the ends, never shifted


def texts_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("name", SHOWN)
def test_a_comparison_is_the_training_curves_of_its_methods(comparison, drawn, name):
    figure, data = drawn[name]
    runs = data.query("source == 'runs'").drop(columns="source").reset_index(drop=True)
    all_runs = curves.draw(comparison, method_styles(comparison.methods))[1]
    expected = all_runs[all_runs["method"].isin(SHOWN[name])]
    order = ["panel", "method", "step"]
    pd.testing.assert_frame_equal(
        runs.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True)
    )
    assert set(runs["method"]) == set(SHOWN[name])
    labels = texts_of(figure)[: len(SHOWN[name])]
    panels = dict(zip(runs["panel"].unique(), figure.axes, strict=True))
    for (panel, method), rows in runs.groupby(["panel", "method"]):
        (line,) = lines(panels[panel], labels[SHOWN[name].index(method)])
        np.testing.assert_allclose(line.get_xydata(), rows[["step", "mean"]].to_numpy())


def test_ablations_are_named_by_what_is_left_out(drawn):
    assert texts_of(drawn["ablations"][0])[:6] == [
        "SDPG-URKL (full)",
        "without distillation (β = 0)",
        "without anchor (α = 0)",
        "without gate",
        "without schedule",
        "GRPO",
    ]


@pytest.mark.parametrize(
    "name, method, published, label, reward",  # reward: the first value that the paper's figure shows
    [
        ("ablations", "rpg", "sdpg-urkl-beta0", "without distillation (β = 0)", -0.607),
        ("self_distillation", "opcd", "opcd", "OPCD", -0.947),
    ],
)
def test_published_curves_lie_over_the_same_benchmarks(comparison, drawn, name, method, published, label, reward):
    figure, data = drawn[name]
    number = "fig5" if name == "ablations" else "fig6"
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
        np.testing.assert_allclose(line.get_xydata(), rows[["step", "mean"]].to_numpy())
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
    rewards = data.query("panel == 'reward' and method == 'grpo'").set_index("step")["mean"]
    published = data.query("panel == 'reward' and method == 'grpo' and source == 'published'")
    assert published["mean"].iloc[0] == -0.947
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
    figure, data = MODULES[name].draw(tree)
    assert set(data["source"]) == {"runs"}
    assert not [line for ax in figure.axes for line in ax.get_lines() if line.get_label().startswith("_published")]
    assert not [text for text in texts_of(figure) if "published" in text]


@pytest.mark.parametrize(
    "methods, message", [(("grpo", "gspo"), "has only grpo of them"), (("gspo", "dapo"), "has none of them")]
)
@pytest.mark.parametrize("name", SHOWN)
def test_a_comparison_of_one_method_is_refused(comparison, tmp_path, name, methods, message):
    with pytest.raises(ValueError, match=message):
        make(name, replace(comparison, methods=methods), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps, window", [(4, 1), (39, 1), (40, 3), (160, 9), (400, 21)])
def test_smoothing_window(steps, window):
    assert curves.smoothing_window(steps) == window


def test_smoothing_is_stated(drawn):
    texts = [text.get_text() for legend in drawn["training_curves"][0].legends for text in legend.get_texts()]
    assert "rollout metrics: mean of 5 steps around each step" in texts
    assert "range over seeds (n = 3)" in texts


def test_final_accuracy_csv_is_what_is_drawn(tree, drawn):
    figure, data = drawn["final_accuracy"]
    for i, task in enumerate(tree.tasks):
        curve, last = figure.axes[2 * i], figure.axes[2 * i + 1]
        rows = data[(data["task"] == task) & (data["method"] == "grpo")]
        (line,) = lines(curve, "GRPO")
        np.testing.assert_allclose(line.get_xydata(), rows.query("part == 'curve'")[["step", "value"]].to_numpy())
        (point,) = lines(last, "GRPO")
        assert point.get_xdata()[0] == rows.query("part == 'last'")["value"].item()
        interval, seeds = lines(last, "_interval")[1], lines(last, "_seeds")[1]
        np.testing.assert_allclose(interval.get_xdata(), rows.query("part == 'last'")[["low", "high"]].iloc[0])
        np.testing.assert_allclose(seeds.get_xdata(), rows.query("part == 'seed'")["value"])
        assert point.get_xdata()[0] == pytest.approx(np.mean(seeds.get_xdata()))


def test_beta_schedule_is_what_is_drawn_and_fits(drawn, tree):
    figure, data = drawn["beta_schedule"]
    assert len(figure.axes) == 1  # only the method that has a schedule
    assert set(data["method"]) == {"sdpg-ufkl"}
    np.testing.assert_allclose(data["logged"], data["analytic"])
    (line,) = lines(figure.axes[0], "schedule")
    k = dict(zip(*line.get_data(), strict=True))
    assert (k[0], k[5], k[10], k[45], k[80]) == pytest.approx((0, 0.5, 1, 0.5, 0))
    for seed in tree.seeds:
        (points,) = lines(figure.axes[0], f"seed {seed}")
        logged = data.query("seed == @seed").set_index("step")["logged"]
        np.testing.assert_allclose(points.get_ydata(), logged.loc[points.get_xdata()])
    assert lines(figure.axes[0], "_warm")[0].get_xdata()[0] == 10
    assert lines(figure.axes[0], "_decay")[0].get_xdata()[0] == 80 - 70


def test_schedule_without_ramps():
    k = [0, 1, 5, 10]
    np.testing.assert_allclose(beta_schedule.schedule(k, beta_base=2, T=10, T_warm=0, T_decay=0), 2)
    np.testing.assert_allclose(beta_schedule.schedule(k, beta_base=2, T=10, T_warm=5, T_decay=5), [0, 0.4, 2, 0])


def test_published_curves_are_the_published_numbers(drawn):
    figure, data = drawn["published_curves"]
    assert len(figure.axes) == 6
    (line,) = lines(figure.axes[0], "GRPO")
    rows = data.query("panel == 'aime24' and method == 'grpo'")
    np.testing.assert_allclose(line.get_xydata(), rows.query("mark == 'curve'")[["step", "value"]].to_numpy())
    assert rows.query("mark == 'last'")[["step", "value"]].iloc[0].tolist() == [400, 0.280]
    assert rows.query("mark == 'best'")["value"].item() == 0.316
    drawn_values = {line.get_ydata()[0] for line in lines(figure.axes[0], "_last")}
    assert drawn_values == {0.280, 0.378, 0.380}


def all_axes_are_labelled(figure):
    for ax in figure.axes:
        assert ax.get_title(loc="left")
        assert ax.get_xlabel()
        in_a_row = len(ax.get_shared_y_axes().get_siblings(ax)) > 1  # labelled on its left
        assert ax.get_ylabel() or in_a_row or [label.get_text() for label in ax.get_yticklabels()]
        if ax.get_ylabel():
            assert "(" in ax.get_ylabel() or "per response" in ax.get_ylabel() or "fraction" in ax.get_ylabel()


def visible_boxes(figure):
    """(what, bounding box in pixels) of every axes with its labels, and of every legend."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [(ax.get_title(loc="left"), ax.get_tightbbox(renderer)) for ax in figure.axes]
    return boxes + [(f"legend {i}", legend.get_window_extent(renderer)) for i, legend in enumerate(figure.legends)]


def nothing_overlaps(figure):
    boxes = visible_boxes(figure)
    for what, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1, f"{what} is cut off"
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, f"{what} is cut off"
    for (one, a), (two, b) in combinations(boxes, 2):
        shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(shared) <= 1, f"{one} and {two} overlap"
    for ax in figure.axes:
        renderer = figure.canvas.get_renderer()
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [t.get_window_extent(renderer) for t in axis.get_ticklabels() if t.get_text()]
            ticks = [t for t in ticks if t.width]
            inside = [t for t in ticks if ax.bbox.padded(20).overlaps(t)]
            assert all(not a.overlaps(b) for a, b in combinations(inside, 2)), (
                f"tick labels of {ax.get_title(loc='left')}"
            )


@pytest.mark.parametrize("name", MODULES)
def test_labels_and_layout(drawn, name):
    figure = drawn[name][0]
    all_axes_are_labelled(figure)
    nothing_overlaps(figure)


MANY = ("sdpg-ufkl", "sdpg-urkl", "grpo", "opcd", "rlsd", "opsd", "sdpo", "sdft", LONG, f"{LONG}-2", "x", "y")


@pytest.mark.parametrize("sets, methods, seeds", [(1, 2, 1), (2, 12, 2), (3, 3, 2), (4, 12, 2)])
def test_layout_for_other_numbers_of_sets_and_methods(make_tree, sets, methods, seeds):
    tasks = ("chain", "an-evaluation-set-with-a-long-name", "c", "d")[:sets]
    tree = make_tree(
        methods=MANY[:methods], tasks=tasks, seeds=tuple(range(seeds)), problems=3, steps=40, lm_eval=False
    )
    figure, data = training_curves.draw(tree)
    assert len(figure.axes) % 3 == 0  # extra panels fill the last row
    assert set(tasks) <= set(data["panel"])
    nothing_overlaps(figure)
    for module in (final_accuracy, beta_schedule, self_distillation, stability, cost):
        nothing_overlaps(module.draw(tree)[0])


def test_of_many_methods_the_curves_show_those_of_the_papers_tables(make_tree):
    tree = make_tree(methods=MANY, seeds=(0, 1), problems=3, steps=40, lm_eval=False)
    headline = {"sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd"}
    assert set(training_curves.draw(tree)[1]["method"]) == headline
    data = final_accuracy.draw(tree)[1]
    assert set(data.query("part == 'curve'")["method"]) == headline
    assert set(data.query("part == 'last'")["method"]) == set(MANY)


def test_task_without_process_accuracy_shows_truncation_instead(make_tree):
    tree = make_tree(methods=("grpo",), seeds=(0,), process=False, problems=3, steps=4, every=2)
    figure, data = training_curves.draw(tree)
    assert "process_accuracy" not in set(data["panel"])
    assert "truncated" in set(data["panel"])
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "one seed (no band)" in texts


def test_scale_without_a_schedule_still_draws(make_tree):
    tree = make_tree(methods=("grpo",), seeds=(0,), problems=3, steps=4, every=2)
    figure, data = beta_schedule.draw(tree)
    assert data.empty
    assert figure.axes[0].texts[0].get_text().startswith("no method")


@pytest.mark.parametrize(
    "name, file, message",
    [
        ("training_curves", "scores.csv", "scores.csv is missing; make it with `snakemake"),
        ("training_curves", "runs/grpo/seed1/metrics.jsonl", "grpo/seed1/metrics.jsonl is missing"),
        ("final_accuracy", "intervals.csv", "intervals.csv is missing"),
        ("beta_schedule", "runs/grpo/seed0/run.json", "grpo/seed0/run.json is missing"),
    ],
)
def test_missing_input_is_named_and_nothing_written(make_tree, name, file, message):
    tree = make_tree(methods=("sdpg-ufkl", "grpo"), seeds=(0, 1), problems=3, steps=4, every=2)
    (tree.root / file).unlink()
    with pytest.raises(ValueError, match=message):
        make(name, tree)
    assert not (tree.root / "figures").exists()


def test_method_without_scores_is_named(make_tree):
    tree = make_tree(methods=("grpo",), seeds=(0,), problems=3, steps=4, every=2)
    tree.scores.query("task == 'chain'").to_csv(tree.root / "scores.csv", index=False)
    for module in (training_curves, final_accuracy):
        with pytest.raises(ValueError, match="mean@8 of grpo on chain-long: no rows"):
            module.draw(replace(tree))


def test_run_without_its_logged_beta_is_named(make_tree):
    tree = make_tree(methods=("sdpg-ufkl",), seeds=(0,), problems=3, steps=4, every=2)
    path = tree.run_dir("sdpg-ufkl", 0) / "metrics.jsonl"
    path.write_text(path.read_text().replace('"beta"', '"betta"'))
    with pytest.raises(ValueError, match="sdpg-ufkl/seed0/metrics.jsonl has no beta"):
        beta_schedule.draw(tree)


def test_missing_published_data_are_named(tree, tmp_path):
    with pytest.raises(ValueError, match="published/curves.csv is missing; restore it"):
        published_curves.draw(replace(tree, published=tmp_path / "published"))


def test_unknown_figure():
    with pytest.raises(ValueError, match="unknown figure 'x'; choose one of training_curves"):
        make("x", None)

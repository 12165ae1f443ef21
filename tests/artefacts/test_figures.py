"""Every figure: its files, that its CSV is what is drawn, its layout, and bad input; curves over steps: test_curves.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sdpg.artefacts import declared
from sdpg.artefacts.figures import (
    beta_schedule,
    cost,
    final_accuracy,
    published_curves,
    self_distillation,
    stability,
    training_curves,
)
from sdpg.artefacts.figures.names import BASE, label
from sdpg.io import sha256
from tests.artefacts.drawings import FIGURES, MANY, all_axes_are_labelled, fits_a_paper, lines, names, nothing_overlaps
from tests.making import make


@pytest.mark.parametrize("name", FIGURES)
def test_three_files_the_same_each_time(tree_of, drawn, tmp_path, name):
    tree = tree_of(name)
    paths = make(name, tree, tmp_path / "one")
    assert [path.name for path in paths] == [f"{Path(name).name}.{kind}" for kind in ("pdf", "png", "csv")]
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
        says = getattr(declared()[name].module, "says", lambda _: "")
        assert image.info["Description"] == declared()[name].caption + says(tree)
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), drawn[name][1], check_dtype=False, rtol=1e-6)


def test_final_accuracy_csv_is_what_is_drawn(tree, drawn):
    figure, data = drawn["figures/final_accuracy"]
    for i, task in enumerate(tree.tasks):
        curve, last = figure.axes[2 * i], figure.axes[2 * i + 1]
        rows = data[(data["task"] == task) & (data["method"] == "grpo")]
        (line,) = lines(curve, "GRPO")
        np.testing.assert_allclose(line.get_xydata(), rows.query("part == 'curve'")[["step", "value"]].to_numpy())
        thin = np.concatenate([line.get_xydata() for line in lines(curve, "_seed")])
        runs = data.query("part == 'run' and task == @task")
        np.testing.assert_allclose(thin, runs[["step", "value"]].to_numpy())
        base = data.query("part == 'base' and task == @task")["value"].item()
        assert lines(curve, "_base")[0].get_ydata()[0] == lines(last, "_base")[0].get_xdata()[0] == base
        assert curve.get_ylim()[0] == last.get_xlim()[0] == 0
        (point,) = lines(last, "GRPO")
        assert point.get_xdata()[0] == rows.query("part == 'last'")["value"].item()
        interval, seeds = lines(last, "_interval")[1], lines(last, "_seeds")[1]
        np.testing.assert_allclose(interval.get_xdata(), rows.query("part == 'last'")[["low", "high"]].iloc[0])
        np.testing.assert_allclose(seeds.get_xdata(), rows.query("part == 'seed'")["value"])
        assert point.get_xdata()[0] == pytest.approx(np.mean(seeds.get_xdata()))


def test_an_interval_narrower_than_its_marker_is_seen(tree, drawn):
    ax = drawn["figures/final_accuracy"][0].axes[1]
    interval, point = lines(ax, "_interval")[0], lines(ax, "SDPG-UFKL")[0]
    assert interval.get_marker() == "|"
    assert interval.get_markersize() > point.get_markersize() + 2  # its ends stand out above and below
    assert point.get_markerfacecolor() == "white"


def test_beta_schedule_is_what_is_drawn_and_fits(drawn, tree):
    figure, data = drawn["figures/beta_schedule"]
    (ax,) = figure.axes
    assert set(data["method"]) == {"sdpg-ufkl"}
    np.testing.assert_allclose(data["logged"], data["analytic"])
    (line,) = lines(ax, "_schedule")
    k = dict(zip(*line.get_data(), strict=True))
    assert (k[0], k[5], k[10], k[45], k[80]) == pytest.approx((0, 0.5, 1, 0.5, 0))
    for seed, points in zip(tree.seeds, lines(ax, "_logged"), strict=True):
        logged = data[data["seed"] == seed].set_index("step")["logged"]
        np.testing.assert_allclose(points.get_ydata(), logged.loc[points.get_xdata()])
    assert sum(len(points.get_xdata()) for points in lines(ax, "_logged")) == beta_schedule.MARKERS


def test_schedules_share_one_panel_from_0_to_the_last_step(make_tree):
    methods = ("sdpg-ufkl", "sdpg-urkl", "sdpg-no-schedule", "rpg")
    tree = make_tree(methods=methods, seeds=(0,), problems=3, steps=40, lm_eval=False)
    changed = {"sdpg-no-schedule": (1.0, 0, 0), "rpg": (0.0, 50, 350)}  # nothing to weigh: 350 steps of decay in a run of 40
    for method, (base, warm, decay) in changed.items():
        path = tree.run_dir(method, 0) / "run.json"
        info = json.loads(path.read_text())
        for part in (info["algorithm"], info["config"]["algorithm"]):
            part |= {"beta_base": base, "T_warm": warm, "T_decay": decay}
        path.write_text(json.dumps(info))
        path = tree.run_dir(method, 0) / "metrics.jsonl"
        rows = [json.loads(line) | {"beta": base} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure, data = beta_schedule.draw(tree)
    (ax,) = figure.axes
    assert len(lines(ax, "_schedule")) == 2  # one that two methods share, and the constant
    assert ax.get_xlim()[0] > -5 and ax.get_xlim()[1] < 45
    assert "SDPG-UFKL, SDPG-URKL" in names(figure) and "constant" in names(figure)
    assert set(data["method"]) == set(methods)
    fits_a_paper(figure)


def test_schedule_without_ramps():
    k = [0, 1, 5, 10]
    np.testing.assert_allclose(beta_schedule.schedule(k, beta_base=2, T=10, T_warm=0, T_decay=0), 2)
    np.testing.assert_allclose(beta_schedule.schedule(k, beta_base=2, T=10, T_warm=5, T_decay=5), [0, 0.4, 2, 0])


def test_published_curves_are_the_published_numbers(drawn):
    figure, data = drawn["figures/published_curves"]
    assert len(figure.axes) == 6
    (line,) = lines(figure.axes[0], "GRPO")
    rows = data.query("panel == 'aime24' and method == 'grpo'")
    np.testing.assert_allclose(line.get_xydata(), rows.query("mark == 'curve'")[["step", "value"]].to_numpy())
    assert rows.query("mark == 'last'")[["step", "value"]].iloc[0].tolist() == [400, 0.280]
    assert rows.query("mark == 'best'")["value"].item() == 0.316
    (beyond,) = figure.axes[0].child_axes
    assert {line.get_ydata()[0] for line in lines(beyond, "_last")} == {0.280, 0.378, 0.380}
    assert len(lines(figure.axes[0], "_break")) == len(lines(beyond, "_break")) == 1
    assert all(ax.get_xlim()[1] < 430 for ax in figure.axes)  # no steps that were not run
    assert all(ax.get_ylim()[0] == 0 for ax in figure.axes[:3])


@pytest.mark.parametrize("name", FIGURES)
def test_labels_and_layout(drawn, name):
    figure = drawn[name][0]
    all_axes_are_labelled(figure)
    nothing_overlaps(figure)
    if name not in ("figures/sensitivity", "figures/tuning"):
        fits_a_paper(figure)


@pytest.mark.parametrize("name", sorted({*FIGURES} - {"figures/contrasts", "figures/decomposition", "figures/sensitivity"}))
def test_every_method_that_is_drawn_is_named(drawn, name):
    figure, data = drawn[name]
    said = names(figure)
    changed = declared()[name].module.LABELS if name == "figures/ablations" else {}
    for method in set(data["method"].dropna()) - {BASE}:
        assert changed.get(method, label(method)) in said
        assert method not in said


@pytest.mark.parametrize("name", FIGURES)
def test_no_axis_of_accuracy_is_cut(drawn, name):
    for ax in drawn[name][0].axes:
        for axis, (low, _) in ((ax.get_xlabel(), ax.get_xlim()), (ax.get_ylabel(), ax.get_ylim())):
            assert low <= 0 or "mean@" not in axis


@pytest.mark.parametrize(
    "sets, methods, seeds", [(1, 2, 1), (2, 12, 2), (3, 3, 2), pytest.param(4, 12, 2, marks=pytest.mark.long)]
)
def test_layout_for_other_numbers_of_sets_and_methods(make_tree, sets, methods, seeds):
    tasks = ("chain", "an-evaluation-set-with-a-long-name", "c", "d")[:sets]
    tree = make_tree(methods=MANY[:methods], tasks=tasks, seeds=tuple(range(seeds)), problems=3, steps=40, lm_eval=False)
    figure, data = training_curves.draw(tree)
    assert len(figure.axes) % 2 == 0  # extra panels fill the last row
    assert set(tasks) <= set(data["panel"])
    for module in (None, final_accuracy, beta_schedule, self_distillation, stability, cost):
        figure = module.draw(tree)[0] if module else figure
        nothing_overlaps(figure)
        fits_a_paper(figure)


def test_scale_without_a_schedule_still_draws(make_tree):
    tree = make_tree(methods=("grpo",), seeds=(0,), problems=3, steps=4, every=2)
    figure, data = beta_schedule.draw(tree)
    assert data.empty
    assert figure.axes[0].texts[0].get_text().startswith("no method")


@pytest.mark.parametrize(
    "name, file, message",
    [
        ("figures/training_curves", "scores.csv", "scores.csv is missing; make it with `snakemake"),
        ("figures/training_curves", "runs/grpo/seed1/metrics.jsonl", "grpo/seed1/metrics.jsonl is missing"),
        ("figures/final_accuracy", "intervals.csv", "intervals.csv is missing"),
        ("figures/beta_schedule", "runs/grpo/seed0/run.json", "grpo/seed0/run.json is missing"),
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

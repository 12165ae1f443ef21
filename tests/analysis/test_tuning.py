"""A sweep's scores and choice, by hand; and several scales side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from sdpg.analysis.results import Results
from sdpg.artefacts import make_across
from sdpg.artefacts.matrix import matrix
from sdpg.artefacts.tuning import best_rate, choose, read_trials, setting_columns, trials
from tests.making import make

SWEEP = {
    "trials": {
        "grpo": [{"train": {"lr": 1e-4}, "kl_coef": 0.1}, {"train": {"lr": 2e-4}}],
        "sdpg-urkl": [{"beta_base": 1.0, "alpha": 0.5}, {"beta_base": 3.0, "alpha": 0.5}],
    },
    "inherit": {"rpg": "sdpg-urkl", "grpo-double": "grpo"},
}
# validation accuracy at steps 2, 4, 6, 8 of eight: the second half is what counts
CURVES = {
    ("grpo.0", 5): [0.9, 0.9, 0.5, 0.7],
    ("grpo.0", 6): [0.9, 0.9, 0.5, 0.5],
    ("grpo.1", 5): [0.1, 0.1, 0.6, 0.6],
    ("grpo.1", 6): [0.1, 0.1, 0.6, 0.6],
    ("sdpg-urkl.0", 5): [0.1, 0.1, 0.8, 0.8],
    ("sdpg-urkl.0", 6): [0.1, 0.1, 0.8, 0.8],
    ("sdpg-urkl.1", 5): [0.1, 0.9, 1.0, 0.6],
    ("sdpg-urkl.1", 6): [0.1, 0.9, 0.9, 0.7],
}


@pytest.fixture
def swept(tmp_path):
    root = tmp_path / "mine-sweep"
    for (name, seed), curve in CURVES.items():
        folder = root / "runs" / name / f"seed{seed}"
        folder.mkdir(parents=True)
        rows = [{"step": k, "reward": 0.0} for k in range(1, 9)]
        for row, value in zip(rows[1::2], curve, strict=True):
            row["validation_a_accuracy"], row["validation_b_accuracy"] = value - 0.1, value + 0.1
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    methods = tuple(dict.fromkeys(name for name, _ in CURVES))
    return Results(root=root, methods=methods, seeds=(5, 6), tasks=("a",), samples=4, steps=8)


def test_scores_and_choice_by_hand(swept):
    frame = trials(swept, SWEEP)
    assert setting_columns(frame) == ["train.lr", "alpha", "beta_base", "kl_coef"]
    scores = frame.set_index(["method", "trial", "seed"])["score"]
    assert scores["grpo", 0, 5] == pytest.approx(0.6)
    assert scores["sdpg-urkl", 1, 6] == pytest.approx(0.8)
    assert frame.set_index(["method", "trial", "seed"])["last"]["sdpg-urkl", 1, 5] == pytest.approx(0.6)
    chosen = frame[frame["chosen"] == 1][["method", "trial"]].drop_duplicates()
    assert dict(zip(chosen["method"], chosen["trial"], strict=True)) == {"grpo": 1, "sdpg-urkl": 0}  # 0.8 = 0.8: the first


@pytest.mark.parametrize("step", [1, 7])
def test_a_trial_that_diverges_scores_nothing(swept, step):
    """Also where it was ahead until then, and where it has not looked at the validation sets yet."""
    for seed in (5, 6):
        path = swept.run_dir("sdpg-urkl.0", seed) / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()][:step]
        rows[-1] |= {"diverged": "loss is nan"}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame = trials(replace(swept), SWEEP).set_index(["method", "trial", "seed"])
    assert frame["score"]["sdpg-urkl", 0].tolist() == [0, 0]
    assert frame["chosen"]["sdpg-urkl", 1].tolist() == [1, 1]


def test_an_inheriting_method_takes_what_its_file_leaves_open(swept):
    chosen = choose(trials(swept, SWEEP), SWEEP)
    assert chosen["sdpg-urkl"] == {"beta_base": 1.0, "alpha": 0.5}
    assert chosen["rpg"] == {"alpha": 0.5}  # its file says beta_base: 0
    assert chosen["grpo-double"] == {"train": {"lr": 2e-4}}


def test_files(swept, tmp_path):
    settings, evidence = make("tuning", swept, tmp_path / "out", sweep=SWEEP)
    assert yaml.safe_load(settings.read_text())["methods"] == choose(trials(swept, SWEEP), SWEEP)
    assert "*" not in settings.read_text()  # no aliases
    assert "mine-sweep: 2 trials of each method, seeds 5, 6" in settings.read_text()
    pd.testing.assert_frame_equal(read_trials(evidence), trials(swept, SWEEP), check_dtype=False)


def rates(swept, *scores):
    """One method at as many rates, 1e-4 and upwards, whose validation accuracies are these throughout."""
    for number, score in enumerate(scores):
        for seed in (5, 6):
            folder = swept.root / "runs" / f"grpo.{number}" / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            rows = [{"step": k, "validation_a_accuracy": score} for k in range(1, 9)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sweep = {"trials": {"grpo": [{"train": {"lr": 1e-4 * (k + 1)}} for k in range(len(scores))]}, "one_rate": True}
    return replace(swept, methods=tuple(f"grpo.{k}" for k in range(len(scores)))), sweep | {
        "inherit": {"rpg": "grpo", "grpo-double": "grpo"}
    }


def test_one_rate_for_all(swept, tmp_path):
    results, sweep = rates(swept, 0.3, 0.5, 0.4)
    assert best_rate(trials(results, sweep)) == ("grpo", pytest.approx(2e-4))
    settings, evidence = make("tuning", results, tmp_path / "out", sweep=sweep)
    text = settings.read_text()
    assert yaml.safe_load(text)["methods"] == dict.fromkeys(("grpo", "rpg", "grpo-double"), {"train": {"lr": 2e-4}})
    assert "One rate for all, chosen from grpo alone: 0.0002 of 0.0001, 0.0002, 0.0003" in text
    assert read_trials(evidence)["chosen"].tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("scores", "end"), [((0.5, 0.4, 0.3), "lowest"), ((0.1, 0.2, 0.3), "highest")])
def test_a_best_rate_at_an_edge_of_the_grid_is_no_choice(swept, tmp_path, scores, end):
    results, sweep = rates(swept, *scores)
    with pytest.raises(
        ValueError, match=f"sweep.trials.grpo: the best learning rate, .* is the {end} of 0.0001, 0.0002, 0.0003"
    ):
        make("tuning", results, tmp_path / "out", sweep=sweep)
    assert not (tmp_path / "out" / "sweep" / "tuned.yaml").exists()


def test_a_run_without_validation_and_a_missing_run_are_named(swept):
    path = swept.root / "runs" / "grpo.1" / "seed6" / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": k}) + "\n" for k in range(1, 9)))
    with pytest.raises(ValueError, match=r"grpo.1/seed6/metrics.jsonl has no validation accuracy"):
        trials(swept, SWEEP)
    path.unlink()
    with pytest.raises(ValueError, match=r"grpo.1/seed6/metrics.jsonl is missing"):
        trials(swept, SWEEP)


def test_matrix_by_hand(full, tmp_path):
    (tmp_path / "other").symlink_to(full.root)
    cells = [full, replace(full, root=tmp_path / "other")]
    frame = matrix(cells)
    assert len(frame) == 2 * len(full.tasks) * len(full.methods)
    scores = full.scores.query("metric == @full.accuracy and task == 'chain' and method == 'grpo'")
    table = scores.pivot(index="seed", columns="step", values="value")
    row = frame.query("task == 'chain' and method == 'grpo'").iloc[0]
    assert row["mean"] == pytest.approx(table.iloc[:, -1].mean())
    assert row["collapsed"] == (table.lt(0.5 * table.cummax(axis=1))).any(axis=1).sum()
    assert row["low"] <= row["mean"] <= row["high"]
    paths = make_across("matrix", cells, tmp_path / "m")
    assert [path.name for path in paths] == ["matrix.md", "matrix.csv", "matrix_points.csv", "matrix.pdf", "matrix.png"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[1]), frame, check_dtype=False)
    text = paths[0].read_text()
    assert text.count("| method |") == len(full.tasks)
    assert f"| GRPO | {row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in text


def test_matrix_names_a_method_without_scores(results):
    scores = results.root / "scores.csv"
    frame = pd.read_csv(scores)
    frame[frame["method"] != "grpo"].to_csv(scores, index=False)
    with pytest.raises(ValueError, match="scores.csv has no mean@.* of grpo on chain"):
        matrix([results])

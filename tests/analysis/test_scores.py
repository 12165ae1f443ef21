"""scores.csv, intervals.csv and comparisons.csv against hand-computed numbers, and bad input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sdpg.analysis.multiplicity import holm
from sdpg.analysis.results import Results
from sdpg.artefacts.scores import best_checkpoints, lm_eval_rows, make_scores
from sdpg.io import sha256
from tests.making import make

# correct answers of two problems x four samples, per (seed, step)
CORRECT = {
    (0, 0): [[0, 0, 0, 1], [0, 0, 0, 0]],
    (0, 10): [[1, 1, 1, 1], [1, 0, 0, 0]],
    (0, 20): [[1, 1, 0, 0], [0, 1, 0, 0]],
    (1, 0): [[0, 0, 0, 0], [0, 0, 0, 0]],
    (1, 10): [[1, 0, 0, 0], [0, 0, 0, 0]],
    (1, 20): [[1, 1, 1, 0], [1, 1, 1, 1]],
}


def frame(seed: int) -> pd.DataFrame:
    rows = [
        (step, problem, j, bool(c), float(c) / 2, 10 + j, "length" if j == 3 else "stop", 0.5, "text")
        for (s, step), table in CORRECT.items()
        for problem, row in zip("ba", table, strict=True)
        for j, c in enumerate(row)
        if s == seed
    ]
    columns = ["step", "problem_id", "sample", "correct", "process", "tokens", "finish_reason", "entropy", "text"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def hand(tmp_path):
    root = tmp_path / "hand"
    for seed in (0, 1):
        folder = root / "eval" / "grpo" / f"seed{seed}"
        folder.mkdir(parents=True)
        frame(seed).to_parquet(folder / "chain.parquet")
    return Results(root=root, methods=("grpo",), seeds=(0, 1), tasks=("chain",), samples=4, pass_k=(1, 2, 4))


def value(scores, seed, step, metric):
    chosen = scores.query("method == 'grpo' and task == 'chain' and seed == @seed and step == @step")
    return chosen[chosen["metric"] == metric]["value"].item()


def test_the_size_of_aime(tmp_path):
    """30 problems, 32 samples, 41 checkpoints: accuracy, pass@k, length and truncation with intervals, against plain numpy."""
    rng = np.random.default_rng(0)
    K, P, n = 41, 30, 32
    correct, tokens = rng.random((K, P, n)) < rng.random((1, P, 1)), rng.integers(1, 4097, (K, P, n))
    index = pd.MultiIndex.from_product([range(0, 401, 10), [f"aime24-{i:02d}" for i in range(P)], range(n)])
    rows = index.to_frame(index=False, name=["step", "problem_id", "sample"])
    rows = rows.assign(correct=correct.ravel(), process=np.nan, tokens=tokens.ravel(), entropy=0.5, text="", unjudged="")
    rows["finish_reason"] = np.where(rows["tokens"] == 4096, "length", "stop")
    path = tmp_path / "aime" / "eval" / "grpo" / "seed0" / "aime24.parquet"
    path.parent.mkdir(parents=True)
    rows.sample(frac=1, random_state=0).to_parquet(path)
    results = Results(root=tmp_path / "aime", methods=("grpo",), seeds=(0,), tasks=("aime24",), samples=n, pass_k=(1, 8, 32))
    scores, intervals, _ = make_scores(results)
    by_metric = scores.pivot(index="step", columns="metric", values="value")
    assert set(by_metric) == {"mean@32", "pass@1", "pass@8", "pass@32", "length", "truncated", "entropy"}
    expected = {"mean@32": correct.mean((1, 2)), "pass@1": correct.mean((1, 2)), "pass@32": correct.any(2).mean(1)}
    for metric, values in (expected | {"length": tokens.mean((1, 2)), "truncated": (tokens == 4096).mean((1, 2))}).items():
        np.testing.assert_allclose(by_metric[metric], values)
    last = intervals.query("selection == 'step' and step == 400").set_index("metric")
    assert set(last.index) == set(by_metric) and (last.loc["mean@32", ["low", "high"]].diff().iloc[1]) > 0.05
    assert (last["problems"] == 30).all() and last.loc["mean@32", "low"] < expected["mean@32"][-1] < last.loc["mean@32", "high"]


def test_scores_by_hand(hand):
    scores, _, _ = make_scores(hand)
    assert value(scores, 0, 10, "mean@4") == 5 / 8
    assert value(scores, 0, 10, "pass@1") == 5 / 8
    assert value(scores, 0, 10, "pass@2") == pytest.approx((1 + (1 - 3 / 6)) / 2)  # C(3,2)/C(4,2) = 1/2
    assert value(scores, 0, 10, "pass@4") == 1
    assert value(scores, 0, 10, "process_accuracy") == 5 / 16
    assert value(scores, 0, 10, "length") == 11.5
    assert value(scores, 0, 10, "truncated") == 0.25
    assert value(scores, 0, 10, "entropy") == 0.5
    assert list(scores.columns) == ["method", "seed", "task", "step", "metric", "value"]
    assert len(scores) == 2 * 3 * 8


def test_intervals_by_hand(hand):
    _, intervals, _ = make_scores(hand)
    last = intervals.query("metric == 'mean@4' and selection == 'step' and step == 20").iloc[0]
    assert last["mean"] == pytest.approx((3 / 8 + 7 / 8) / 2)
    assert last["low"] <= last["mean"] <= last["high"]
    assert (last["seeds"], last["problems"]) == (2, 2)
    best = intervals.query("selection == 'best'").iloc[0]
    assert best["mean"] == pytest.approx((5 / 8 + 7 / 8) / 2)  # step 10 of seed 0, step 20 of seed 1


def test_best_is_a_trained_checkpoint_where_there_is_one():
    accuracy = np.array([[0.9, 0.1, 0.2]])[:, :, None]
    assert best_checkpoints(accuracy, np.array([0, 1, 2])).tolist() == [2]
    assert best_checkpoints(accuracy[:, :1], np.array([0])).tolist() == [0]


def test_files_are_what_make_scores_says_and_reproduce(hand):
    paths = make("scores", hand)
    first = [sha256(path) for path in paths]
    assert [path.name for path in paths] == ["scores.csv", "intervals.csv", "comparisons.csv"]
    assert [sha256(path) for path in make("scores", hand)] == first
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), make_scores(hand)[0], check_dtype=False)


def test_another_method_changes_no_row_of_the_others(results):
    alone = make_scores(replace(results, methods=("grpo",)))
    both = make_scores(results)
    for one, two in zip(alone[:2], both[:2], strict=True):
        pd.testing.assert_frame_equal(one, two.query("method == 'grpo'").reset_index(drop=True))


def test_comparisons_are_differences_of_the_late_means_and_of_the_areas(results):
    scores, _, comparisons = make_scores(results)
    assert list(zip(comparisons["method"], comparisons["other"], strict=True)) == [("sdpg-ufkl", "grpo")] * 4
    accuracy = scores.query("metric == 'mean@8'").groupby(["task", "method", "step"])["value"].mean()
    weights = {"late": {0: 0, 2: 0, 4: 1}, "area": {0: 0.25, 2: 0.5, 4: 0.25}}
    for row in comparisons.itertuples():
        levels = [
            sum(weight * accuracy[row.task, method, step] for step, weight in weights[row.measure].items())
            for method in (row.method, row.other)
        ]
        assert row.difference == pytest.approx(levels[0] - levels[1])
        assert row.low <= row.difference <= row.high
        assert (row.units, row.collapsed, row.other_collapsed, row.p_collapse) == (2, 0, 0, 1)


def test_a_collapsed_run_is_no_part_of_the_comparison_nor_of_the_healthy_mean(full, tmp_path):
    made = replace(full, root=tmp_path / "fake", lm_eval=None)
    shutil.copytree(full.root / "eval", made.root / "eval")
    path = made.eval_dir("grpo", 1) / "chain.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame["step"] == 40, "correct"] = False
    frame.to_parquet(path)
    scores, intervals, comparisons = make_scores(made)
    rows = comparisons.query("task == 'chain' and measure == 'late'").set_index(["method", "other"])
    row = rows.loc["sdpg-urkl", "grpo"]
    assert np.isnan(row["difference"]) and row["units"] == 2  # two pairs are too few
    assert (row["collapsed"], row["other_collapsed"]) == (0, 1)
    own = scores.query("method == 'grpo' and task == 'chain' and step == 40 and metric == 'mean@8' and seed != 1")["value"]
    healthy = intervals.query("method == 'grpo' and task == 'chain' and selection == 'healthy'").iloc[0]
    assert (healthy["mean"], healthy["seeds"]) == (pytest.approx(own.mean()), 2)
    assert rows.loc["sdpg-ufkl", "sdpg-urkl"]["units"] == 3


def test_every_metric_has_a_mean_and_an_iqm_with_intervals(results):
    """Accuracy, pass@k and the others: one row per metric and checkpoint, and the iqm of two runs is their mean."""
    scores, intervals, _ = make_scores(results)
    rows = intervals.query("selection == 'step'")
    ours = scores[~scores["metric"].str.startswith("lm_eval")]
    assert {"mean@8", "pass@1", "pass@4", "pass@8"} <= set(rows["metric"]) == set(ours["metric"])
    keys = ["method", "task", "metric", "step"]
    means = ours.groupby(keys)["value"].mean()
    assert len(rows) == len(means)
    for row in rows.itertuples():
        expected = pytest.approx(means[row.method, row.task, row.metric, row.step])
        assert row.mean == expected == row.iqm
        assert row.low <= row.mean <= row.high
        assert row.iqm_low <= row.iqm <= row.iqm_high
    wide = rows.query("metric == 'pass@4' and step == 4")
    assert (wide["high"] > wide["low"]).all()


def test_holm_is_over_the_pairs_of_one_set(full):
    for _, rows in full.comparisons.groupby(["task", "measure"]):
        assert len(rows) == 6
        assert rows["p_collapse_holm"].tolist() == pytest.approx(holm(rows["p_collapse"].tolist()))
        assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p"].tolist()))
        assert (rows["p_holm"] >= rows["p"]).all()
        rows = rows[rows["difference"].notna()]  # opcd has collapsed in all runs of a set
        assert ((rows["low"] <= rows["difference"]) & (rows["difference"] <= rows["high"])).all()
        assert ((rows["p"] < 0.05) == ((rows["low"] > 0) | (rows["high"] < 0))).all()


def test_without_process_accuracy_the_metric_is_left_out(hand):
    path = hand.eval_dir("grpo", 0) / "chain.parquet"
    for seed in (0, 1):
        path = hand.eval_dir("grpo", seed) / "chain.parquet"
        frame(seed).assign(process=np.nan).to_parquet(path)
    assert "process_accuracy" not in set(make_scores(hand)[0]["metric"])


def test_lm_eval_rows(tmp_path):
    content = {
        "results": {
            "chain": {"alias": "chain", "accuracy,mean@4": 0.5, "accuracy_stderr,mean@4": "N/A"},
            "other": {"acc,strict": 0.25, "acc,loose": 0.75, "acc_stderr,strict": 0.1, "bad,none": None},
        }
    }
    path = tmp_path / "lm_eval.json"
    path.write_text(json.dumps(content))
    assert lm_eval_rows(path, "grpo", 1, 160) == [
        ("grpo", 1, "chain", 160, "lm_eval_accuracy", 0.5),
        ("grpo", 1, "other", 160, "lm_eval_acc[strict]", 0.25),
        ("grpo", 1, "other", 160, "lm_eval_acc[loose]", 0.75),
        ("grpo", 1, "other", 160, "lm_eval_acc_stderr", 0.1),
    ]


def test_lm_eval_rows_are_part_of_scores(results):
    scores, _, _ = make_scores(results)
    rows = scores[scores["metric"] == "lm_eval_accuracy"]
    assert set(rows["step"]) == {4}
    assert set(rows["task"]) == {"chain", "chain-long", "reverse"}


def test_lm_eval_of_the_first_seeds_alone_is_part_of_scores(results):
    few = replace(results, lm_eval=results.lm_eval | {"seeds": 1})
    for method in results.methods:
        (results.eval_dir(method, 1) / "lm_eval.json").unlink()
    scores, _, _ = make_scores(few)
    rows = scores[scores["metric"] == "lm_eval_accuracy"]
    assert set(rows["seed"]) == {0} and set(rows["method"]) == set(results.methods)
    with pytest.raises(ValueError, match=r"seed1/lm_eval.json is missing"):
        make_scores(results)


@pytest.mark.parametrize("content", ["{}", '{"results": {}}', '{"results": {"a": {"alias": "a"}}}', "[1]"])
def test_lm_eval_of_another_form_is_an_error(tmp_path, content):
    path = tmp_path / "lm_eval.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="lm_eval.json (has no results|holds no numeric)"):
        lm_eval_rows(path, "grpo", 0, 1)


def broken(name):
    """A change of the hand-written frame, and what the error must say."""
    good = frame(1)
    match name:
        case "samples":
            return good.drop(index=9), r"seed1.*problem 'b' at step 10 has 3 samples, expected 4"
        case "problem":
            return good[(good["problem_id"] != "a") | (good["step"] != 20)], "problem 'a' at step 20 has 0 samples"
        case "twice":
            return pd.concat([good, good.iloc[:1]]), "step 0, problem_id b, sample 0 is there twice"
        case "columns":
            return good.drop(columns=["tokens", "entropy"]), "lacks the columns tokens, entropy"
        case "empty":
            return good.iloc[:0], "has no rows"
        case "process":
            return good.assign(process=good["process"].where(good["step"] > 0)), "process is null in 8 of 24 rows"
        case "finish":
            return good.assign(finish_reason="abort"), "must be stop or length, got 'abort'"
        case "steps":
            return good.query("step < 20"), "seed1.*has other checkpoints than .*seed0.*0, 10, expected 0, 10, 20"
        case "ids":
            return good.replace({"problem_id": {"a": "z"}}), "has other problems than"
        case "metrics":
            return good.assign(process=np.nan), "has other metrics than"
    raise KeyError(name)


@pytest.mark.parametrize(
    "name", ["samples", "problem", "twice", "columns", "empty", "process", "finish", "steps", "ids", "metrics"]
)
def test_bad_evaluation_file(hand, name):
    bad, message = broken(name)
    bad.to_parquet(hand.eval_dir("grpo", 1) / "chain.parquet")
    with pytest.raises(ValueError, match=message):
        make_scores(hand)


def test_missing_file_names_it_and_nothing_is_written(hand):
    (hand.eval_dir("grpo", 1) / "chain.parquet").unlink()
    with pytest.raises(ValueError, match=r"eval/grpo/seed1/chain.parquet is missing; make it with `snakemake"):
        make("scores", hand)
    assert not list(hand.root.glob("*.csv"))


def test_k_above_n(hand):
    with pytest.raises(ValueError, match=r"evaluation.pass_k has \[5\]; every k must lie in 1..4"):
        make_scores(replace(hand, pass_k=(1, 5)))


def test_methods_with_other_problems_cannot_be_compared(results):
    for seed in results.seeds:
        path = results.eval_dir("grpo", seed) / "chain.parquet"
        pd.read_parquet(path).replace({"problem_id": {"p000": "q"}}).to_parquet(path)
    with pytest.raises(ValueError, match="chain: sdpg-ufkl and grpo were evaluated on other problems"):
        make_scores(results)

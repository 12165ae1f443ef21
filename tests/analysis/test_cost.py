"""Spending and equal budgets against values worked out by hand; FLOPs that are recorded, partly or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sdpg.artefacts import cost
from sdpg.artefacts.cost import COLUMNS, at_equal_budget, budgets, recorded
from sdpg.artefacts.tables.cost import build
from tests.making import make


def edit(results, method: str, seed: int, change) -> None:
    """Apply `change` to every row of a run's metrics.jsonl."""
    path = results.run_dir(method, seed) / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fresh(results):
    copy = replace(results)
    make("cost", copy)
    return copy


def with_flops(results, runs):
    for method, seed in runs:
        edit(results, method, seed, lambda row: row.update(flops=10.0 * row["step"]))
    return fresh(results)


def test_a_checkpoint_has_cost_what_the_steps_before_it_did(results):
    with_flops(results, results.runs)
    frame = cost.read(results)
    assert len(frame) == len(results.runs) * len(results.tasks) * 3
    metrics = results.run_metrics("grpo", 1)
    for step in (0, 2, 4):
        row = frame.query("method == 'grpo' and seed == 1 and task == 'chain' and step == @step").iloc[0]
        before = metrics[metrics["step"] <= step]
        assert row["tokens"] == before["sampled_tokens"].sum()
        assert row["seconds"] == pytest.approx(before["seconds"].sum())
        assert row["flops"] == {0: 0, 2: 30, 4: 100}[step]
        score = results.scores.query(
            "method == 'grpo' and seed == 1 and task == 'chain' and step == @step and metric == 'mean@8'"
        )
        assert row["accuracy"] == pytest.approx(score["value"].item())


def test_flops_that_were_not_recorded_are_left_empty(results):
    frame = cost.read(results)
    assert frame["flops"].isna().all() and "flops" not in budgets(frame)
    table = build(results)
    assert ("chain", "FLOPs (not recorded)") in table.columns
    assert {dict(table.rows)[method][2].text for method in results.methods} == {"–"}
    assert "FLOPs are not recorded for any run." in table.caption
    mixed = with_flops(results, [("grpo", 0), ("grpo", 1), ("sdpg-ufkl", 0)])
    frame = cost.read(mixed)
    assert recorded(frame, "flops") == ["grpo"]  # one seed of the other has none
    assert frame.query("method == 'sdpg-ufkl' and seed == 0")["flops"].notna().all()
    assert "FLOPs are not recorded for sdpg-ufkl." in build(mixed).caption


def test_a_hole_in_the_flops_makes_them_unrecorded(results):
    edit(results, "grpo", 0, lambda row: row.update(flops=None if row["step"] == 2 else 1.0))
    assert cost.read(fresh(results)).query("method == 'grpo' and seed == 0")["flops"].isna().all()


def made(*runs) -> pd.DataFrame:
    """(method, seed, [(step, accuracy, tokens, seconds), ...]) -> a cost frame of one task."""
    rows = [
        (method, seed, "t", step, accuracy, tokens, np.nan, seconds)
        for method, seed, points in runs
        for step, accuracy, tokens, seconds in points
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_equal_budget_by_hand():
    frame = made(
        ("a", 0, [(0, 0.0, 0, 0.0), (10, 0.4, 100, 2.0), (20, 0.8, 200, 4.0)]),
        ("a", 1, [(0, 0.2, 0, 0.0), (10, 0.2, 50, 2.0), (20, 0.6, 150, 5.0)]),
        ("b", 0, [(0, 0.1, 0, 0.0), (10, 0.3, 300, 1.0), (20, 0.5, 600, 3.0)]),
    )
    assert budgets(frame) == {"step": (20, "a", 0), "tokens": (150, "a", 1), "seconds": (3.0, "b", 0)}
    found = at_equal_budget(frame).set_index(["axis", "method"])[["mean", "low", "high"]]
    assert found.loc[("step", "a")].tolist() == pytest.approx([0.7, 0.6, 0.8])
    assert found.loc[("tokens", "a")].tolist() == pytest.approx([0.6, 0.6, 0.6])  # half way from .4 to .8, and the end
    assert found.loc[("tokens", "b")].tolist() == pytest.approx([0.2] * 3)
    third = 0.2 + 0.4 / 3
    assert found.loc[("seconds", "a")].tolist() == pytest.approx([(0.6 + third) / 2, third, 0.6])
    assert found.loc[("seconds", "b")].tolist() == pytest.approx([0.5] * 3)


def test_the_table_states_the_budgets_and_who_sets_them(full):
    table = build(full)
    limits = budgets(cost.read(full))
    assert table.columns[0] == ("chain", "40 steps")
    tokens, method, seed = limits["tokens"]
    assert f"tokens: {method} seed {seed}" in table.caption and "linear interpolation" in table.caption
    row = table.data.query("axis == 'step' and method == 'grpo' and task == 'chain'").iloc[0]
    last = full.scores.query("method == 'grpo' and task == 'chain' and metric == 'mean@8' and step == 40")["value"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((last.mean(), last.min(), last.max()))
    assert table.data.query("axis == 'tokens'")["budget"].unique() == [tokens]


def test_scores_beyond_the_last_step_are_refused(results):
    scores = results.scores
    scores.loc[scores["step"] == 4, "step"] = 6
    scores.to_csv(results.root / "scores.csv", index=False)
    with pytest.raises(ValueError, match="sdpg-ufkl seed 0 has a score at step 6, which metrics.jsonl lacks"):
        fresh(results)


def test_missing_seconds_are_named(results):
    edit(results, "grpo", 1, lambda row: row.pop("seconds"))
    with pytest.raises(ValueError, match="grpo/seed1/metrics.jsonl has no seconds in some rows"):
        fresh(results)

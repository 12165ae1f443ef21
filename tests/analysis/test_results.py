"""The readers: what they give, and what they say when something is missing or broken."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from sdpg.analysis.results import Results, pivot_seeds, run_parameters
from tests.making import resolve_text

SCALE = """
name: tiny
family: published
seeds: [0, 1]
model: {warm_start: {seeds: [0, 1]}}
methods: [grpo, opcd]
data: {train: {path: x.jsonl}, evaluation: {a: {path: x.jsonl}, b: {path: x.jsonl}}}
train: {steps: 7, max_prompt_tokens: 8, max_response_tokens: 8}
evaluation: {samples: 4, pass_k: [1], lm_eval: null}
"""


def test_from_config():
    made = Results.from_config(resolve_text(SCALE))
    assert made.root.as_posix() == "results/tiny"
    assert made.published.as_posix() == "results/published"
    assert (made.methods, made.seeds, made.tasks) == (("grpo", "opcd"), (0, 1), ("a", "b"))
    assert made.bases == (0, 1)
    assert made.prompts == 128 and made.compared == made.methods  # the default of train.prompts_per_step; nothing is varied
    varied = SCALE + "sensitivity: [{setting: train.lr, methods: [grpo], values: [1.0e-3]}]\n"
    more = Results.from_config(resolve_text(varied))
    assert len(more.methods) == 3 and more.compared == made.methods
    odd = SCALE.replace("\nseeds: [0, 1]", "\nseeds: [1, 3]")
    assert Results.from_config(resolve_text(odd)).bases == (1,)
    pretrained = SCALE.replace("{warm_start: {seeds: [0, 1]}}", "{pretrained: x}")
    assert Results.from_config(resolve_text(pretrained)).bases == (0,)
    assert (made.accuracy, made.pass_k, made.steps, made.lm_eval) == ("mean@4", (1,), 7, None)
    assert made.family == "published"


def test_metrics_of_all_runs_below_each_other(results):
    metrics = results.metrics
    assert metrics.columns[:3].tolist() == ["method", "seed", "step"]
    assert len(metrics) == 2 * 2 * 4


def test_unfinished_run_is_named(results):
    path = results.run_dir("grpo", 1) / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ValueError, match=r"grpo/seed1/metrics.jsonl should have one row for each of the steps 1..4, got 3"):
        _ = results.metrics


def test_broken_line_is_named(results):
    path = results.run_dir("grpo", 0) / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": ')
    with pytest.raises(ValueError, match="metrics.jsonl, line 5, is not valid JSON"):
        _ = results.metrics


def test_empty_and_missing_files_are_named(results):
    path = results.run_dir("grpo", 0) / "metrics.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="metrics.jsonl is empty"):
        _ = results.metrics
    path.unlink()
    with pytest.raises(ValueError, match="grpo/seed0/metrics.jsonl is missing; make it with `snakemake"):
        _ = results.metrics
    with pytest.raises(ValueError, match="run.json is missing"):
        replace(results, seeds=(9,)).run_info("grpo", 9)


def test_csv_without_its_columns(results):
    path = results.root / "scores.csv"
    pd.read_csv(path).drop(columns="task").to_csv(path, index=False)
    with pytest.raises(ValueError, match="scores.csv lacks the columns task"):
        _ = results.scores


def test_scores_keep_to_the_config(results):
    assert set(replace(results, methods=("grpo",)).scores["method"]) == {"grpo"}


def test_hole_in_one_seed_is_named():
    frame = pd.DataFrame({"seed": [0, 0, 1], "step": [1, 2, 1], "value": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match="x: no value for seed 1 at step 2"):
        pivot_seeds(frame, "value", "x")


def test_run_parameters_complete_the_method_with_its_defaults():
    info = {"config": {"algorithm": {"algorithm": "sdpg"}, "train": {}}, "algorithm": {"alpha": 0.5}}
    assert run_parameters(info, "run.json")["algorithm"] == {"algorithm": "sdpg", "alpha": 0.5}
    with pytest.raises(ValueError, match="run.json has no resolved config"):
        run_parameters({}, "run.json")


@pytest.mark.parametrize(
    ("bases", "seeds", "starts"),
    [
        ([5, 6], [0, 1, 2, 3, 4], (0, 1, 0, 1, 0)),
        (list(range(10)), list(range(10)), tuple(range(10))),
        ([5, 6, 7], [2, 5], (2, 2)),
    ],
)
def test_the_base_model_of_each_seed(bases, seeds, starts):
    config = resolve_text(
        f"name: fake\nseeds: {seeds}\nmodel: {{warm_start: {{seeds: {bases}, steps: 1}}}}\nmethods: [grpo]\n"
        "task: {template: chain, verifier: chain}\n"
        "data: {train: {chain: {operations: [4], count: 8, seed: 1}}, "
        "evaluation: {a: {chain: {operations: [4], count: 8, seed: 2}}}}\n"
        "train: {steps: 4, max_prompt_tokens: 64, max_response_tokens: 48}\nevaluation: {samples: 8, pass_k: [1]}\n"
    )
    assert Results.from_config(config).starts == starts

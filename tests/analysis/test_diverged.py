"""Runs that diverged, and metrics that were not finite, through everything that is made of results."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from sdpg import artefacts
from sdpg.analysis.diverged import sentences
from sdpg.analysis.evaluations import task_scores
from sdpg.artefacts.claims.runs import NotRun, Runs
from sdpg.artefacts.matrix import matrix
from tests.analysis.fake_results import diverge, write_extras, write_problems, write_results
from tests.artefacts.conftest import PUBLISHED
from tests.making import job_of, make

METHODS = ("sdpg-ufkl", "sdpg-urkl", "grpo")
LATER = ("report", "manifest")
CASES = {  # name -> (method, seed, step, last checkpoint) of each run that diverged, of 40 steps with a checkpoint every 10
    "late": [("grpo", 1, 25, 20)],
    "two methods": [("sdpg-ufkl", 0, 12, 10), ("grpo", 1, 38, 30)],
    "at once": [("grpo", 0, 1, 0)],
    "every run of a method": [("sdpg-urkl", seed, 21 + seed, 20) for seed in (0, 1, 2)],
    "every run": [(method, seed, 1, 0) for method in METHODS for seed in (0, 1, 2)],
}


def _case(name):
    return pytest.param(CASES[name], id=name, marks=[] if name == "late" else pytest.mark.long)


def tree(root, case):
    options = {"methods": METHODS, "tasks": ("chain",), "steps": 40, "every": 10, "problems": 4, "samples": 8}
    results = replace(write_results(root / "fake", **options), published=PUBLISHED)
    for run in case:
        diverge(results, *run)
    return replace(results)  # what it reads, it keeps


@pytest.mark.parametrize("case", [_case(name) for name in CASES])
def test_everything_is_made_and_says_so(tmp_path, case):
    results = tree(tmp_path, case)
    job = job_of(results)
    write_extras(results)
    write_problems(results)
    planned = artefacts.planned(job.config)
    order = ("scores", "power", "stability", "cost", "decomposition", "claims")
    names = [*order, *(name for name in planned if name not in (*order, *LATER)), "report"]
    for name in names:
        assert all(path.stat().st_size > 40 for path in artefacts.make(name, job)), name
    method, seed, step, last = case[0]
    said = f"Diverged: {method} seed {seed} at step {step}"
    for file in ("tables/main.md", "tables/cost.md", "tables/stability.md", "tables/lm_eval.md", "claims.md"):
        assert said in (results.root / file).read_text(), file
    report = (results.root / "report.html").read_text()
    assert f'<th scope="row">{method}, seed {seed}</th><td>{step}</td>' in report and f"<td>{last}</td>" in report
    assert report.count(said) > 8  # captions of figures and tables
    scores = pd.read_csv(results.root / "scores.csv").query("metric == 'mean@8'")
    steps = scores.groupby(["method", "seed"])["step"].apply(list)
    assert all(found[-1] == 40 for found in steps)
    held = scores.query("method == @method and seed == @seed and step >= @last")["value"]
    assert held.nunique() == 1 and len(held) > 1
    collapsed = pd.read_csv(results.root / "stability.csv").query("metric == 'collapsed'").set_index(["method", "seed"])
    assert all(collapsed["value"][run[:2]] == 1 for run in case)
    claims = json.loads((results.root / "claims.json").read_text())
    assert any("runs diverged" in claim["reason"] for claim in claims)


def test_a_run_that_the_program_stopped_counts_alike(tmp_path):
    results = tree(tmp_path, [("grpo", 1, 25, 20)])
    path = results.run_dir("grpo", 1) / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1] = rows[-2] | {
        "step": 25,
        "diverged": "collapsed: validation accuracy 0.100 is below 0.5 of its best, 0.300, again",
    }
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = replace(results)
    assert results.diverged["grpo", 1] == (25, rows[-1]["diverged"])
    for name in ("scores", "stability", "claims", "tables/main"):
        artefacts.make(name, job_of(results))
    assert "Stopped as collapsed: grpo seed 1 at step 25" in (results.root / "tables/main.md").read_text()
    found = pd.read_csv(results.root / "stability.csv").query("method == 'grpo' and seed == 1").set_index("metric")["value"]
    assert (found["collapsed"], found["collapse_step"], found["rollouts_collapsed"], found["rollouts_collapse_step"]) == (
        1,
        25,
        1,
        25,
    )
    claims = json.loads((results.root / "claims.json").read_text())
    ends_above = next(claim for claim in claims if claim["id"] == "1a")
    assert ends_above["collapsed"][1] == {"method": "grpo", "collapsed": 1, "runs": 3} | {
        key: pytest.approx(value, abs=1e-3) for key, value in (("low", 0.0084), ("high", 0.9057))
    }


def test_without_a_divergence_no_caption_speaks_of_one(tmp_path):
    results = tree(tmp_path, [])
    for name in ("scores", "tables/main", "claims"):
        artefacts.make(name, job_of(results))
    assert "Diverged:" not in (results.root / "tables/main.md").read_text() + (results.root / "claims.md").read_text()
    assert sentences(results.diverged) == ""


def test_a_run_that_is_only_short_is_still_an_error(tmp_path):
    results = tree(tmp_path, [("grpo", 0, 30, 30)])
    path = results.run_dir("grpo", 1) / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(ValueError, match=r"grpo/seed1/metrics.jsonl should have one row for each of the steps 1..40, got 30"):
        _ = results.metrics
    path = results.eval_dir("grpo", 2) / "chain.parquet"
    frame = pd.read_parquet(path)
    frame[frame["step"] <= 30].to_parquet(path)
    with pytest.raises(ValueError, match=r"grpo/seed2/chain.parquet has other checkpoints than .*seed1"):
        task_scores(results, "grpo", "chain")


def test_a_checkpoint_that_the_others_do_not_have_counts_from_the_next_one_on(tmp_path):
    """Of a run that kept every 20th checkpoint, the last one before it diverged stays, too."""
    results = tree(tmp_path, [("grpo", 1, 38, 30)])
    for seed in (0, 1, 2):
        path = results.eval_dir("grpo", seed) / "chain.parquet"
        frame = pd.read_parquet(path)
        frame[frame["step"].isin([0, 20, 30, 40] if seed == 1 else [0, 20, 40])].to_parquet(path)
    own = pd.read_parquet(results.eval_dir("grpo", 1) / "chain.parquet").groupby("step")["correct"].mean()
    scores = task_scores(results, "grpo", "chain")
    assert scores.steps.tolist() == [0, 20, 40]
    assert scores.values["mean@8"][1].mean(axis=1) == pytest.approx(own[[0, 20, 30]].to_numpy())


def test_a_diverged_run_sets_no_budget_and_is_not_cheap(tmp_path):
    results = tree(tmp_path, [("grpo", 1, 2, 0)])
    for name in ("scores", "cost", "tables/cost"):
        artefacts.make(name, job_of(results))
    cost = pd.read_csv(results.root / "cost.csv").query("method == 'grpo' and seed == 1")
    really = results.metrics.query("method == 'grpo' and seed == 1")["sampled_tokens"].sum()
    assert cost["tokens"].tolist() == [0, *[really] * 4]
    budgets = pd.read_csv(results.root / "tables" / "cost.csv").query("axis == 'tokens'")
    assert (budgets["budget"] > 10 * cost["tokens"].iloc[-1]).all() and set(budgets["method"]) == set(METHODS)
    spent = Runs(results).cost("grpo", "tokens")
    assert spent.shape == (3, 40) and spent[1, -1] > 0.8 * spent[0, -1]


def test_a_metric_that_overflowed_holds_its_value_and_a_missing_one_does_not(tmp_path):
    results = tree(tmp_path, [])
    path = results.run_dir("grpo", 1) / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[9] |= {"kl_ref": None, "entropy": None, "grad_norm": None, "nonfinite": 3}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("scores", "stability", "cost", "figures/training_curves", "figures/stability", "tables/stability", "claims"):
        artefacts.make(name, job_of(replace(results)))
    values = Runs(replace(results)).curve("grpo", "entropy")[1]
    assert values[9] == values[8] != values[10]
    stable = pd.read_csv(results.root / "stability.csv").query("method == 'grpo' and seed == 1").set_index("metric")["value"]
    assert stable["kl_ref_max"] == pytest.approx(max(row["kl_ref"] for row in rows if row["kl_ref"] is not None))
    assert stable["gradient_spikes"] == pytest.approx(1 / 35)
    path.write_text("".join(json.dumps(row | {"nonfinite": 0}) + "\n" for row in rows))
    with pytest.raises(NotRun, match="no values of entropy at every step"):
        Runs(replace(results)).curve("grpo", "entropy")
    with pytest.raises(ValueError, match=r"no value for entropy, grad_norm in some rows"):
        make("stability", replace(results))


def test_the_matrix_counts_a_diverged_run_as_collapsed(tmp_path):
    results = tree(tmp_path, [("sdpg-ufkl", 2, 38, 30)])
    artefacts.make("scores", job_of(results))
    frame = matrix([results]).set_index("method")
    assert frame["collapsed"]["sdpg-ufkl"] == 1 and frame["step"].tolist() == [40] * 3
    artefacts.make_across("matrix", [results], tmp_path / "matrix")
    assert "fake: Diverged: sdpg-ufkl seed 2 at step 38" in (tmp_path / "matrix" / "matrix.md").read_text()

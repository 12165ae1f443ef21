"""The committed reference: what it holds, and whether another run is told from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sdpg.analysis import reference
from sdpg.analysis.agreement import counts_p, difference, pooled_spread, together, welch
from sdpg.analysis.intervals import Contrast
from sdpg.analysis.layout import Residual
from sdpg.analysis.reference import compare, make_reference
from tests.analysis.fake_results import write_claims, write_problems, write_results
from tests.making import make

ROOT = Path(__file__).resolve().parents[2]
LISTED = ("scores.csv", "intervals.csv", "comparisons.csv", "claims.json", "data/eval/chain.parquet")
OPTIONS = {"methods": ("sdpg-ufkl", "grpo"), "steps": 4, "every": 2, "problems": 24}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run with four seeds, the reference made from it, and another run of the same experiment with other seeds."""
    folder = tmp_path_factory.mktemp("runs")
    first = write_results(folder / "first", seeds=(0, 1, 2, 3), **OPTIONS)
    second = write_results(folder / "second", seeds=(4, 5, 6), **OPTIONS)
    for results in (first, second):
        make("scores", results)
        write_problems(results)
        write_claims(results)
    (first.root / "left_over.csv").touch()
    make_reference(first, folder / "reference", LISTED)
    return first, second, folder / "reference"


def test_the_reference_is_the_small_outcome(both):
    _, _, folder = both
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"scores.csv", "intervals.csv", "comparisons.csv", "claims.json", "reference.json", "accuracy.csv"}


def test_a_reference_that_is_too_large_is_refused_and_the_old_one_stays(both, tmp_path, monkeypatch):
    first, _, folder = both
    shutil.copytree(folder, tmp_path / "reference")
    monkeypatch.setattr(reference, "LARGEST", 1000)
    with pytest.raises(ValueError, match="more than 1000"):
        make_reference(first, tmp_path / "reference", LISTED)
    assert (tmp_path / "reference" / "scores.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]


def test_the_same_results_and_another_run_of_the_same_experiment_agree(both):
    first, second, folder = both
    same, other = compare(first, folder), compare(second, folder)
    assert same.headline == (
        "reproduced: two honest runs differ by as much in 100% of cases; 4 of 4 scores, 3 of 3 claims agree with the reference"
    )
    assert other.holds and other.headline.startswith("reproduced: two honest runs differ by as much in ")
    assert same.rows["difference"].abs().max() == 0
    assert not same.changed and not other.changed
    assert 0 < other.rows.set_index("kind")["p"]["all"] <= 1


def answer(results, method: str, task: str, correct: bool) -> None:
    """Let all responses of the last checkpoint be right, or wrong."""
    for seed in results.seeds:
        path = results.eval_dir(method, seed) / f"{task}.parquet"
        frame = pd.read_parquet(path)
        frame.loc[frame["step"] == 4, "correct"] = correct
        frame.to_parquet(path)


def test_a_shifted_score_and_an_opposite_verdict_are_told_and_a_changed_one_is_named(both, tmp_path):
    first, _, folder = both
    shutil.copytree(first.root, tmp_path / "run")
    results = replace(first, root=tmp_path / "run")
    answer(results, "grpo", "chain", True)
    claims = json.loads((results.root / "claims.json").read_text())
    claims[0] |= {"estimate": 0.06, "verdict": "refuted"}
    claims[1] |= {"verdict": "supported"}
    (results.root / "claims.json").write_text(json.dumps(claims))
    agreement = compare(results, folder)
    assert not agreement.holds
    assert agreement.headline.startswith("not reproduced: two honest runs differ by as much in ")
    assert agreement.headline.endswith(
        "; 3 of 4 scores, 2 of 3 claims agree with the reference; these differ: grpo on chain, ends-above-grpo; "
        "verdicts that changed: ends-above-grpo supported -> refuted, higher-entropy open -> supported"
    )


def test_runs_that_collapsed_here_alone_are_told_by_their_count(both, tmp_path):
    first, _, folder = both
    shutil.copytree(first.root, tmp_path / "run")
    results = replace(first, root=tmp_path / "run")
    answer(results, "grpo", "chain", False)
    rows = compare(results, folder).rows
    counted = rows[rows["kind"] == "collapse count"]
    assert counted[["item", "task", "here", "reference"]].values.tolist() == [["grpo", "chain", 1.0, 0.0]]
    assert counted["p"].item() == pytest.approx(stats.fisher_exact([[4, 0], [0, 4]]).pvalue)
    assert np.isnan(rows.query("kind == 'score' and item == 'grpo' and task == 'chain'")["here"].item())


def test_a_reference_of_older_rules_is_compared_by_its_scores_and_that_is_said(both, tmp_path):
    first, _, folder = both
    shutil.copytree(folder, tmp_path / "old")
    claims = json.loads((tmp_path / "old" / "claims.json").read_text())
    for claim in claims:
        for key in ("estimate", "error", "df"):
            del claim[key]
    (tmp_path / "old" / "claims.json").write_text(json.dumps(claims))
    (tmp_path / "old" / "accuracy.csv").unlink()  # its scores.csv says the same
    agreement = compare(first, tmp_path / "old")
    assert set(agreement.rows["kind"]) == {"all", "score"}
    assert [note for note in agreement.notes if "other rules; make it again" in note]


def test_what_only_one_of_them_has_is_said(both, tmp_path):
    _, second, folder = both
    agreement = compare(replace(second, methods=("grpo",)), folder)
    assert "sdpg-ufkl on chain is in the reference alone" in agreement.notes
    shutil.copytree(second.root, tmp_path / "run")
    (tmp_path / "run" / "claims.json").unlink()
    notes = compare(replace(second, root=tmp_path / "run", seeds=(4,)), folder).notes
    assert any("claims are not compared" in note for note in notes)


def test_a_claim_that_one_has_alone_or_that_is_stated_otherwise_is_said_and_not_compared(both, tmp_path):
    first, _, folder = both
    shutil.copytree(first.root, tmp_path / "run")
    path = tmp_path / "run" / "claims.json"
    claims = json.loads(path.read_text())
    claims[0] |= {"claim": "Something else", "verdict": "refuted"}
    claims[1]["id"] = "new"
    path.write_text(json.dumps(claims))
    agreement = compare(replace(first, root=tmp_path / "run"), folder)
    assert agreement.holds and not agreement.changed
    assert {"ends-above-grpo", "new", "higher-entropy"}.isdisjoint(agreement.rows["item"])
    said = "claim ends-above-grpo is stated otherwise in the reference, and not compared: 'SDPG-UFKL ends above GRPO on chain'"
    assert {said, "claim new is not in the reference", "claim higher-entropy is in the reference alone"} <= set(agreement.notes)


def test_one_run_of_each_is_judged_by_all_scores_together_alone(tmp_path):
    one = write_results(tmp_path / "one", seeds=(0,), **OPTIONS)
    make("scores", one)
    write_problems(one)
    make_reference(one, tmp_path / "reference", LISTED)
    agreement = compare(one, tmp_path / "reference")
    assert agreement.rows["p"].notna().tolist() == [True, False, False, False, False]
    said = "two honest runs differ by as much in 100% of cases; no single score can be told to differ from the reference"
    assert agreement.headline == f"reproduced: {said}"
    assert any("it is not counted" in note for note in agreement.notes)


def test_other_problems_cannot_be_compared(both, tmp_path):
    _, second, folder = both
    shutil.copytree(second.root, tmp_path / "run")
    path = tmp_path / "run" / "data" / "eval" / "chain.parquet"
    pd.read_parquet(path).assign(answer="0").to_parquet(path)
    with pytest.raises(ValueError, match="chain: other problems than in"):
        compare(replace(second, root=tmp_path / "run"), folder)
    with pytest.raises(ValueError, match="holds no reference for this scale; `make reference`"):
        compare(second, tmp_path / "none")


def test_a_difference_of_other_units_is_students_test_and_of_the_same_ones_the_paired_one():
    dice = np.random.default_rng(0)
    a, b = dice.normal(0, 1, 5), dice.normal(0.5, 1, 4)
    ours, scipys = difference(a, b, Residual(np.nan, 0), shared=False), stats.ttest_ind(a, b)
    assert ours.p == pytest.approx(scipys.pvalue)
    assert ours.interval() == pytest.approx(tuple(scipys.confidence_interval()))
    c = a + dice.normal(0.1, 0.2, 5)
    assert difference(a, c, Residual(np.nan, 0), shared=True).p == pytest.approx(stats.ttest_rel(a, c).pvalue)
    assert np.isnan(difference(np.full(3, np.nan), b, Residual(1.0, 9), shared=False).effect)


def test_of_the_same_units_those_that_are_healthy_in_both_runs_are_compared():
    """Else two equal runs, of which one lost its best base model, would differ by that base model's level."""
    levels, nan = np.array([0.2, 0.4, 0.6, 0.9]), np.nan
    here, there = levels.copy(), np.append(levels[:3] + [0.01, 0.02, 0.03], nan)
    found = difference(here, there, Residual(nan, 0), shared=True)
    assert found.effect == pytest.approx(-0.02) and found.df == 2
    assert found.p == pytest.approx(stats.ttest_rel(here[:3], there[:3]).pvalue)
    one = difference(np.array([0.2, nan]), np.array([0.3, 0.5]), Residual(0.02, 9), shared=True)
    assert (one.effect, one.error, one.df) == pytest.approx((-0.1, 0.2, 9))  # nothing of its own, the pool's
    assert np.isnan(difference(np.array([0.2, nan]), np.array([nan, 0.5]), Residual(0.02, 9), shared=True).effect)


def test_the_spread_is_about_method_and_unit_where_the_units_are_the_same():
    dice = np.random.default_rng(1)
    levels = dice.normal(0, 5, 8)
    a, b = (levels + dice.normal(0, 1, (6, 8)) for _ in range(2))
    same, other = (pooled_spread(a, b, shared=shared) for shared in (True, False))
    assert (same.df, other.df) == (2 * 5 * 7, 2 * 6 * 7)
    assert same.variance == pytest.approx(1, abs=0.4) and other.variance > 5


def test_independent_estimates_differ_by_welchs_rule_and_counts_by_fishers():
    found = welch(Contrast(0.3, 0.03, 4.0), Contrast(0.1, 0.04, 9.0))
    assert (found.effect, found.error) == pytest.approx((0.2, 0.05))
    assert found.df == pytest.approx(0.05**4 / (0.03**4 / 4 + 0.04**4 / 9))
    assert counts_p(10, 10, 0, 10) == pytest.approx(1.08e-5, rel=0.01)
    assert counts_p(2, 10, 2, 10) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_all_scores_together_are_judged_by_permutation(shared):
    dice = np.random.default_rng(2)
    p = []
    for _ in range(200):  # bistable: a t-test would not do
        a, b = (np.where(dice.random((4, 6)) < 0.2, 0.1, dice.normal(0.8, 0.05, (4, 6))) for _ in range(2))
        p.append(together([a], [b], shared=shared, draws=200))
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 200)
    assert together([a], [a], shared=shared) == 1
    assert together([a], [a + 0.5], shared=shared) < 0.01


def test_the_command_says_it_in_its_first_line(both, tmp_path):
    _, second, folder = both
    scale = tmp_path / "fake.yaml"
    scale.write_text(
        "name: fake\nseeds: [4, 5, 6]\nmodel: nowhere\nmethods: [sdpg-ufkl, grpo]\n"
        "data: {train: {path: x.jsonl}, evaluation: {chain: {path: x.jsonl}, chain-long: {path: x.jsonl}}}\n"
        "train: {steps: 4, max_prompt_tokens: 8, max_response_tokens: 8}\nevaluation: {samples: 8, pass_k: [1]}\n"
    )
    command = [sys.executable, "-m", "sdpg", "compare", "--scale", str(scale), "--results", str(second.root)]
    done = subprocess.run([*command, "--reference", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("reproduced: two honest runs differ by as much in ")
    assert first.endswith("4 of 4 scores, 3 of 3 claims agree with the reference")

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
from sdpg.analysis.comparisons import holm
from sdpg.analysis.reference import compare, make_reference, unpaired_difference
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
    first, _, folder = both
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"scores.csv", "intervals.csv", "comparisons.csv", "claims.json", "problems.csv", "reference.json"}
    frame = pd.read_csv(folder / "problems.csv")
    mean = frame.query("method == 'grpo' and task == 'chain'")["seed2"].mean()
    score = first.scores.query("method == 'grpo' and task == 'chain' and seed == 2 and step == 4 and metric == 'mean@8'")
    assert mean == pytest.approx(score["value"].item())


def test_a_reference_that_is_too_large_is_refused_and_the_old_one_stays(both, tmp_path, monkeypatch):
    first, _, folder = both
    shutil.copytree(folder, tmp_path / "reference")
    monkeypatch.setattr(reference, "LARGEST", 1000)
    with pytest.raises(ValueError, match="more than 1000"):
        make_reference(first, tmp_path / "reference", LISTED)
    assert (tmp_path / "reference" / "problems.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]


def test_the_same_results_and_another_run_of_the_same_experiment_agree(both):
    first, second, folder = both
    for results in (first, second):
        agreement = compare(results, folder)
        assert agreement.holds
        assert agreement.headline == "reproduced: 4 of 4 scores and 2 of 2 claims agree with the reference"
    assert compare(first, folder).rows["difference"].abs().max() == 0


def test_a_shifted_score_and_an_opposite_verdict_are_told(both, tmp_path):
    _, second, folder = both
    shutil.copytree(second.root, tmp_path / "run")
    results = replace(second, root=tmp_path / "run")
    for seed in results.seeds:
        path = results.eval_dir("grpo", seed) / "chain.parquet"
        frame = pd.read_parquet(path)
        pd.concat([frame.assign(correct=False)]).to_parquet(path)
    claims = json.loads((results.root / "claims.json").read_text())
    claims[0] |= {"effect": -0.2, "low": -0.25, "high": -0.15, "verdict": "refuted"}
    (results.root / "claims.json").write_text(json.dumps(claims))
    agreement = compare(results, folder)
    assert not agreement.holds
    assert agreement.headline == (
        "not reproduced: 3 of 4 scores and 1 of 2 claims agree with the reference; "
        f"these differ: grpo on chain, {claims[0]['id']}"
    )


def test_what_only_one_of_them_has_is_said(both, tmp_path):
    _, second, folder = both
    agreement = compare(replace(second, methods=("grpo",)), folder)
    assert "sdpg-ufkl on chain is in the reference alone" in agreement.notes
    shutil.copytree(second.root, tmp_path / "run")
    (tmp_path / "run" / "claims.json").unlink()
    notes = compare(replace(second, root=tmp_path / "run", seeds=(4,)), folder).notes
    assert any("claims are not compared" in note for note in notes)
    assert any("with one seed" in note for note in notes)


def test_other_problems_cannot_be_compared(both, tmp_path):
    _, second, folder = both
    shutil.copytree(second.root, tmp_path / "run")
    path = tmp_path / "run" / "data" / "eval" / "chain.parquet"
    pd.read_parquet(path).assign(answer="0").to_parquet(path)
    with pytest.raises(ValueError, match="chain: other problems than in"):
        compare(replace(second, root=tmp_path / "run"), folder)
    with pytest.raises(ValueError, match="holds no reference for this scale; `make reference`"):
        compare(second, tmp_path / "none")


def test_with_one_problem_it_is_students_test():
    dice = np.random.default_rng(0)
    a, b = dice.normal(0, 1, (5, 1)), dice.normal(0.5, 1, (4, 1))
    ours, scipys = unpaired_difference(a, b), stats.ttest_ind(a[:, 0], b[:, 0])
    assert ours.p == pytest.approx(scipys.pvalue)
    assert ours.interval() == pytest.approx(tuple(scipys.confidence_interval()))


def test_without_seeds_it_is_the_paired_test_over_problems():
    dice = np.random.default_rng(1)
    a, b = dice.normal(0, 1, (1, 30)), dice.normal(0.2, 1, (1, 30))
    assert unpaired_difference(a, b).p == pytest.approx(stats.ttest_rel(a[0], b[0]).pvalue)
    same = unpaired_difference(np.ones((3, 4)), np.ones((2, 4)))
    assert (same.value, same.p, same.interval()) == (0, 1, (0, 0))


def simulated(dice, seeds: int, level: np.ndarray, difficulty: np.ndarray) -> list[np.ndarray]:
    """Accuracies [seeds, problems] of each level: runs differ, problems differ, four samples of each."""
    runs = level[:, None, None] + 0.4 * dice.normal(size=(len(level), seeds, 1)) + difficulty
    return list(dice.binomial(4, 1 / (1 + np.exp(-runs))) / 4)


@pytest.mark.parametrize(("seeds", "other"), [(4, 5), (2, 4), (1, 4), (3, 3)])
def test_runs_that_differ_by_chance_agree_in_at_least_95_of_100_comparisons(seeds, other):
    dice = np.random.default_rng(0)
    level = np.linspace(-2, 3, 24)
    agree = 0
    for _ in range(400):
        difficulty = dice.normal(0, 1, 128)
        here, there = simulated(dice, seeds, level, difficulty), simulated(dice, other, level, difficulty)
        p = [unpaired_difference(a, b).p for a, b in zip(here, there, strict=True)]
        agree += min(holm(p)) > reference.ALPHA
    assert agree >= 0.95 * 400


def test_a_shift_is_found():
    dice = np.random.default_rng(0)
    level = np.linspace(-2, 3, 24)
    found = 0
    for _ in range(50):
        difficulty = dice.normal(0, 1, 128)
        here, there = (simulated(dice, 5, level + shift, difficulty) for shift in (0, np.eye(24)[10] * 3))
        adjusted = holm([unpaired_difference(a, b).p for a, b in zip(here, there, strict=True)])
        found += adjusted[10] <= reference.ALPHA
    assert found >= 45


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
    assert done.stdout.splitlines()[0] == "reproduced: 4 of 4 scores and 2 of 2 claims agree with the reference"

"""Every claim of config/claims.yaml can be supported, refuted, left open and not run; and how verdicts are reached, by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from sdpg.analysis.comparisons import Contrast, contrast, holm
from sdpg.artefacts.claims import evaluate, proposition
from sdpg.artefacts.claims.spec import CLAIMS, Claim, read_claims
from sdpg.artefacts.claims.verdicts import Combined, Part, combine, decide, margin_of
from sdpg.config import ConfigError
from tests.analysis.fake_claims import write_claim_results
from tests.analysis.fake_results import write_results
from tests.making import make

ROOT = Path(__file__).resolve().parents[2]
ALPHA, ALL = read_claims()
TESTED = [claim for claim in ALL if claim["test"] not in ("proposition", "published")]
KEYS = "id claim source family comparison effect low high unit direction margin verdict axis reason figure p p_holm parts"


def alone(claim, folder: Path) -> Path:
    """A file with this claim only."""
    defaults = {"relative": False, "axis": "steps", "combine": "all"}
    own = {key: value for key, value in claim.items() if defaults.get(key, ...) != value}
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"alpha": ALPHA, "claims": [own]}))
    return path


@pytest.mark.parametrize("outcome", ["supported", "refuted", "inconclusive"])
@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim["id"])
def test_each_claim_can_go_either_way(claim, outcome, tmp_path):
    results = write_claim_results(tmp_path / "made", claim, outcome)
    (row,) = evaluate(results, alone(claim, tmp_path))
    assert row["verdict"] == outcome, row
    assert row["low"] <= row["effect"] <= row["high"]
    sign = 1 if claim["direction"] == "above" else -1
    beyond = sign * row["effect"] > claim["margin"]
    assert outcome == "inconclusive" or beyond == (outcome == "supported")
    assert (row["p_holm"] <= ALPHA) == (outcome != "inconclusive")
    assert row["family"] == results.family


@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim["id"])
def test_each_claim_is_not_run_without_its_methods_or_in_another_family(claim, tmp_path):
    results = write_claim_results(tmp_path / "made", claim, "supported")
    path = alone(claim, tmp_path)
    (row,) = evaluate(replace(results, methods=("dapo",)), path)
    assert (row["verdict"], row["effect"]) == ("not run at this scale", None)
    assert row["reason"].endswith("is not part of this scale")
    if len(claim["family"]) == 1:
        (row,) = evaluate(replace(results, family="published"), path)
        assert row["verdict"] == "not run at this scale"
        assert row["reason"] == "asks for the matched family; this scale is published"


@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim["id"])
def test_one_seed_proves_nothing(claim, tmp_path):
    results = write_claim_results(tmp_path / "made", claim, "supported")
    (row,) = evaluate(replace(results, seeds=(0,)), alone(claim, tmp_path))
    assert (row["verdict"], row["low"], row["p"]) == ("inconclusive", None, None)
    assert row["effect"] is not None
    assert "one seed" in row["reason"]


def test_the_smallest_scale_mostly_cannot_say(tmp_path):
    """Two methods, one seed, four steps, as scale smoke: not one verdict that claims to know, but for the exact check."""
    made = write_results(tmp_path / "tiny", methods=("sdpg-ufkl", "grpo"), seeds=(0,), steps=4, every=2, problems=4)
    verdicts = {row["id"]: row["verdict"] for row in evaluate(made)}
    assert verdicts.pop("7a") == "supported"
    assert set(verdicts.values()) == {"inconclusive", "not run at this scale", "single run, no interval"}
    assert verdicts["1b"] == "inconclusive"
    assert make("claims", made)[1].read_text().count("one seed") > 2


def of(identity):
    return next(claim for claim in ALL if claim["id"] == identity)


def test_the_proposition_is_checked_and_could_fail(full, tmp_path, monkeypatch):
    path = alone(of("7a"), tmp_path)
    (row,) = evaluate(full, path)
    assert (row["verdict"], row["p"], row["figure"], row["axis"]) == ("supported", None, None, None)
    assert 0 <= row["effect"] < 1e-12
    right = proposition.advantage
    for wrong in (lambda p, q: -right(p, q), lambda p, q: right(p, q) + 1e-3, lambda p, q: right(q, p)):
        monkeypatch.setattr(proposition, "advantage", wrong)
        (row,) = evaluate(full, path)
        assert row["verdict"] == "refuted"
        assert row["effect"] > 1e-4


def test_a_constant_baseline_changes_the_mean_of_the_advantage_and_not_the_gradient(monkeypatch):
    """So E_p[A] = 0 needs a separate check: with A + 1e-3 the gradients still agree."""
    right = proposition.advantage
    monkeypatch.setattr(proposition, "advantage", lambda p, q: right(p, q) + 1e-3)
    assert proposition.largest_error() == pytest.approx(1e-3)


def test_published_rows_are_differences_of_the_curves_without_a_verdict(full):
    rows = {row["id"]: row for row in evaluate(full) if row["family"] == "published data"}
    assert {row["verdict"] for row in rows.values()} == {"single run, no interval"}
    assert all(row["low"] is row["p"] is None for row in rows.values())
    curves = full.published_curves.query("step >= 330")
    level = curves.groupby(["figure", "method", "metric"])["value"].mean()
    for part in rows["P1"]["parts"]:
        expected = level["fig5", "sdpg-urkl-beta0", part["task"]] - level["fig3", "grpo", part["task"]]
        assert part["effect"] == pytest.approx(expected)
    assert level["fig5", "sdpg-urkl-beta0", "aime24"] == pytest.approx(0.378, abs=5e-4)
    assert rows["P1"]["effect"] > 0.05 > abs(rows["P2"]["effect"])


def test_files(full, tmp_path):
    made = replace(full, root=tmp_path / full.root.name)
    made.root.mkdir()
    for name in ("eval", "runs"):
        (made.root / name).symlink_to(full.root / name)
    first, table = make("claims", made)
    before = first.read_bytes()
    rows = json.loads(before)
    assert [row["id"] for row in rows] == [claim["id"] for claim in ALL]
    assert {tuple(sorted(row)) for row in rows} == {tuple(sorted(KEYS.split()))}
    text = table.read_text()
    assert text.count("\n| **") == len(ALL)
    assert all(words in text for words in ("Holm", "3 seeds", "not corrected", "weakest"))
    assert [line.split("**")[1] for line in text.splitlines() if line.startswith("| **")] == [r["verdict"] for r in rows]
    assert rows[0]["verdict"] != "not run at this scale"
    assert {row["verdict"] for row in rows if "rlsd" in row["comparison"]} == {"not run at this scale"}
    make("claims", made)
    assert first.read_bytes() == before


def test_effects_and_p_values_are_those_of_the_contrast_on_the_scores(full):
    rows = evaluate(full)
    row = next(row for row in rows if row["id"] == "1a")
    scores = full.scores.query("metric == 'mean@8' and step == 40")
    means = scores.groupby(["task", "method"])["value"].mean()
    for part in row["parts"]:
        task = part["task"]
        assert part["effect"] == pytest.approx(means[task, "sdpg-urkl"] - means[task, "grpo"])
        compared = full.comparisons.query("method == 'sdpg-urkl' and other == 'grpo' and task == @task").iloc[0]
        assert (part["low"], part["high"]) == pytest.approx((compared["low"], compared["high"]))
    ours = [row for row in rows if row["p"] is not None]
    assert [row["p_holm"] for row in ours] == pytest.approx(holm([row["p"] for row in ours]))


def test_a_length_is_compared_as_a_ratio_of_geometric_means(full):
    row = next(row for row in evaluate(full) if row["id"] == "4a")
    end = full.metrics.query("step > 36").groupby(["method", "seed"])["response_length"].mean()
    ratio = np.log(end["sdpg-urkl"]) - np.log(end["grpo"])
    assert row["effect"] == pytest.approx(np.expm1(ratio.mean()))
    assert row["unit"] == "relative change"


def test_time_to_a_level_by_hand(tmp_path):
    """The first method rises at step 8 of 80, the other at 72. The mean of five steps around each gets there two steps later:
    10 against 74 steps, and as many FLOPs; step k samples 1000 + k tokens."""
    results = write_claim_results(tmp_path / "made", of("2c-steps"), "supported")
    tokens = [k * 1000 + k * (k + 1) / 2 for k in (10, 74)]
    expected = {"2c-steps": 10 / 74, "2c-tokens": tokens[0] / tokens[1], "2c-compute": 10 / 74}
    for identity, ratio in expected.items():
        (row,) = evaluate(results, alone(of(identity), tmp_path))
        assert row["effect"] == pytest.approx(ratio - 1)
        assert row["axis"] == of(identity)["axis"]


def part(effect, error=0.01, margin=0.02, task="a"):
    return Part(task, Contrast(effect, error, 30.0), margin)


def test_a_claim_about_every_set_falls_with_one_and_one_about_any_stands_with_one():
    good, bad, open_ = part(0.2, task="good"), part(-0.2, task="bad"), part(0.03, error=0.1, task="open")
    assert combine([good, bad], "all").leaning == "refuted"
    assert combine([good, bad], "all").part is bad
    assert combine([good, bad], "any").part is good
    assert combine([good, open_], "all").p > 0.05 > combine([good, open_], "any").p
    assert combine([bad, open_], "any").p > 0.05 > combine([bad, open_], "all").p
    both = combine([good, part(0.1)], "all")
    assert both.p == pytest.approx(2 * part(0.1).p_support)  # no correction: each must hold
    assert combine([bad, bad], "all").p == pytest.approx(2 * 2 * bad.p_refute)  # Bonferroni: one is enough


@pytest.mark.parametrize(
    ("effect", "verdict", "reason"),
    [
        (0.1, "supported", "beyond the margin"),
        (0.0, "refuted", "no effect as large as the margin"),
        (-0.019, "refuted", "short of the margin"),
        (-0.2, "refuted", "the opposite holds"),
        (0.025, "inconclusive", "the data allow effects on both sides of the margin"),
    ],
)
def test_verdicts_of_one_claim(effect, verdict, reason):
    (decided,) = decide([combine([part(effect, error=0.005)], "all")], 0.05)
    assert decided[1:] == (verdict, reason)


def test_many_claims_together_ask_for_more():
    one = combine([part(0.045, error=0.01)], "all")
    assert one.p == pytest.approx(0.019, abs=0.001)
    assert decide([one], 0.05)[0][1] == "supported"
    open_ = Combined(0.5, 0.5, part(0.0))
    p_holm, verdict, reason = decide([one, open_, open_], 0.05)[0]
    assert (p_holm, verdict) == (pytest.approx(3 * one.p), "inconclusive")
    assert reason == "would be supported alone, not when 3 claims are tested together"


def test_verdicts_err_at_most_as_often_as_said():
    """At the margin itself either verdict is an error: over 12 claims there, any is given in 5% of families at most."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        made = [contrast(0.02 + rng.normal(0, 0.05, (5, 1))) for _ in range(12)]
        claims = [combine([Part("a", each, 0.02)], "all") for each in made]
        wrong += any(verdict != "inconclusive" for _, verdict, _ in decide(claims, 0.05))
    assert wrong / 400 <= 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 400)


def test_relative_margins_are_shares_on_either_side():
    claim = {"margin": 0.2}
    assert margin_of(claim | {"direction": "above"}, True) == pytest.approx(np.log(1.2))
    assert margin_of(claim | {"direction": "below"}, True) == pytest.approx(-np.log(0.8))
    assert margin_of(claim | {"direction": "below"}, False) == 0.2


def test_a_window_without_a_checkpoint_and_an_evaluation_set_of_another_scale_are_not_run(full, tmp_path):
    (row,) = evaluate(full, alone(of("6a") | {"methods": ["sdpg-urkl", "grpo"]}, tmp_path))  # checkpoints at 0, 1/2 and 1
    assert (row["verdict"], row["reason"]) == ("not run at this scale", "no checkpoint between 0 and 0.25 of the run")
    (row,) = evaluate(full, alone(of("1a") | {"tasks": ["aime24"]}, tmp_path))
    assert row["reason"] == "evaluation set aime24 is not part of this scale"


def test_a_metric_that_is_nowhere_is_an_error_with_the_nearest(full, tmp_path):
    with pytest.raises(ValueError, match="no metric 'lenght' in the evaluation; did you mean 'length'"):
        evaluate(full, alone(of("1a") | {"metric": "lenght"}, tmp_path))
    with pytest.raises(ValueError, match="no column 'entropi' in metrics.jsonl of sdpg-ufkl; did you mean 'entropy'"):
        evaluate(full, alone(of("3a") | {"metric": "entropi"}, tmp_path))
    with pytest.raises(ValueError, match="no method 'grp' in curves.csv; did you mean 'grpo'"):
        evaluate(full, alone(of("P1") | {"curves": [["fig3", "grp"], ["fig3", "grpo"]]}, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figur": "x"}, "claim 1a: key 'figur' is unknown; did you mean 'figure'"),
        ({"test": "lats"}, "claim 1a: test: got 'lats'; did you mean 'last'"),
        ({"figure": "final_acuracy"}, "figure: got 'final_acuracy'; did you mean 'final_accuracy'"),
        ({"methods": ["sdpg-urkll", "grpo"]}, "claim 1a: method 'sdpg-urkll' is unknown; did you mean 'sdpg-urkl'"),
        ({"methods": ["grpo"]}, "claim 1a: test 'last' takes 2 methods, got 1"),
        ({"window": [0, 1]}, "claim 1a: test 'last' does not use the key 'window'; it takes combine, methods, metric, tasks"),
        ({"test": "mean", "data": "training"}, "claim 1a: test 'mean' needs the key 'window'"),
        ({"margin": -1}, "claim 1a: margin: got -1; input should be greater than or equal to 0"),
        ({"family": ["matchd"]}, "claim 1a: family: got 'matchd'; did you mean 'matched'"),
        ({"test": "mean", "data": "training", "window": [1, 0.5]}, "window \\[1, 0.5\\] is empty"),
        ({"test": "mean", "data": "evaluation", "window": [0, 1], "relative": True}, "relative goes with data: training"),
        ({"test": "mean", "data": "training", "window": [0, 1], "tasks": ["a"]}, "tasks and combine go with"),
        (
            {"test": "time_to", "share": 0.5, "direction": "below", "margin": 1.5},
            "a relative margin below must be less than 1, got 1.5",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read_claims(alone(of("1a") | change, tmp_path))


def test_a_missing_key_and_a_second_claim_of_the_same_name(tmp_path):
    claim = of("1a")
    with pytest.raises(ConfigError, match="claim 1a: key 'margin' is missing"):
        read_claims(alone({key: value for key, value in claim.items() if key != "margin"}, tmp_path))
    path = alone(claim, tmp_path)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"claims": content["claims"] * 2}))
    with pytest.raises(ConfigError, match="the id '1a' is there twice"):
        read_claims(path)


def test_every_key_of_the_schema_is_explained_and_used():
    properties = Claim.model_json_schema()["properties"]
    assert all(block.get("description") for block in properties.values())
    used = {key for claim in yaml.safe_load(CLAIMS.read_text())["claims"] for key in claim}
    assert used | {"tasks"} == set(properties)


def test_the_paper_s_seven_claims_are_all_there():
    assert {claim["id"][0] for claim in ALL} == set("1234567P")


def test_the_command_line_prints_the_verdicts_and_names_a_missing_file(tmp_path):
    command = [sys.executable, "-m", "sdpg", "make", "claims", "--scale", "smoke"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: results/smoke/")

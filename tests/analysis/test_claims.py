"""Every claim of config/claims.yaml can be supported, refuted, left open, not testable and not run; and how verdicts are
reached.
"""

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

from sdpg.artefacts.claims import evaluate, proposition
from sdpg.artefacts.claims.spec import read_claims
from sdpg.config import ConfigError
from tests.analysis.fake_claims import ALL, ALPHA, STEPS, WORLDS, FakeRuns, alone, fake, jump, of, quick, untestable
from tests.analysis.fake_results import write_results
from tests.making import make

ROOT = Path(__file__).resolve().parents[2]
TESTED = [claim for claim in ALL if claim["test"] not in ("proposition", "published")]
KEYS = (
    "id claim source role test family comparison effect low high estimate error df unit direction margin paper verdict axis "
    "reason figure p p_adjusted parts preconditions collapsed p_collapse interaction units"
)


def verdict_of(claim, runs, folder) -> dict:
    (row,) = evaluate(runs.results, alone(claim, folder), runs)
    return row


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim["id"])
def test_positive_controls_are_supported_and_nulls_are_not(claim, world, tmp_path):
    """What is claimed happens, as large as in the paper; nothing happens; it happens in every other unit and the opposite in
    the rest.
    """
    row = verdict_of(claim, fake(claim, world), tmp_path)
    small = {"refuted"} if claim["id"] == "1c" else set()  # its units part by little: what is so on average may be found
    expected = {"claimed": {"supported"}, "null": {"refuted", "open"}, "wild": {"open"} | small}
    assert row["verdict"] in expected[world], row
    if claim["id"] != "1c":  # half of the paper's effect is .011 of accuracy there
        assert row["verdict"] == {"claimed": "supported", "null": "refuted", "wild": "open"}[world]
    assert all(found["met"] for found in row["preconditions"])
    sign = 1 if claim["direction"] == "above" else -1
    assert world != "claimed" or sign * row["effect"] > claim["margin"]
    assert row["low"] is None or row["low"] <= row["effect"] <= row["high"]
    assert (row["p_adjusted"] <= ALPHA) == (row["verdict"] != "open")


@pytest.mark.parametrize("claim", [claim for claim in TESTED if claim["needs"]], ids=lambda claim: claim["id"])
def test_a_claim_whose_conditions_fail_is_not_testable_and_the_numbers_are_shown(claim, tmp_path):
    row = verdict_of(claim, untestable(claim), tmp_path)
    assert row["verdict"] == "not testable here", row
    assert row["p"] is None
    failed = [found for found in row["preconditions"] if not found["met"]]
    assert failed and all(found["value"] < found["needed"] for found in failed)
    for found in failed:
        assert f"{found['what']}: {found['value']:.3g}, at least {found['needed']:.3g} needed" in row["reason"]
    one = untestable(claim)
    one.results = replace(one.results, seeds=(0,))
    assert verdict_of(claim, one, tmp_path)["verdict"] == "not testable here"  # it takes no spread


@pytest.mark.parametrize("identity", ["2a", "6a", "2d"])
def test_an_early_window_in_which_nothing_rises_shows_neither_verdict(identity, tmp_path):
    """Half of the paper's effect is what the fastest method must have gained, whichever it is, and not one of the two."""
    claim = of(identity)
    slow = {"accuracy": lambda t, s: 0.3 + 0.1 * t}
    curves = {method: own | slow for method, own in fake(claim, "null").curves.items()}
    row = verdict_of(claim, FakeRuns(curves), tmp_path)
    assert row["verdict"] == "not testable here" and row["effect"] is not None
    (found,) = row["preconditions"]
    assert found["needed"] == claim["effect"] / 2 > 0.05 > found["value"]
    assert row["reason"].startswith("gain of the fastest method, ")
    other = next(method for method in curves if method not in claim["methods"])
    runs = FakeRuns(curves | {other: curves[other] | {"accuracy": quick}})
    row = verdict_of(claim, runs, tmp_path)
    assert row["verdict"] == "refuted"
    (found,) = row["preconditions"]
    assert found["met"] and found["what"] == f"gain of the fastest method, {other}, in the window"
    (found,) = verdict_of(claim | {"needs": [{"what": "pace", "least": 0.5}]}, runs, tmp_path)["preconditions"]
    assert not found["met"] and found["needed"] == 0.5


def test_a_condition_is_of_what_a_claim_compares_with():
    """Of the last of its methods: what it is compared with, or the only one; of claims about collapse what must have risen."""
    for claim in TESTED:
        for need in claim["needs"]:
            expected = claim["methods"][0] if claim["test"] == "collapse" else claim["methods"][-1]
            assert need.get("method", expected) == expected, claim["id"]


@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim["id"])
def test_each_claim_is_not_run_without_its_methods_or_in_another_family(claim, tmp_path):
    runs = fake(claim, "claimed")
    path = alone(claim, tmp_path)
    runs.results = replace(runs.results, methods=("dapo",))
    (row,) = evaluate(runs.results, path, runs)
    assert (row["verdict"], row["effect"]) == ("not run at this scale", None)
    assert row["reason"].endswith("is not part of this scale")
    if len(claim["family"]) == 1:
        (row,) = evaluate(replace(runs.results, family="published"), path)
        assert row["verdict"] == "not run at this scale"
        assert row["reason"] == "asks for the matched family; this scale is published"


@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim["id"])
def test_one_run_proves_nothing(claim, tmp_path):
    row = verdict_of(claim, fake(claim, "claimed", units=1), tmp_path)
    assert (row["verdict"], row["low"], row["p"]) == ("open", None, None)
    assert row["effect"] is not None
    assert "one run" in row["reason"]


@pytest.mark.parametrize("claim", [of for of in TESTED if of["test"] in ("collapse", "change")], ids=lambda claim: claim["id"])
def test_five_runs_are_too_few_for_an_exact_test_and_it_is_said(claim, tmp_path):
    row = verdict_of(claim, fake(claim, "claimed", units=5), tmp_path)
    assert row["verdict"] == "open"
    assert "5 runs are too few for an exact test" in row["reason"]


def test_a_collapsed_run_is_left_out_counted_and_named(tmp_path):
    claim = of("1a")
    runs = fake(claim, "claimed")
    healthy = runs.curves["grpo"]["accuracy"]
    runs.curves["grpo"]["accuracy"] = lambda t, s: healthy(t, s) if s not in (3, 4) or t < 0.7 else 0.1
    row = verdict_of(claim, runs, tmp_path)
    assert row["verdict"] == "supported"
    assert row["units"] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert row["effect"] == pytest.approx(0.088, abs=0.02)  # and not .15
    assert [(each["method"], each["collapsed"]) for each in row["collapsed"]] == [("sdpg-urkl", 0), ("grpo", 2)]
    assert row["collapsed"][1]["low"] == pytest.approx(0.0252, abs=1e-4)  # Clopper and Pearson of 2 of 10
    assert "2 of 10 units left out, where a run collapsed (grpo 2)" in row["reason"]


def test_what_is_better_where_it_lives_but_dies_more_often_is_not_supported(tmp_path):
    claim = of("1a")
    runs = fake(claim, "claimed")
    better = runs.curves["sdpg-urkl"]["accuracy"]
    runs.curves["sdpg-urkl"]["accuracy"] = lambda t, s: better(t, s) if s > 5 or t < 0.7 else 0.1
    row = verdict_of(claim, runs, tmp_path)
    assert (row["verdict"], len(row["units"])) == ("open", 4)
    assert "sdpg-urkl collapses more often" in row["reason"]


def test_too_few_healthy_pairs_leave_it_open(tmp_path):
    claim = of("1a")
    runs = fake(claim, "claimed")
    usual_curve = runs.curves["grpo"]["accuracy"]
    runs.curves["grpo"]["accuracy"] = lambda t, s: usual_curve(t, s) if s < 2 or t < 0.7 else 0.1
    row = verdict_of(claim, runs, tmp_path)
    assert (row["verdict"], row["effect"]) == ("open", None)
    assert "too few pairs of healthy runs" in row["reason"]


def test_a_difference_that_depends_on_the_base_model_is_named(tmp_path):
    claim = of("2a")
    runs = fake(claim, "wild")
    runs.results = replace(runs.results, bases=(0, 1), base_count=2)  # the wild world's units take turns as the base models do
    row = verdict_of(claim, runs, tmp_path)
    assert row["interaction"]["p"] < 1e-6 and (row["interaction"]["df1"], row["interaction"]["df2"]) == (1, 8)
    assert "depends on the base model (F(1, 8)" in row["reason"]
    same = fake(claim, "claimed")
    assert verdict_of(claim, same, tmp_path)["interaction"] is None  # ten base models, one run each


def test_the_paper_s_effects_are_those_of_its_curves():
    """`effect` of every claim that the published curves can answer, from results/published/curves.csv."""
    curves = fake(of("2a"), "null").results.published_curves
    named = {"rpg": ("fig5", "sdpg-urkl-beta0"), "sdpg-no-anchor": ("fig5", "sdpg-urkl-alpha0"), "opcd": ("fig6", "opcd")}
    benchmarks = ["aime24", "aime25", "amc23"]

    def level(method, metric, window, data):
        figure, name = named.get(method, ("fig3", method))
        metrics = (
            benchmarks if metric == "accuracy" and data == "evaluation" else ["reward" if metric == "accuracy" else metric]
        )
        rows = curves[(curves["figure"] == figure) & (curves["method"] == name) & curves["metric"].isin(metrics)]
        rows = rows[(rows["step"] > window[0] * 400 + 1e-6) & (rows["step"] <= window[1] * 400 + 1e-6)]
        value = rows.groupby("metric")["value"].mean().mean()
        return (value + 1) / 2 if metrics == ["reward"] else value

    checked = []
    for claim in TESTED:
        if claim["test"] not in ("mean", "area", "change") or claim["id"] in ("6a", "1f"):  # these two: what would be lost
            continue
        window = claim.get("window", [0, 1])
        if claim["test"] == "change":
            ends = [level(claim["methods"][0], claim["metric"], claim[key], claim["data"]) for key in ("after", "before")]
        else:
            ends = [level(method, claim["metric"], window, claim["data"]) for method in claim["methods"]]
        effect = ends[0] / ends[1] - 1 if claim["relative"] else ends[0] - ends[1]
        sign = 1 if claim["direction"] == "above" else -1
        assert claim["effect"] == pytest.approx(sign * effect, rel=0.02), claim["id"]
        checked.append(claim["id"])
    assert len(checked) > 14
    assert of("6a")["effect"] == pytest.approx(
        level("sdpg-urkl", "accuracy", [0, 0.25], "training") - level("grpo", "accuracy", [0, 0.25], "training"), abs=1e-3
    )


def test_primary_claims_are_at_most_ten_and_the_rest_is_exploratory(tmp_path):
    primary = [claim for claim in TESTED if claim["role"] == "primary"]
    assert len(primary) == 10
    content = {
        "alpha": ALPHA,
        "claims": [
            yaml.safe_load(alone(of("1c") | {"id": f"x{i}", "role": "primary"}, tmp_path).read_text())["claims"][0]
            for i in range(11)
        ],
    }
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="11 claims are primary, at most 10 may be"):
        read_claims(tmp_path / "claims.yaml")


def test_the_smallest_scale_mostly_cannot_say(tmp_path):
    """Two methods, one seed, four steps, as scale smoke: not one verdict that claims to know, but for the exact check."""
    made = write_results(tmp_path / "tiny", methods=("sdpg-ufkl", "grpo"), seeds=(0,), steps=4, every=2, problems=4)
    verdicts = {row["id"]: row["verdict"] for row in evaluate(made)}
    assert verdicts.pop("7a") == "supported"
    assert set(verdicts.values()) == {"open", "not run at this scale", "single run, no interval"}
    assert verdicts["1b"] == "open"
    assert make("claims", made)[1].read_text().count("one run of each") > 1


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
    assert all(words in text for words in ("Holm", "fallback", "3 units", "not corrected", "weakest"))
    told = [line.split("**")[1] for line in text.splitlines() if line.startswith("| **")]
    assert sorted(told) == sorted(row["verdict"] for row in rows)
    assert text.index("## Not run") < text.index("## Proposition 3.1") < text.index("## What the paper's own curves say")
    assert {row["verdict"] for row in rows if "rlsd" in row["comparison"]} == {"not run at this scale"}
    make("claims", made)
    assert first.read_bytes() == before


def test_effects_are_those_of_the_scores_and_p_values_are_adjusted_by_role(full):
    rows = {row["id"]: row for row in evaluate(full)}
    scores = full.scores.query("metric == 'mean@8' and step > 20")
    means = scores.groupby(["task", "method"])["value"].mean()
    for part in rows["1a"]["parts"]:
        task = part["task"]
        assert part["effect"] == pytest.approx(means[task, "sdpg-urkl"] - means[task, "grpo"])
        compared = full.comparisons.query("method == 'sdpg-urkl' and other == 'grpo' and task == @task").iloc[0]
        assert (part["low"], part["high"]) == pytest.approx((compared["low"], compared["high"]))
    assert rows["1a"]["p_adjusted"] >= rows["1a"]["p"]


def test_a_length_is_compared_as_a_ratio_of_geometric_means(full):
    row = next(row for row in evaluate(full) if row["id"] == "4a")
    inside = full.metrics.query("5 < step <= 25").groupby(["method", "seed"])["response_length"].mean()
    ratio = np.log(inside["sdpg-urkl"]) - np.log(inside["grpo"])
    assert row["effect"] == pytest.approx(np.expm1(ratio.mean()))
    assert row["estimate"] == pytest.approx(ratio.mean())
    assert row["unit"] == "relative change"


def test_time_to_a_level_by_hand(tmp_path):
    """The first method jumps at step 8 of 80, the other at 72. The mean of five steps around each gets there two steps later:
    10 against 74 steps, and as many FLOPs; step k samples 1000 + k tokens."""
    runs = fake(of("2c-steps"), "null")
    for method, when in (("sdpg-urkl", 0.1), ("grpo", 0.9)):
        runs.curves[method]["accuracy"] = lambda t, s, when=when: 0.05 + 0.9 * (t >= when)
    assert STEPS == 80 and jump(0.1)(0.1, 0) > jump(0.1)(0.09, 0)
    tokens = [k * 1000 + k * (k + 1) / 2 for k in (10, 74)]
    expected = {"2c-steps": 10 / 74, "2c-tokens": tokens[0] / tokens[1], "2c-compute": 10 / 74}
    for identity, ratio in expected.items():
        row = verdict_of(of(identity), runs, tmp_path)
        assert row["effect"] == pytest.approx(ratio - 1)
        assert row["axis"] == of(identity)["axis"]


def risen(level, when):
    """A run that is at .3 and from the share `when` of it on at `level`."""
    return lambda t, s: 0.3 + (level(s) - 0.3) * (t >= when(s))


def test_the_level_to_get_to_is_that_of_the_unit(tmp_path):
    """Half of the base models never come near the mean of all; in each, the first method is seven times as fast."""
    claim = of("2c-steps") | {"share": 0.8}
    runs = fake(claim, "null")
    for method, when in (("sdpg-urkl", 0.125), ("grpo", 0.875)):
        runs.curves[method]["accuracy"] = risen(lambda s: 0.9 if s % 2 else 0.5, lambda s, when=when: when)
    row = verdict_of(claim, runs, tmp_path)
    assert row["verdict"] == "supported" and row["effect"] == pytest.approx(11 / 71 - 1, abs=0.03)
    assert "never got there" not in row["reason"]


def test_a_run_that_never_gets_there_counts_with_all_it_spent_and_is_named(tmp_path):
    """Fast in half of the units and never there in the others: not supported, although the mean is beyond the margin."""
    claim = of("2c-steps") | {"effect": 0.5}
    runs = fake(claim, "null")
    runs.curves["grpo"]["accuracy"] = risen(lambda s: 0.9, lambda s: 0.9)
    runs.curves["sdpg-urkl"]["accuracy"] = risen(lambda s: 0.6 if s < 5 else 0.9, lambda s: 0.05)
    row = verdict_of(claim, runs, tmp_path)
    assert row["high"] < -claim["margin"]
    assert row["verdict"] == "open" and "sdpg-urkl gets there less often" in row["reason"]
    assert "never got there: sdpg-urkl in 5 of 10, grpo in 0 of 10" in row["reason"]
    nowhere = fake(of("2c-steps"), "null")
    nowhere.curves |= runs.curves | {"sdpg-urkl": runs.curves["sdpg-urkl"] | {"accuracy": risen(lambda s: 0.6, lambda s: 0.05)}}
    assert verdict_of(of("2c-steps"), nowhere, tmp_path)["verdict"] == "refuted"


def test_what_becomes_of_a_run_after_the_window_does_not_decide_whether_it_counts(tmp_path):
    """The early lead is that of all runs, also of those that fall later; these are still counted as collapsed."""
    claim = of("2a")
    runs = fake(claim, "claimed")
    early = runs.curves["sdpg-urkl"]["accuracy"]
    runs.curves["sdpg-urkl"]["accuracy"] = lambda t, s: early(t, s) if s > 5 or t < 0.5 else 0.1
    row = verdict_of(claim, runs, tmp_path)
    assert (row["verdict"], row["units"]) == ("supported", list(range(10)))
    assert row["collapsed"][0]["collapsed"] == 6 and "left out" not in row["reason"]
    late = verdict_of(claim | {"window": [0.5, 1.0], "effect": 0.3}, runs, tmp_path)
    assert late["units"] == [6, 7, 8, 9] and "6 of 10 units left out, where a run collapsed (sdpg-urkl 6)" in late["reason"]


def test_a_window_without_a_checkpoint_and_an_evaluation_set_of_another_scale_are_not_run(full, tmp_path):
    (row,) = evaluate(full, alone(of("1a") | {"window": [0.0, 0.25], "needs": []}, tmp_path))  # checkpoints at 0, 1/2 and 1
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


def test_the_paper_s_seven_claims_are_all_there():
    assert {claim["id"][0] for claim in ALL} == set("1234567P")


def test_the_command_line_prints_the_verdicts_and_names_a_missing_file(tmp_path):
    command = [sys.executable, "-m", "sdpg", "make", "claims", "--scale", "smoke"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: results/smoke/")

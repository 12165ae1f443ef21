"""Claims about what becomes of one method's runs, where some of these ended before it could be seen."""

from __future__ import annotations

import pytest

from sdpg.analysis.diverged import Divergence
from sdpg.artefacts.claims import evaluate
from tests.analysis.fake_claims import ALL, STEPS, alone, fake, of

CHANGES = [claim for claim in ALL if claim["test"] == "change"]


def verdict_of(claim, world, ended, folder) -> dict:
    """Return the row of a claim, of runs of which those of the seeds in `ended` ended at the step that it gives."""
    runs = fake(claim, world)
    stopped = {(claim["methods"][0], seed): Divergence(step, "collapsed: x") for seed, step in ended.items()}
    runs.results.__dict__["diverged"] = stopped
    (row,) = evaluate(runs.results, alone(claim, folder), runs)
    return row


@pytest.mark.parametrize("claim", CHANGES, ids=lambda claim: claim["id"])
@pytest.mark.parametrize("world", ["claimed", "null"])
def test_a_run_that_ended_before_the_later_window_speaks_for_neither_verdict(claim, world, tmp_path):
    before, inside = int(claim["after"][0] * STEPS) - 1, int(claim["after"][1] * STEPS)
    whole = verdict_of(claim, world, {}, tmp_path)
    assert whole["verdict"] == {"claimed": "supported", "null": "refuted"}[world]
    same = verdict_of(claim, world, dict.fromkeys(range(6), inside), tmp_path)
    assert same["verdict"] == whole["verdict"] and same["effect"] == whole["effect"] and "count as" not in same["reason"]
    some = verdict_of(claim, world, dict.fromkeys((3, 5), before), tmp_path)
    assert (some["verdict"], some["low"], some["high"]) == ("open", None, None)
    assert "2 of 10 runs ended before, and count as what would speak against either verdict" in some["reason"]
    assert some["effect"] == pytest.approx(whole["effect"], abs=0.1)
    most = verdict_of(claim, world, dict.fromkeys(range(6), before), tmp_path)
    assert most["verdict"] == "open" and "4 runs are too few for an exact test" in most["reason"]
    every = verdict_of(claim, world, dict.fromkeys(range(10), before), tmp_path)
    assert (every["verdict"], every["effect"], every["estimate"]) == ("open", None, None)


def test_one_missing_run_widens_the_interval_and_leaves_the_verdict(tmp_path):
    claim = of("5b") | {"needs": []}
    whole, one = (verdict_of(claim, "claimed", ended, tmp_path) for ended in ({}, {3: 10}))
    assert whole["verdict"] == one["verdict"] == "supported" and one["p"] > whole["p"]
    assert one["low"] <= whole["low"] < whole["high"] <= one["high"]

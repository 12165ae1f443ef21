"""When a run counts as collapsed, by hand; and a run that is stopped for it."""

import json

import pytest

import baselines
from sdpg.analysis.diverged import read_divergence, sentences
from sdpg.core.collapse import Collapse
from tests.core.conftest import make_trainer, train_config


def rows(*accuracies):
    return [{"step": k, "validation_a_accuracy": a - 0.01, "validation_b_accuracy": a + 0.01} for k, a in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("accuracies", "ends"),
    [
        ((0.2, 0.6, 0.17, 0.17), 3),
        ((0.2, 0.6, 0.17, 0.2, 0.17, 0.17), 5),  # it came back in between
        ((0.2, 0.6, 0.19, 0.2), None),
        ((0.02, 0.01, 0.02, 0.03), None),
        ((0.5, 0.0, 0.0, 0.0), 2),
    ],
)
def test_two_looks_below_the_share_of_the_best_end_a_run(accuracies, ends):
    watched = Collapse(0.3)
    found = [k for k, row in enumerate(rows(*accuracies)) if watched.look(row)]
    assert (found[0] if found else None) == ends


def test_it_never_ends_without_a_share_and_looks_only_at_validation():
    assert not any(Collapse(None).look(row) for row in rows(0.9, 0.0, 0.0, 0.0))
    watched = Collapse(0.3, rows(0.6, 0.1))
    assert watched.look({"step": 9, "accuracy": 0.0}) is None
    assert watched.look(rows(0.1)[0]).startswith("collapsed: validation accuracy 0.100 is below 0.3 of its best, 0.600")


def test_after_a_restart_the_best_so_far_is_known():
    assert Collapse(0.3, rows(0.6, 0.1)).look(rows(0.1)[0]) and not Collapse(0.3).look(rows(0.1)[0])


def test_a_stopped_run_is_whole_and_says_why(tiny, tmp_path, capsys):
    trainer = make_trainer(
        tiny, tmp_path / "work", baselines.make("grpo"), train_config(steps=9, validate_every=2, stop_collapsed=0.5)
    )
    accuracies = iter([0.8, 0.7, 0.1, 0.1, 0.9])
    trainer.collector.accuracy = lambda problems, k: next(accuracies)
    outcome = trainer.run()
    reason = "collapsed: validation accuracy 0.100 is below 0.5 of its best, 0.800, again"
    assert outcome == {"status": "collapsed", "step": 8, "reason": reason, "last_checkpoint": 8}
    listed = json.loads((tmp_path / "work/checkpoints/checkpoints.json").read_text())
    assert [c["step"] for c in listed["checkpoints"]] == [0, 2, 4, 6, 8] and listed["diverged"] == {"step": 8}
    assert f"stopped at step 8 of 9: {reason}" in capsys.readouterr().err
    found = read_divergence(tmp_path / "work" / "metrics.jsonl")
    assert found == (8, reason)
    said = "Stopped as collapsed: opcd seed 3 at step 8; from there on a run counts with its last checkpoint"
    assert sentences({("opcd", 3): found}) == f" {said} and its last metrics."

"""`python -m benchmarks.environment`: what it says of a scale, from its base model and from GRPO."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import environment


def test_short_and_long_responses_are_told_apart_half_way_between_the_percentiles():
    responses = [(10, True)] * 4 + [(12, False)] * 4 + [(30, True)] * 2 + [(34, False)] * 6
    assert environment.by_length(responses) == {"long": 0.5, "accuracy_short": 0.5, "accuracy_long": 0.25}
    alike = environment.by_length([(10, True)] * 3)
    assert (alike["long"], alike["accuracy_short"]) == (0, 1) and np.isnan(alike["accuracy_long"])


def test_entropy_that_follows_accuracy_is_explained_by_it():
    accuracy = np.linspace(0.2, 0.8, 12)
    assert environment.r_squared(accuracy, 0.5 - 0.4 * accuracy**2) == pytest.approx(1)
    assert environment.r_squared(accuracy, np.tile([0.1, 0.3], 6)) < 0.2


def test_a_scale_is_judged_by_its_base_model_alone_and_by_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "PROBLEMS", 8)

    def call(*arguments):
        command = ["environment", "--scale", "smoke", "--set", "train.steps=30", "--folder", str(tmp_path), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        environment.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

    (base,) = call("--rates")
    assert base["base"] == 0 and set(base["student"]) == set(base["teacher"]) >= {"accuracy", "spread", "long", "accuracy_long"}
    first, run, over_all = call("--rates", "1e-3")  # the base model is there already
    assert repr(first) == repr(base) and run["rate"] == 1e-3 and 0 <= run["end"]["accuracy"] <= 1
    assert len(run["accuracy"]) == len(run["entropy"]) == 3
    assert over_all == {"r_squared_of_entropy_on_accuracy": None, "points": 3}  # a quadratic explains any three points
    assert repr(call("--rates", "1e-3")[1]["end"]) == repr(run["end"])  # nor is a finished run made again
    call("--rates", "--set", "model.warm_start.error_rate=0.2")
    assert len(list(tmp_path.glob("smoke*-base/base0.facts.json"))) == 2  # each candidate has its own
    with pytest.raises(ValueError, match="--base: got 1; scale smoke has base model 0 alone"):
        call("--rates", "--bases", "1")

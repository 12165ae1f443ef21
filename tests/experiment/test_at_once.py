"""Evaluation in the training job: the responses are those of the evaluation's own job, and are taken only while they hold."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from sdpg.experiment import at_once
from sdpg.experiment.base_model import make_base_model
from sdpg.experiment.compose import is_finished, train_run, was_finished
from sdpg.io import write_json
from sdpg.tasks.data import build_data
from tests.scale import config_of
from tests.test_config_use import BLOCKS

SAMPLED = {"engine": "in-process", "samples": 2, "pass_k": [1], "lm_eval": None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that is trained, in a folder of its own; its config."""
    from sdpg.experiment import base_model

    config = config_of(**BLOCKS, methods={"grpo": {}}, resources={"evaluate_at_once": True})
    folder = tmp_path_factory.mktemp("at_once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(base_model, "PROBLEMS", 2)
        threads = torch.get_num_threads()
        build_data(config, at_once.RESULTS / config.name / "data")
        make_base_model(config, at_once.RESULTS / config.name / "model")
        train_run(config, "grpo", 0, threads=1)
        torch.set_num_threads(threads)
    return folder, config


def test_what_training_left_is_what_evaluation_would_sample(finished, monkeypatch):
    from sdpg.evaluation.run import evaluate_run

    folder, config = finished
    monkeypatch.chdir(folder)
    root = at_once.RESULTS / config.name
    assert not at_once.put_in_place(config, "grpo", 0)  # nothing was left
    at_once.evaluate_at_once(config, "grpo", 0, 1)
    assert at_once.put_in_place(config, "grpo", 0) and not at_once.put_in_place(config, "grpo", 0)
    evaluate_run(
        root / "runs/grpo/seed0", config, seed=0, data_dir=root / "data", out_dir=root / "again", work_dir=root / "work"
    )
    one, two = (pd.read_parquet(path / "chain.parquet") for path in (root / "eval/grpo/seed0", root / "again"))
    pd.testing.assert_frame_equal(one, two)


def test_lm_eval_which_has_a_job_of_its_own_changes_nothing_of_what_is_left(finished, monkeypatch):
    folder, config = finished
    monkeypatch.chdir(folder)
    at_once.evaluate_at_once(config, "grpo", 0, 1)
    asked = SAMPLED | {"lm_eval": {"limit": 2}}
    more = config_of(**BLOCKS | {"evaluation": asked}, methods={"grpo": {}}, resources={"evaluate_at_once": True})
    assert more.lm_eval_apart and at_once.put_in_place(more, "grpo", 0)


@pytest.mark.parametrize("change", ["config", "checkpoints", "problems"])
def test_what_no_longer_holds_is_not_taken(finished, monkeypatch, change):
    folder, config = finished
    monkeypatch.chdir(folder)
    at_once.evaluate_at_once(config, "grpo", 0, 1)
    root = at_once.RESULTS / config.name
    if change == "config":
        config = config_of(**BLOCKS | {"evaluation": SAMPLED | {"samples": 3}}, methods={"grpo": {}})
    else:
        path = root / ("runs/grpo/seed0/checkpoints/checkpoints.json" if change == "checkpoints" else "data/eval/chain.parquet")
        before = path.read_bytes()
        write_json(path, {})
    assert not at_once.put_in_place(config, "grpo", 0)
    if change != "config":
        path.write_bytes(before)


@pytest.mark.parametrize("change", [{"methods": {"grpo": {"clip_low": 0.1}}}, {"train": {"lr": 1e-3}}])
def test_a_finished_run_of_other_settings_is_not_put_back(finished, monkeypatch, change):
    """Its job never said that it ended well, and its workflow deleted what the job promises."""
    folder, config = finished
    monkeypatch.chdir(folder)
    record = at_once.RESULTS / config.name / "runs/grpo/seed0/run.json"
    before = record.read_bytes()
    record.unlink()
    blocks = BLOCKS | {"train": BLOCKS.get("train", {}) | change.get("train", {})}
    other = config_of(**blocks, methods=change.get("methods", {"grpo": {}}), resources={"evaluate_at_once": True})
    assert not was_finished(other, "grpo", 0) and not record.exists()
    assert was_finished(config, "grpo", 0) and is_finished(config, "grpo", 0) and record.read_bytes() == before

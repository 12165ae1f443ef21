"""The checkpoint sweep on the in-process engine: files, seeds, checks and errors."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from sdpg.evaluation.agreement import EngineMismatch
from sdpg.evaluation.checkpoints import load_checkpoints
from sdpg.evaluation.parts import make_parts
from sdpg.evaluation.run import evaluate_run
from sdpg.evaluation.sampling import SCHEMA, Sampler, score_groups
from sdpg.evaluation.setup import load_sets, make_sampling
from sdpg.rollout.engines.in_process import HFEngine
from sdpg.types import Problem, Rollout, Score
from tests.evaluation.conftest import STEPS
from tests.scale import CHAIN


def evaluate(run, out, **options):
    options = {"seed": 0, "data_dir": run.data_dir, "out_dir": out, "work_dir": out.with_name(f"{out.name}-parts")} | options
    return evaluate_run(options.pop("run_dir", run.run_dir), run.settings, **options)


def test_every_checkpoint_problem_and_sample_has_one_row(run, tmp_path):
    paths = evaluate(run, tmp_path / "eval")
    assert [path.name for path in paths] == ["chain.parquet", "chain-2.parquet"]
    frame = pd.read_parquet(paths[0])
    assert list(frame.columns) == list(SCHEMA)
    assert len(frame) == 2 * 100 * 8
    assert set(frame["step"]) == {0, STEPS}
    assert not frame.duplicated(["step", "problem_id", "sample"]).any()
    assert frame["tokens"].between(1, 24).all()
    assert (frame["entropy"] >= 0).all()
    assert frame["process"].isin([0.0, 1.0]).all()
    by_step = frame.groupby("step")["correct"].mean()
    assert by_step[0] < 0.1 < by_step[STEPS]
    truncated = frame[frame["finish_reason"] == "length"]
    assert (truncated["tokens"] == 24).all()
    assert not truncated["correct"].any()


def test_the_same_seed_gives_the_same_file(run, tmp_path):
    run.config["data"]["evaluation"].pop("chain-2")
    a, b = (pd.read_parquet(evaluate(run, tmp_path / name)[0]) for name in "ab")
    pd.testing.assert_frame_equal(a, b)


class Scripted:
    """An engine that records what it is asked and answers every prompt with one token and EOS."""

    def __init__(self):
        self.seeds, self.version = [], None

    def generate(self, prompts, n, sampling, seed):
        self.seeds.append(list(seed))
        return [[Rollout([5, 1], [-0.5, -1.5], "stop", self.version) for _ in range(n)] for _ in prompts]

    def load_weights(self, named_tensors, version):
        self.version = version


def test_seeds_depend_on_run_seed_set_problem_and_step_only(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sdpg.evaluation.sampling.check_agreement", lambda *a, **k: None)
    checkpoints = load_checkpoints(run.run_dir)
    task, sets = load_sets(run.settings, checkpoints[0].path, run.data_dir)
    parts = make_parts(checkpoints, sets, tmp_path, samples=1, identity={})
    seeds = []
    for seed, order in ((0, 1), (0, -1), (1, 1)):
        engine = Scripted()
        how = {"sampling": make_sampling(run.settings, task), "samples": 1, "dtype": "float32"}
        sampler = Sampler(engine, checkpoints[0].path, task, seed=seed, **how)
        for part in parts[::order]:
            sampler.sample(part)
        seeds.append(engine.seeds[::order])
    assert seeds[0] == seeds[1]
    drawn = [s for part in seeds[0] + seeds[2] for s in part]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 200


def test_rows_say_what_the_rollouts_were():
    class Task:
        def score_many(self, problems, rollouts):
            assert [p.id for p in problems] == ["p", "p"]
            return [Score(r.ids[0] == 7, None, None if r.ids[0] == 7 else "too deep") for r in rollouts]

        def text(self, ids):
            return " ".join(map(str, ids))

    problems = [Problem("p", "q", "a", "s", "t")]
    groups = [[Rollout([7, 1], [-1.0, -2.0], "stop", 3), Rollout([6, 6, 6], [-0.1] * 3, "length", 3)]]
    frame = score_groups(problems, groups, Task(), 3)
    assert frame["correct"].tolist() == [True, False]
    assert frame["entropy"].tolist() == pytest.approx([1.5, 0.1])
    assert frame["tokens"].tolist() == [2, 3]
    assert frame["process"].isna().all()
    assert frame["text"].tolist() == ["7 1", "6 6 6"]
    assert frame["unjudged"].tolist() == ["", "too deep"]


def test_process_without_values_is_written_as_null(tmp_path):
    from sdpg.evaluation.sampling import write_frame

    write_frame(tmp_path / "x.parquet", pd.DataFrame({"process": [np.nan, np.nan]}))
    assert pd.read_parquet(tmp_path / "x.parquet")["process"].isna().all()


def test_an_engine_that_keeps_old_weights_stops_the_evaluation(run, tmp_path, monkeypatch):
    def keep(self, tensors, version):
        self.version = version

    monkeypatch.setattr(HFEngine, "load_weights", keep)
    with pytest.raises(EngineMismatch, match=f"step{STEPS:06d}"):
        evaluate(run, tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


@pytest.fixture
def broken(run, tmp_path):
    """A copy of the run whose files a test may damage."""
    shutil.copytree(run.run_dir, tmp_path / "run")
    return type(run)(tmp_path / "run", run.data_dir, run.config)


def test_a_corrupt_checkpoint_is_named(broken, tmp_path):
    path = broken.run_dir / "checkpoints" / f"step{STEPS:06d}" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"step{STEPS:06d}.model\.safetensors is corrupt.*train this run again"):
        evaluate(broken, tmp_path / "eval")
    path.unlink()
    with pytest.raises(ValueError, match=rf"step{STEPS:06d}.model\.safetensors is missing"):
        evaluate(broken, tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


def test_mistakes_are_found_before_an_engine_starts(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sdpg.rollout.engines.make_engine", lambda *a, **k: pytest.fail("an engine was started"))
    out = tmp_path / "eval"
    with pytest.raises(ValueError, match="train this run first"):
        evaluate(run, out, run_dir=tmp_path / "no")
    run.config["evaluation"]["pass_k"] = [1, 9]
    with pytest.raises(ValueError, match="k = 9"):
        evaluate(run, out)
    run.config["evaluation"]["pass_k"] = [1]
    run.config["train"]["max_prompt_tokens"] = 5
    with pytest.raises(ValueError, match=r"problem 'chain-\d+' of evaluation set 'chain-2' has a prompt of 6 tokens"):
        evaluate(run, out)
    run.config["train"]["max_prompt_tokens"] = 16
    run.config["evaluation"]["lm_eval"]["forgetting"] = "revers"
    with pytest.raises(ValueError, match=r"forgetting is 'revers': it must be common-knowledge"):
        evaluate(run, out, lm_eval=True)
    run.config["evaluation"]["lm_eval"]["forgetting"] = "chain"
    with pytest.raises(ValueError, match="an evaluation set already"):
        evaluate(run, out, lm_eval=True)
    run.config["evaluation"]["lm_eval"] = None
    with pytest.raises(ValueError, match="--lm-eval"):
        evaluate(run, out, lm_eval=True)
    run.config["data"]["evaluation"] = {"missing": CHAIN}
    with pytest.raises(ValueError, match=r"missing\.parquet"):
        evaluate(run, out)


def test_greedy_evaluation_is_one_response_a_problem_and_the_same_for_every_seed(run, tmp_path):
    run.config["evaluation"] |= {"temperature": 0, "samples": 1, "pass_k": [1]}
    frames = []
    for seed in (0, 1):
        path = evaluate(run, tmp_path / str(seed), seed=seed)[0]
        frames.append(pd.read_parquet(path))
    pd.testing.assert_frame_equal(*frames)
    assert len(frames[0]) == 2 * 100 and (frames[0]["entropy"] > 0).all()

"""lm-eval on vLLM: the prompts that it sends, its results file, and agreement of three ways to measure one accuracy."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from sdpg.evaluation.checkpoints import load_checkpoints
from sdpg.evaluation.lm_eval_bridge import forgetting_set, lm_evaluate_engine
from sdpg.evaluation.lm_eval_task import bundled_names, bundled_task, sampled_task
from sdpg.evaluation.run import evaluate_run
from sdpg.evaluation.setup import load_sets
from tests.evaluation.conftest import STEPS
from tests.scale import config_of


def test_common_knowledge_is_well_formed():
    assert bundled_names() == ["common-knowledge"]
    docs = bundled_task("common-knowledge")["custom_dataset"]()["test"]
    assert len(docs) >= 40
    assert len(set(docs["question"])) == len(docs)
    for doc in docs:
        assert len(set(doc["choices"])) == 4
        assert 0 <= doc["answer"] < 4
    answers = list(docs["answer"])
    assert max(answers.count(i) for i in range(4)) < len(docs) / 2


def test_sampled_task_is_judged_by_the_projects_verifier(run):
    task, sets = load_sets(run.settings, load_checkpoints(run.run_dir)[0].path, run.data_dir)
    config = sampled_task(sets[0], task, repeats=4, temperature=1.0, max_tokens=24)
    doc = config["custom_dataset"]()["test"][0]
    right, wrong = doc["solution"], doc["solution"][:-1] + ("0" if doc["answer"] != "0" else "1")
    assert config["process_results"](doc, [[right, wrong, "", right]]) == {"accuracy": 0.5, "process_accuracy": 0.5}


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """Both sweeps of the same run, and lm-eval in the vLLM one: {"in-process" | "vllm": folder}."""
    folders = {}
    for engine in ("in-process", "vllm"):
        config = json.loads(json.dumps(finished.config))
        config["evaluation"]["engine"] = engine
        folders[engine] = tmp_path_factory.mktemp(engine)
        evaluate_run(
            finished.run_dir,
            config_of(**config),
            seed=0,
            data_dir=finished.data_dir,
            out_dir=folders[engine],
            lm_eval=engine == "vllm",
        )
    return folders


def sweep_accuracy(folder, name):
    """Mean accuracy at the last checkpoint and its standard error over problems."""
    frame = pd.read_parquet(folder / f"{name}.parquet")
    by_problem = frame[frame["step"] == STEPS].groupby("problem_id")["correct"].mean()
    return by_problem.mean(), by_problem.std() / math.sqrt(len(by_problem))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "chain-2"])
def test_in_process_vllm_and_lm_eval_agree_within_sampling_error(evaluated, name):
    results = json.loads((evaluated["vllm"] / "lm_eval.json").read_text())["results"][name]
    measured = {
        "in-process": sweep_accuracy(evaluated["in-process"], name),
        "vllm": sweep_accuracy(evaluated["vllm"], name),
        "lm-eval": (results["accuracy,mean@8"], results["accuracy_stderr,mean@8"]),
    }
    for a, (mean_a, se_a) in measured.items():
        assert 0.05 < mean_a < 0.98, f"{a}: {mean_a} says little"
        for b, (mean_b, se_b) in measured.items():
            # the problems are shared, so this is wider than the error of the difference; 3 of it would be a wrong engine
            assert abs(mean_a - mean_b) < 3 * math.hypot(se_a, se_b), f"{a} {mean_a:.3f}, {b} {mean_b:.3f}"


@pytest.mark.slow
def test_the_two_engines_agree_in_length_and_entropy(evaluated):
    by_engine = []
    for folder in evaluated.values():
        frame = pd.read_parquet(folder / "chain-2.parquet")
        by_engine.append(frame[frame["step"] == STEPS].groupby("problem_id")[["tokens", "entropy"]].mean())
    difference = by_engine[0] - by_engine[1]  # paired by problem: the index is the problem's id
    assert len(difference) == 100
    assert not difference.isna().any().any()
    assert (difference.mean().abs() <= 4 * difference.std() / 10 + 1e-6).all()


@pytest.mark.slow
def test_results_file_is_lm_evals_own_and_small(evaluated):
    path = evaluated["vllm"] / "lm_eval.json"
    content = json.loads(path.read_text())
    assert set(content["results"]) == {"chain", "chain-2", "reverse"}
    assert content["n-samples"]["chain"] == {"original": 100, "effective": 100}
    assert content["n-shot"] == {"chain": 0, "chain-2": 0, "reverse": 0}
    assert content["configs"]["chain"]["repeats"] == 8
    assert "samples" not in content
    assert path.stat().st_size < 50_000
    assert "0x" not in path.read_text()


@pytest.mark.slow
def test_lm_eval_sends_the_student_prompts_ids(run):
    """One engine more: lm-eval's requests are recorded on their way into it; then the same for the bundled task."""
    from sdpg.rollout.engines.vllm import VLLMEngine

    checkpoint = load_checkpoints(run.run_dir)[1].path
    task, sets = load_sets(run.settings, checkpoint, run.data_dir)
    run.config["evaluation"]["lm_eval"] = {"repeats": 2, "limit": 5, "forgetting": "reverse"}
    forgetting = forgetting_set(run.settings, task, run.data_dir)
    engine = VLLMEngine(checkpoint, dtype="float32", max_len=128)
    try:
        sent, generate = [], engine.llm.generate
        engine.llm.generate = lambda prompts, *a, **k: sent.extend(prompts) or generate(prompts, *a, **k)
        first = lm_evaluate_engine(engine, run.settings, task, sets, forgetting)
        expected = [ids for s in (*sets, forgetting) for ids in s.prompts[:5] for _ in range(2)]
        assert sorted(p["prompt_token_ids"] for p in sent) == sorted(expected)
        assert first["results"] == lm_evaluate_engine(engine, run.settings, task, sets, forgetting)["results"]
        common = lm_evaluate_engine(engine, run.settings, task, sets, "common-knowledge")
    finally:
        engine.close()
    assert {"acc,none", "acc_norm,none"} <= set(common["results"]["common-knowledge"])

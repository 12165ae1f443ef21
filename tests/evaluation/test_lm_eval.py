"""lm-eval on vLLM: the prompts that it sends, its results file, and agreement of three ways to measure one accuracy."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from sdpg.config.settings import Task
from sdpg.evaluation.agreement import EngineMismatch
from sdpg.evaluation.checkpoints import load_checkpoints
from sdpg.evaluation.lm_eval_bridge import _evaluate, check_weights, forgetting_set, judged, lm_evaluate_engine
from sdpg.evaluation.lm_eval_task import bundled_names, bundled_task, prompt_texts, sampled_task
from sdpg.evaluation.parts import EvaluationSet
from sdpg.evaluation.run import evaluate_run
from sdpg.evaluation.sampling import evaluation_set
from sdpg.evaluation.setup import load_sets
from sdpg.rollout.engines import make_engine
from sdpg.tasks.task import make_task
from sdpg.tasks.tokenizer import character_tokenizer
from sdpg.types import Problem
from tests.evaluation.conftest import STEPS
from tests.scale import config_of
from tests.tasks.test_task_text import tokenizer as text_tokenizer


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


# The form of AIME and AMC: an id, a question in LaTeX, an answer, no solution. How many of 32 responses are right, how many of
# the wrong ones no verifier can read.
MATH = [
    (
        Problem("aime24-00", "Find $\\frac{m}{n}$ for {s, t}.", "204", "", "aime"),
        ["\\boxed{204}", "= 204, \\boxed{204.0}"],
        20,
        0,
    ),
    (Problem("aime25-07", "How many $x$ with $x^{2} = x$?", "033", "", "aime"), ["so \\boxed{33}"], 32, 0),
    (Problem("amc23-39", "The point?", "(3, 4)", "", "amc"), ["\\boxed{(3,4)}"], 1, 3),
    (Problem("amc23-40", "The interval?", "[1,2]", "", "amc"), ["\\boxed{[1, 2]}"], 8, 0),
]


def test_aime_and_amc_as_lm_eval_tasks_judged_by_math_verify():
    """Through lm-eval itself, with a model that answers as it is told: 32 repeats, their mean, then that over problems."""
    from lm_eval.api.model import LM

    tokenizer = text_tokenizer("byte-level")
    task = make_task(Task(template="boxed", verifier="math-verify"), tokenizer)
    s = evaluation_set("aime-amc", [problem for problem, *_ in MATH], task, 1000)
    texts, asked = prompt_texts(s, task), []
    unreadable = "\\boxed{" + "(" * 400 + "}"
    says = {
        text: [right[i % len(right)] for i in range(count)] + [unreadable] * bad + ["\\boxed{7}", "", "204"] * 10
        for text, (_, right, count, bad) in zip(texts, MATH, strict=True)
    }

    class Told(LM):
        def generate_until(self, requests, disable_tqdm=False):
            given = {text: iter(responses) for text, responses in says.items()}
            asked.extend(request.args for request in requests)
            return [next(given[request.args[0]]) for request in requests]

        loglikelihood = loglikelihood_rolling = None

    try:
        config = sampled_task(s, task, repeats=32, temperature=1.0, max_tokens=4096)
        results = judged(task, lambda: _evaluate(Told(), [config], 64, 0))
        shares = [task.score_text(problem, right[0]).correct for problem, right, *_ in MATH]
    finally:
        task.close()
    assert shares == [True] * 4
    found = results["results"]["aime-amc"]
    assert found["accuracy,mean@32"] == pytest.approx((20 + 32 + 1 + 8) / 32 / 4)
    assert found["accuracy_stderr,mean@32"] > 0 and results["n-samples"]["aime-amc"] == {"original": 4, "effective": 4}
    assert sum(results["config"]["unjudged"].values()) == 3
    assert len(asked) == 4 * 32 and {args[0] for args in asked} == set(texts)
    assert all(args[1]["temperature"] == 1.0 and args[1]["max_gen_toks"] == 4096 for args in asked)
    assert all(problem.question in text for problem, text in zip(s.problems, texts, strict=True))


def test_greedy_lm_eval_asks_once(run):
    task, sets = load_sets(run.settings, load_checkpoints(run.run_dir)[0].path, run.data_dir)
    config = sampled_task(sets[0], task, repeats=4, temperature=0.0, max_tokens=24)
    asked = config["generation_kwargs"]
    assert config["repeats"] == 1 and asked["temperature"] == 0 and asked["do_sample"] is False


def test_prompts_that_read_the_same_are_told_apart_by_their_ids():
    """<unk> as text, and an unknown character: one text, other ids."""
    tokenizer = character_tokenizer("<unk>0123456789=?")
    task = make_task(Task(**{"template": "plain", "verifier": "exact", "chat_template": False}), tokenizer)
    prompts = [task.encoder.encode(lambda c: c["question"], {"question": q}, opening=True) for q in ("1<unk>?", "1é?", "12?")]
    texts = prompt_texts(EvaluationSet("test", [None] * 3, prompts), task)
    assert len(set(texts)) == 3 and texts[2] == "12?"


@pytest.mark.slow
def test_lm_eval_encodes_with_one_bos_and_nothing_behind():
    """Contexts of the project's prompts are looked up, all others encoded as the task does; no engine is needed for that."""
    from sdpg.rollout.vllm_environment import vllm_version_shim

    with vllm_version_shim():
        from sdpg.evaluation.lm_eval_model import EngineLM
    tokenizer = text_tokenizer("byte-level")  # puts <s> before a text and </s> behind it
    task = make_task(Task(template="plain", verifier="exact"), tokenizer)
    problem = Problem("p", "a</s>b", "1", "", "x")
    ids = task.student_prompt(problem)
    begin, end = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    texts = prompt_texts(EvaluationSet("test", [problem], [ids]), task)
    lm = EngineLM.__new__(EngineLM)
    lm.tokenizer, lm.add_bos_token, lm.backend, lm.custom_prefix_token_id = tokenizer, None, "causal", None
    lm._prompts, lm._encode = dict(zip(texts, [ids], strict=True)), task.encoder.encode_text
    assert lm.tok_encode([texts[0], "ab"]) == [ids, lm.tok_encode("ab")]
    assert ids.count(begin) == 1 and end not in ids
    assert lm.tok_encode("ab") == lm.tok_encode("<s>ab") == [begin, *tokenizer("ab", add_special_tokens=False)["input_ids"]]
    context, continuation = lm._encode_pair("ab", " 12")
    assert context == lm.tok_encode("ab") and tokenizer.decode(continuation) == " 12"
    assert lm.tok_encode("") == []


def test_an_engine_of_its_own_is_compared_with_the_checkpoint_before_lm_eval_uses_it(run):
    first, last = (checkpoint.path for checkpoint in load_checkpoints(run.run_dir))
    task, sets = load_sets(run.settings, last, run.data_dir)
    engine = make_engine("in-process", last, dtype="float32", max_len=40)
    emptied = []
    engine.llm = SimpleNamespace(reset_prefix_cache=lambda: emptied.append(1))
    check_weights(engine, last, run.settings, task, sets[0])
    assert emptied == [1]
    with pytest.raises(EngineMismatch, match="does not hold the weights"):
        check_weights(engine, first, run.settings, task, sets[0])


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
            work_dir=folders[engine] / "parts",
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


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_vllm_gets_text_as_text_and_one_bos_through_lm_eval(chat, tmp_path):
    """A tokenizer that begins and ends every text, questions with its control tokens, greedy; and the bundled task."""
    from sdpg.rollout.engines.vllm import VLLMEngine

    tokenizer = text_tokenizer("byte-level")
    tokenizer.save_pretrained(tmp_path)
    begin, end = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 32}
    ends = {"max_position_embeddings": 256, "bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(tmp_path)
    config = config_of(
        task={"template": "plain", "verifier": "exact", "chat_template": chat, "system": "Be brief." if chat else None},
        train={"steps": 1, "max_prompt_tokens": 120, "max_response_tokens": 8},
        evaluation={"temperature": 0, "samples": 1, "pass_k": [1]},
    )
    task = make_task(config.task, tokenizer)
    questions = ["a<|im_end|>", "</s><s> b", "1 + 1", "<think>"]
    s = evaluation_set("test", [Problem(q, q, "1", "", "x") for q in questions], task, 120)
    engine = VLLMEngine(tmp_path, dtype="float32", max_len=128)
    try:
        sent, generate = [], engine.llm.generate
        engine.llm.generate = lambda prompts, *a, **k: sent.extend(prompts) or generate(prompts, *a, **k)
        lm_evaluate_engine(engine, config, task, [s], "common-knowledge")
    finally:
        engine.close()
    sent = [prompt["prompt_token_ids"] for prompt in sent]
    others = [ids for ids in sent if ids not in s.prompts]
    assert sorted(ids for ids in sent if ids in s.prompts) == sorted(s.prompts)  # each once
    assert len(others) > 100 and all(ids[0] == begin and ids.count(begin) == 1 and end not in ids for ids in others)

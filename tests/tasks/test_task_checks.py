"""What the data rule looks at before any work: reference answers, solutions, conflicts, lengths; and what it counts."""

import hashlib
import json
from dataclasses import astuple

import pytest

from sdpg.config import data_config, resolve
from sdpg.experiment.problems import make_problems, summary
from sdpg.tasks.cleaning import exact_key
from sdpg.tasks.data import build_data, load_problems
from sdpg.tasks.gold import Gold, bare_number, said
from sdpg.tasks.prompts import Template, load_template
from sdpg.types import Problem
from tests.scale import config_of
from tests.tasks.test_task_data import jsonl
from tests.tasks.test_task_layouts import GSM8K


def config(tmp_path, rows, *, template="boxed", verifier="math-verify", **keys):
    """A config with these rows to train on, and an evaluation set that shares none of them."""
    other = {"path": jsonl(tmp_path / "test.jsonl", [{"question": "A question of its own?", "answer": "5"}])}
    train = {"path": jsonl(tmp_path / "train.jsonl", rows)}
    data = {"train": train, "evaluation": {"test": other}, **keys}
    return config_of(task={"template": template, "verifier": verifier}, data=data, evaluation={"lm_eval": None})


def rows_of(*answers):
    return [{"question": f"Question {'abcdefgh'[i]}?", "answer": answer} for i, answer in enumerate(answers)]


def refusal(*arguments, **keys) -> str:
    with pytest.raises(ValueError) as error:
        build_data(*arguments, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        *[
            (text, "42")
            for text in ("42", "42.", "#### 42", "= 42", "$42", r"\$42", "42 dollars", "42.0", "+42", "042", "4.2e1", "42 €")
        ],
        *[(text, "1000") for text in ("1000", "1,000", "1e3", "1.0e3", "1,000.00")],
        ("He sold 48.\nSo 72\n#### 72", "72"),
        ("-3", "-3"),
        ("-0", "0"),
        (".50", "0.5"),
        *[
            (text, None)
            for text in ("2x", "2 sin x", "3 and 4", "1/2", "x = 5 or 6", "(1,2)", "50%", "", "e5", "10 000", "1,00", "1e999")
        ],
    ],
)
def test_the_number_that_a_reference_means(answer, number):
    assert bare_number(answer) == number


SAID = {
    "The answer is 42": "42",
    "So the final answer is: 7.": "7",
    "72 clips.\nThe answer is 72": "72",
    "Answer: B": "B",
    r"\boxed{42}": "42",
    "<answer>42</answer>": "42",
    "42</s>": "42",
    "42<|im_end|>": "42",
    r"The answer is \boxed{42}.": "42",
}


@pytest.mark.parametrize(("answer", "inner"), [*SAID.items(), ("42", None), ("no answer is given", None), ("(0, 1)", None)])
def test_what_a_reference_says_in_a_sentence_a_box_or_a_tag(answer, inner):
    assert said(answer) == inner


@pytest.mark.parametrize("answer", SAID)
@pytest.mark.parametrize(("template", "verifier"), [("boxed", "math-verify"), ("plain", "exact")])
def test_a_reference_inside_a_sentence_is_taken_bare_or_refused(tmp_path, answer, template, verifier):
    made = config(tmp_path, rows_of("3", answer), template=template, verifier=verifier)
    gold = Gold(made.task)
    accepted = gold.accepts(Problem("i", "Q?", answer, "", "own"), SAID[answer])
    gold.close()
    if accepted:
        build_data(made, tmp_path / "data")
    else:
        assert "rejects 1 of 2 reference answers: row 2 (train-000001)" in refusal(made, tmp_path / "data")


@pytest.mark.parametrize(("template", "verifier"), [("boxed", "math-verify"), ("plain", "exact")])
@pytest.mark.parametrize("answer", ["42.", "#### 42", "42 dollars", "1e3", "$18", GSM8K["answer"], "72\nor so"])
def test_a_reference_is_used_as_most_would_answer_or_refused(tmp_path, template, verifier, answer):
    """A set passes only if the verifier takes the bare number for it: no right answer scores zero for ever."""
    number = bare_number(answer)
    chosen = config(tmp_path, rows_of("7", answer), template=template, verifier=verifier)
    gold = Gold(chosen.task)
    problem = Problem("x", "", answer, "", "x")
    taken = gold.accepts(problem, answer) and (number is None or gold.accepts(problem, number))
    gold.close()
    if answer == GSM8K["answer"]:
        assert not taken
    if taken:
        assert build_data(chosen, tmp_path / "data")["train"]["answers"]["rejected"] == 0
        return
    said = refusal(chosen, tmp_path / "data")
    assert f"data.train: the verifier {verifier!r} rejects 1 of 2 reference answers: row 2 (train-000001)" in said
    assert "data.rejected_answers to drop or keep" in said and not (tmp_path / "data").exists()


def test_rejected_answers_are_dropped_or_kept_by_name_and_counted(tmp_path):
    rows = rows_of("7", "#### 42", "8")
    report = build_data(config(tmp_path, rows, rejected_answers="drop"), tmp_path / "a")
    assert [p.answer for p in load_problems(tmp_path / "a" / "train.parquet")] == ["7", "8"]
    assert report["train"]["problems"] == 2 and report["train"]["answers"]["rejected"] == 1
    (listed,) = report["train"]["answers"]["rejected_rows"]
    assert (listed["row"], listed["answer"], listed["rejected"]) == (2, "#### 42", "42")
    assert json.loads((tmp_path / "a" / "report.json").read_text()) == report
    report = build_data(config(tmp_path, rows, rejected_answers="keep"), tmp_path / "b")
    assert report["train"]["problems"] == 3 and report["train"]["answers"]["rejected"] == 1
    with pytest.raises(ValueError, match="no problem left after duplicates, overlaps and rejected answers were taken out"):
        build_data(config(tmp_path, rows_of("#### 42"), rejected_answers="drop"), tmp_path / "c")


@pytest.mark.parametrize(
    ("template", "verifier", "answers"),
    [
        (
            "boxed",
            "math-verify",
            ["34", "-3", "1,000", "12345", r"\frac{1}{2}", "(1,2)", r"2\sqrt{3}", "x^2+1", r"\text{yes}", "0.5"],
        ),
        ("plain", "exact", ["34", "-3", "yes", "p.m.", "x^2 + 1"]),
        ("answer-line-hint", "exact", ["204"]),
        ("plain", "reverse", ["917"]),
    ],
)
def test_sound_references_pass(tmp_path, template, verifier, answers):
    rows = [{"question": f"{template} {i}?", "answer": answer} for i, answer in enumerate(answers)]
    other = {"path": jsonl(tmp_path / "rows.jsonl", rows)}
    train = {"path": jsonl(tmp_path / "train.jsonl", [{"question": "Else?", "answer": "7"}])}
    task = {"template": template, "verifier": verifier}
    chosen = config_of(task=task, data={"train": train, "evaluation": {"own": other}}, evaluation={"lm_eval": None})
    found = build_data(chosen, tmp_path / "data")["evaluation"]["own"]["answers"]
    assert found["rejected"] == 0 and found["answers"] == len(answers)
    assert found["spellings"] > len(answers) or verifier == "reverse"


def test_a_verifier_that_reads_another_form_than_the_template_asks_for_is_refused(tmp_path):
    said = refusal(config(tmp_path, rows_of(r"\text{no}", "b c"), template="chain", verifier="math-verify"), tmp_path / "data")
    assert "responses are asked for as '#...'" in said and "rejects 1 of 1" in said  # the evaluation set comes first


def test_a_question_that_is_none_for_the_verifier_is_named(tmp_path):
    said = refusal(config(tmp_path, rows_of("7"), template="chain", verifier="chain"), tmp_path / "data")
    assert said.startswith("data.evaluation.test: problem 'test-000000' is none for the verifier 'chain': not a chain question")


def test_only_some_answers_are_judged_where_each_needs_a_process(tmp_path):
    rows = [{"question": f"Question {i}?", "answer": f"x^{i}+1"} for i in range(100)]
    report = build_data(config(tmp_path, rows), tmp_path / "data")
    answers = report["train"]["answers"]
    assert answers["judged"] <= 64 and answers["judged"] <= answers["needed_a_judge"] <= 100 and answers["answers"] == 100


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1 1/2 of it", "11/2 of it", False),
        ("for X", "for x", False),
        ("forX", "for X", False),
        ("Sort 5 -3", "Sort 5-3", False),
        ("0 .5", "0.5", False),
        (" What is\n 2 + 3? ", "What is 2+3?", True),
        ("caf\u00e9", "cafe\u0301", True),
    ],
)
def test_only_equal_questions_are_one(tmp_path, a, b, same):
    assert (exact_key(a) == exact_key(b)) == same
    rows = [{"question": a, "answer": "1"}, {"question": b, "answer": "1"}]
    report = build_data(config(tmp_path, rows), tmp_path / "data")["train"]
    assert (report["problems"], report["duplicates_removed"]) == ((1, 1) if same else (2, 0))


def test_training_loses_what_may_be_an_evaluation_problem(tmp_path):
    rows = [{"question": "a question ofits own?", "answer": "5"}, *rows_of("7")]
    report = build_data(config(tmp_path, rows), tmp_path / "data")["train"]
    assert report["overlap_removed"] == 1 and report["removed_ids"] == ["train-000000"] and report["problems"] == 1


def test_other_answers_to_one_question_are_a_conflict_by_row(tmp_path):
    rows = [*rows_of("7", "8"), *rows_of("9"), {"question": "Question  b?", "answer": "8.0"}]
    report = build_data(config(tmp_path, rows), tmp_path / "data")["train"]
    assert [p.answer for p in load_problems(tmp_path / "data" / "train.parquet")] == ["8"]  # 8.0 is no other answer
    assert (report["rows"], report["problems"], report["duplicates_removed"], report["conflicts_removed"]) == (4, 1, 1, 2)
    assert [(row["row"], row["answer"]) for row in report["conflicts"]] == [(1, "7"), (3, "9")]
    said = refusal(config(tmp_path, rows, conflicting_answers="error"), tmp_path / "b")
    assert said.startswith("data.train: 1 question(s) with different answers: row 1: '7'; row 3: '9' for 'Question a?'")


SCALE = """
name: own
model: {{warm_start: {{}}}}
task: {{template: {template}, verifier: exact}}
data:
  train: {{path: {train}}}
  evaluation: {{test: {{path: {test}}}}}
  {keys}
train: {{steps: 100, max_prompt_tokens: {limit}, max_response_tokens: 8}}
evaluation: {{lm_eval: null}}
methods: {methods}
"""
SHOWS = "student: '{question}'\nteacher: '{question}[{answer}|{solution}]'\n"
CHAINS = [{"question": "1+1?", "answer": "2", "solution": "1+1=2"}, {"question": "1+2?", "answer": "3"}]


def scale(tmp_path, rows=CHAINS, *, template=SHOWS, methods="[grpo, sdpg-urkl]", limit=64, keys="{}", test="9+9?"):
    """A resolved scale with a tiny model, whose tokenizer has a token for each character."""
    (tmp_path / "own.yaml").write_text(template)
    paths = {
        "train": jsonl(tmp_path / "train.jsonl", rows),
        "test": jsonl(tmp_path / "test.jsonl", [{"question": test, "answer": "8"}]),
        "template": tmp_path / "own.yaml",
    }
    given = "".join(f"\n  {key}: {value}" for key, value in json.loads(keys).items())
    text = SCALE.format(**paths, methods=methods, limit=limit, keys=given)
    (tmp_path / "scale.yaml").write_text(text)
    return resolve(tmp_path / "scale.yaml")


def test_a_teacher_without_solutions_is_refused_dropped_or_told(tmp_path):
    with pytest.raises(ValueError, match=r"data.train: 1 of 2 problems have no worked solution, the first in row 2 \(train-0"):
        make_problems(scale(tmp_path), tmp_path / "data")
    assert not (tmp_path / "data").exists()
    report = make_problems(scale(tmp_path, keys='{"missing_solutions": "drop"}'), tmp_path / "data")
    assert report["train"]["missing_solutions"] == {"read_by_a_teacher": True, "rows": [2], "dropped": 1, "kept": 0}
    assert "1 without a solution, dropped" in summary(report)
    with pytest.raises(ValueError, match="missing_solutions is keep, but template 'own' has no teacher_without_solution"):
        make_problems(scale(tmp_path, keys='{"missing_solutions": "keep"}'), tmp_path / "data")
    told = SHOWS + "teacher_without_solution: '{student}[{answer}]'\n"
    report = make_problems(scale(tmp_path, template=told, keys='{"missing_solutions": "keep"}'), tmp_path / "data")
    assert report["train"]["missing_solutions"]["kept"] == 1 and report["train"]["problems"] == 2
    assert load_template(str(tmp_path / "own.yaml")).teacher_text("1+2?", "3", "") == "1+2?[3]"


@pytest.mark.parametrize(
    ("template", "methods"),
    [(SHOWS, "[grpo]"), (SHOWS, "[grpo, sdpo]"), (SHOWS.replace("|{solution}", ""), "[sdpg-urkl, rlsd]")],
)
def test_solutions_are_asked_for_only_where_a_teacher_reads_them(tmp_path, template, methods):
    report = make_problems(scale(tmp_path, template=template, methods=methods), tmp_path / "data")
    assert report["train"]["problems"] == 2 and report["train"]["without_solution"] == 1
    assert report["train"]["missing_solutions"]["kept"] == 1 and not report["train"]["missing_solutions"]["read_by_a_teacher"]


@pytest.mark.parametrize("name", ["boxed", "plain"])
def test_no_hint_ends_in_nothing(name):
    template = load_template(name)
    text = template.teacher_text("How many?", "3", "")
    assert "The correct answer is 3." in text and "How many?" in text
    assert "way" not in text.partition("[Hint]")[2].partition("[Instruction]")[0]
    assert template.teacher_text("How many?", "3", "Count.") != text.replace("\n", " Count.\n")


def test_a_bad_template_for_problems_without_solution_is_refused():
    for text in ("{question} {solution}", "{answer}"):
        with pytest.raises(ValueError, match="'teacher_without_solution' must have"):
            Template("t", student="{question}", teacher="{question} {solution}", teacher_without_solution=text)


LONG = [*CHAINS[:1], {"question": "1+2+3?", "answer": "6", "solution": "1+2=3+3=6"}]


def test_prompts_that_are_too_long_are_refused_or_dropped_by_the_data_rule(tmp_path):
    said = (
        r"1 of 2 problems have a prompt of more than 15 tokens \(train.max_prompt_tokens\): row 2 \(train-000001\): 19 tokens"
    )
    with pytest.raises(ValueError, match=rf"data.train: {said} \(teacher\)"):
        make_problems(scale(tmp_path, LONG, limit=15), tmp_path / "data")
    assert not (tmp_path / "data").exists()
    report = make_problems(scale(tmp_path, LONG, limit=15, keys='{"overlong": "drop"}'), tmp_path / "data")
    prompts = report["train"]["prompts"]
    assert (report["train"]["problems"], prompts["overlong"], prompts["longest_prompt"]) == (
        1,
        1,
        {"student": 6, "teacher": 19},
    )
    assert prompts["overlong_rows"][0]["row"] == 2 and prompts["overlong_rows"][0]["prompt"] == "19 tokens (teacher)"
    assert "1 whose prompt is too long" in summary(report)
    report = make_problems(scale(tmp_path, LONG, limit=15, methods="[grpo]"), tmp_path / "data")
    assert report["train"]["problems"] == 2  # no teacher reads the longer prompt
    with pytest.raises(ValueError, match=r"data.evaluation.test: 1 of 1 problems .*8 tokens \(student\)"):
        make_problems(scale(tmp_path, limit=7, methods="[grpo]", test="9+9-9*1?"), tmp_path / "data")


def test_the_model_must_have_room_for_prompt_and_response(tmp_path):
    chosen = scale(tmp_path, LONG, limit=64)
    with pytest.raises(ValueError, match=r"got 64 \+ 500, but the model has 512 positions"):
        resolve(tmp_path / "scale.yaml", {"train.max_response_tokens": 500})
    assert data_config(chosen) != data_config(resolve(tmp_path / "scale.yaml", {"train.max_response_tokens": 440}))


def test_characters_that_the_tokenizer_lacks_are_found_by_the_data_rule(tmp_path):
    with pytest.raises(
        ValueError, match="data.train: problem 'train-000000': its prompt has characters that the tokenizer does not"
    ):
        make_problems(scale(tmp_path, [{"question": "é?", "answer": "1"}], methods="[grpo]"), tmp_path / "data")


def test_a_model_without_tokenizer_is_one_line(tmp_path):
    (tmp_path / "model").mkdir()
    scale(tmp_path, methods="[grpo]")
    chosen = resolve(tmp_path / "scale.yaml", {"model": {"warm_start": None, "pretrained": str(tmp_path / "model")}})
    with pytest.raises(ValueError, match="model: the tokenizer of .*model.* could not be loaded") as error:
        make_problems(chosen, tmp_path / "data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "digest"), [("cpu", "7e92dbf2446bed8b"), ("cpu-chain", "82df89d637e13881"), ("smoke", "19def84d7fc4e05d")]
)
def test_the_problems_of_the_scales_that_come_with_the_project_stay_what_they_were(tmp_path, name, digest):
    make_problems(resolve(name), tmp_path)
    problems = [astuple(problem) for problem in load_problems(tmp_path / "train.parquet")]
    assert hashlib.sha256(repr(problems).encode()).hexdigest().startswith(digest)

"""Prompts: templates, chat format, privileged context, and the tokens that end a response."""

import json
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sdpg.config.settings import Task
from sdpg.tasks.answers import find_answer
from sdpg.tasks.chain import chain_problems
from sdpg.tasks.prompts import Template, fill, load_template, template_names
from sdpg.tasks.task import make_task
from sdpg.tasks.tokenizer import character_tokenizer
from sdpg.types import Problem

CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}"
BRACES = Problem("b", r"Is {answer} in \{1, 2\}, \frac{1}{2} {0} {}?", "SECRET-7", r"It is \boxed{SECRET-7} {question}.", "x")


@pytest.fixture(scope="module")
def bpe():
    """A byte-level BPE tokenizer like those of real models, trained so that newlines merge with their neighbours."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|end|>", "<a\nb>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(["one.\n\ntwo.\n\nthree.\n", "Q: 1 + 2?\nA: 3.\n"] * 20, trainer)
    special = ["<a\nb>"]
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", additional_special_tokens=special)


def contains(ids, part):
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))


def test_fill_replaces_in_one_pass_and_leaves_other_braces():
    values = {"question": "{answer}", "answer": "{solution}", "solution": "x"}
    assert fill(r"{question}|{answer}|\boxed{}|{other}|{0}", values) == r"{answer}|{solution}|\boxed{}|{other}|{0}"


@pytest.mark.parametrize("name", template_names())
def test_no_template_shows_the_privileged_context_to_the_student(name, bpe):
    task = make_task(Task(**{"template": name, "verifier": "exact", "stop": [], "chat_template": False}), bpe)
    student, teacher = task.student_prompt(BRACES), task.teacher_prompt(BRACES)
    assert "SECRET-7" in bpe.decode(teacher)
    for secret in ("SECRET-7", BRACES.solution):
        assert secret not in bpe.decode(student)
    if "{solution}" in task.template.teacher:  # the others show the answer alone
        assert BRACES.solution in bpe.decode(teacher)
    assert BRACES.question in bpe.decode(student) and BRACES.question in bpe.decode(teacher)
    other = Problem("c", BRACES.question, "1", "another way", "x")
    assert task.student_prompt(other) == student  # it depends on the question alone
    assert task.teacher_prompt(other) != teacher


def test_solution_and_hint_are_no_part_of_a_chain_prompt_as_token_ids():
    tokenizer = character_tokenizer()
    task = make_task(Task(**{"template": "chain", "verifier": "chain"}), tokenizer)
    for problem in chain_problems([4, 5, 6], 50, seed=0):
        student, teacher = task.student_prompt(problem), task.teacher_prompt(problem)
        solution, hint = tokenizer.encode(problem.solution), tokenizer.encode(f"[{problem.answer}|")
        assert contains(teacher, solution) and contains(teacher, hint) and teacher[: len(student)] == student
        assert not contains(student, solution) and not contains(student, hint)
        assert student == tokenizer.encode(problem.question)


def test_boxed_is_figure_4():
    template = load_template("boxed")
    student = template.student_text("How many?")
    assert student == (
        "Solve the following math problem step by step. Present your final answer inside \\boxed{}, for example "
        "\\boxed{42}.\nHow many?\nRemember to put your final answer inside \\boxed{}.\n"
    )
    teacher = template.teacher_text("How many?", "3", "Count them.")
    assert teacher == student + (
        "[Hint] The correct answer is 3. A common way to solve this is: Count them.\n"
        "[Instruction] If possible, derive the answer 3 using an alternative, equally rigorous mathematical approach "
        "(e.g., algebraic vs geometric, or different substitution). If no alternative exists, articulate the standard "
        "approach with exceptional clarity. Do NOT state that you were given the answer or reference.\n"
    )


def test_few_shot_prompts_end_where_the_response_begins():
    template = load_template("addition-3shot")
    student = template.student_text("What is 12 + 34?")
    assert student.startswith("Q: What is 27 + 15?\nA: 27 + 15 = 42.\nQ: ") and student.endswith("\nQ: What is 12 + 34?\nA:")
    assert student.count("Q: ") == 4
    assert "12 + 34 = 46" in template.teacher_text("What is 12 + 34?", "46", "12 + 34 = 46.")


SHOTS = [(name, shot) for name in template_names() for shot in load_template(name).shots]


@pytest.mark.parametrize(("name", "shot"), SHOTS, ids=[f"{name}-{shot['answer']}" for name, shot in SHOTS])
def test_worked_examples_are_right_by_the_rule_of_their_own_template(name, shot):
    template = load_template(name)
    left, sign, right = re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", shot["question"]).groups()
    assert int(shot["answer"]) == int(left) + int(sign + right)
    assert find_answer(fill(template.shot_response, shot), template.answer_after) == shot["answer"]


def test_the_two_ways_alternate_and_the_hint_is_in_the_short_one():
    template = load_template("addition-two-ways")
    ways = [shot["solution"].startswith("We add") for shot in template.shots]
    assert ways == [True, False, True, False]
    long, short = (len(template.shots[i]["solution"]) for i in (0, 1))
    assert long > 2 * short
    teacher = template.teacher_text("What is 12 + 34?", "46", "12 + 34 = 46.")
    assert teacher.endswith('Q: What is 12 + 34?\nCopy "12 + 34 = 46."\nA:')
    assert teacher.count("Copy ") == 5  # the worked examples show how the hint is used


def test_bad_templates_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'student' must not use {answer}"):
        Template("t", student="{question} {answer}", teacher="{question}")
    with pytest.raises(ValueError, match="no {question}"):
        Template("t", student="Hello", teacher="{question}")
    with pytest.raises(ValueError, match="unknown template 'chian'; nearest: 'chain'"):
        load_template("chian")
    path = tmp_path / "own.yaml"
    path.write_text("student: '{question}'\nteacherr: x\n")
    with pytest.raises(ValueError, match="teacherr"):
        load_template(str(path))
    start = "student: '{question}'\nteacher: '{question}'\n"
    for text, expected in {
        start + "student: 'again {question}'\n": "key 'student' appears twice",
        start + "5: x\n": "got ['5', 'student', 'teacher']",
        start + "answer_after: 5\n": "'answer_after' is 5, expected text",
        start + "teacher_without_solution: [x]\n": "'teacher_without_solution' is ['x'], expected text",
        "student: '{question}'\nteacher: '{question} {soluton}'\n": "'teacher' has {soluton} in it.*write {solution}",
        "student: '{question}'\nteacher: '{question} { Answer }'\n": "'teacher' has { Answer } in it.*write {answer}",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=expected.replace("[", r"\[")):
            load_template(str(path))
    path.write_text("student: '{question} \\frac{1}{x} {ans} {text}'\nteacher: '{student}'\n")  # other braces are text
    assert "{1}{x} {ans} {text}" in load_template(str(path)).student
    path.write_text("student: 'Ask: {question}'\nteacher: '{student} ({answer})'\n")
    assert load_template(str(path)).teacher_text("a?", "b", "") == "Ask: a? (b)"


def test_chat_template_is_a_switch(bpe):
    with pytest.raises(ValueError, match="has no chat template"):
        make_task(Task(**{"template": "plain", "verifier": "exact", "stop": [], "chat_template": True}), bpe)
    bpe.chat_template = CHAT
    try:
        task = make_task(Task(**{"template": "plain", "verifier": "exact", "stop": [], "chat_template": True}), bpe)
        text = bpe.decode(task.student_prompt(BRACES), skip_special_tokens=False)
        assert text.startswith("<|user|>Is {answer} in") and text.endswith("<|bot|>")
    finally:
        bpe.chat_template = None


def test_stop_tokens_are_all_tokens_with_the_character(bpe):
    task = make_task(Task(**{"template": "plain", "verifier": "exact", "stop": ["\n"], "chat_template": False}), bpe)
    texts = {i: bpe.decode([i]) for i in range(len(bpe))}
    special = set(bpe.all_special_ids)
    expected = {i for i, text in texts.items() if "\n" in text and i not in special} | {bpe.eos_token_id}
    assert set(task.stop_token_ids) == expected
    assert any(texts[i] not in ("\n", "<|end|>") for i in expected)  # merged tokens such as ".\n\n" are among them
    for text in ("3.\n", "3.\n\n", "3.<|end|>"):
        assert task.text(bpe.encode(text)) == "3."  # what a merged token says before the newline is kept


@pytest.mark.parametrize("stop", ["\n\n", "Q:", "", "é"])
def test_longer_stop_strings_are_refused(stop, bpe):
    with pytest.raises(ValueError, match="expected one ASCII character|at (least|most) 1 character"):
        make_task(Task(**{"template": "plain", "verifier": "exact", "stop": [stop], "chat_template": False}), bpe)


def test_end_tokens_of_the_generation_config_count(tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 20]}))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    task = make_task(Task(**{"template": "chain", "verifier": "chain"}), tokenizer)
    assert task.stop_token_ids == (1, 20)
    assert task.text([4, 5, 20]) == task.text([4, 5, 1]) == "12"


def test_characters_that_the_tokenizer_lacks_are_an_error():
    task = make_task(Task(**{"template": "chain", "verifier": "exact"}), character_tokenizer())
    with pytest.raises(ValueError, match="problem 'b'.*does not know"):
        task.student_prompt(BRACES)

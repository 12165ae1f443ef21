"""Verifiers other than the chain's: extraction, exact, reasoning-gym's scorer, math-verify and its time limit."""

import threading
import time

import pytest

from sdpg.tasks.answers import MAX_TEXT, find_answer, find_box, normalise
from sdpg.tasks.gym import regenerate
from sdpg.tasks.sources import build_source
from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem, Score

SUMS = {
    "sum": {
        "dataset": "basic_arithmetic",
        "weight": 3,
        "question": "What is {expression}?",
        "solution": "{expression} = {answer}.",
        "min_terms": 2,
        "max_terms": 2,
        "min_digits": 2,
        "max_digits": 2,
        "operators": ["+"],
        "allow_parentheses": False,
        "allow_negation": False,
    },
    "chain_sum": {"max_terms": 3},
}


def problem(answer, source="x"):
    return Problem("p", "q", answer, "", source)


@pytest.fixture(scope="module")
def math():
    verifier = make_verifier("math-verify", seconds=3.0)
    yield verifier
    verifier.close()


@pytest.mark.parametrize(
    ("text", "marker", "expected"),
    [
        (" 27 + 15 = 42.", "=", "42"),
        ("1 = 1\n2 = 42\n\n", "=", "42"),
        ("Let me think.\nANSWER: 42\nBye", "answer:", "42"),
        ("answer: 1\nAnswer:\n 2 ", "answer:", "2"),
        ("first\nlast line. ", None, "last line"),
        ("no marker\n7", "answer:", "7"),
        ("İİİİ answer: 5", "answer:", "5"),  # a letter whose lower case is longer
        ("", "=", ""),
        ("=", "=", ""),
        ("x = 1" + " " * MAX_TEXT, "=", ""),
    ],
)
def test_find_answer(text, marker, expected):
    found = find_answer(text, marker)
    assert found == expected


def test_exact_compares_normalised_text():
    verify = make_verifier("exact", "answer:")
    assert normalise("  New   YORK. ") == "new york"
    assert verify(problem("New York"), "Answer: new  york.") == Score(True)
    assert verify(problem("New York"), "Answer: York") == Score(False)
    assert verify(problem("7"), "so it is\n7") == Score(True)
    assert verify(problem("7"), "") == Score(False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{42}", "42"),
        (r"\boxed{1} then \boxed{ \frac{1}{2} }.", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2", None),
        ("42", None),
        (r"\boxed{42}" + "x" * MAX_TEXT, None),
        (r"\boxed{" + "{" * 3000, None),
    ],
)
def test_find_box(text, expected):
    assert find_box(text) == expected


@pytest.mark.parametrize(
    ("answer", "text", "correct"),
    [
        ("42", r"So \boxed{42}.", True),
        ("42", "So 42.", False),
        ("25", r"\boxed{025}", True),
        ("1/2", r"\boxed{\frac12}", True),
        (r"2\sqrt{3}", r"\boxed{\sqrt{12}}", True),
        (r"2\sqrt{3}", r"\boxed{\sqrt{13}}", False),
        ("5", r"\boxed{}", False),
        ("5", r"\boxed{\frac{}{}}}", False),
        ("5", r"\boxed{" + "1+" * 5000 + "1}", False),
    ],
)
def test_math_verify(math, answer, text, correct):
    assert math(problem(answer), text) == Score(correct)


def test_math_verify_gives_up_on_hostile_text_and_goes_on(math):
    before = sum(math.failures.values())
    start = time.perf_counter()
    assert math(problem("5"), r"\boxed{9^{9^{9^{9}}}}") == Score(False)
    assert time.perf_counter() - start < 30
    assert sum(math.failures.values()) == before + 1 and any("no verdict within 3 s" in key for key in math.failures)
    assert math(problem("1/2"), r"\boxed{\frac12}") == Score(True)


def test_math_verify_works_outside_the_main_thread(math):
    scores = {}

    def judge(i):
        scores[i] = math(problem("1/2"), rf"\boxed{{\frac{{{i}}}{{4}}}}").correct

    threads = [threading.Thread(target=judge, args=(i,)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == {1: False, 2: True, 3: False}


def test_a_reference_that_cannot_be_read_is_counted(math):
    before = sum(math.failures.values())
    assert math(problem("}{"), r"\boxed{5}") == Score(False)
    assert sum(math.failures.values()) == before + 1 and any("could not be read" in key for key in math.failures)


def test_unknown_verifier_names_the_nearest():
    with pytest.raises(ValueError, match="unknown verifier 'mathverify'; nearest: 'math-verify'"):
        make_verifier("mathverify")


def test_reasoning_gym_problems_are_worded_solved_and_scored_by_its_own_scorer():
    problems = build_source({"reasoning-gym": {"mix": SUMS, "count": 40, "seed": 1}}, "evaluation.sums")
    assert problems == build_source({"reasoning-gym": {"mix": SUMS, "count": 40, "seed": 1}}, "evaluation.sums")
    assert len({p.id for p in problems}) == 40 and problems[0].id == "sums-000000"
    worded = [p for p in problems if p.solution]
    assert 20 < len(worded) < 40
    verify = make_verifier("reasoning-gym", "=")
    try:
        for p in worded[:3]:
            expression = p.question.removeprefix("What is ").removesuffix("?")
            assert p.solution == f"{expression} = {p.answer}."
            assert verify(p, " " + p.solution) == Score(True)
            assert verify(p, f" {expression} = {int(p.answer) + 1}.") == Score(False)
        plain = next(p for p in problems if not p.solution)  # chain_sum takes the same number in other forms
        assert verify(plain, f"{plain.answer}.00") == Score(True)
        assert regenerate(plain.source)[1]["question"] == plain.question
        assert verify(problem("5"), "5") == Score(False)  # from no reasoning-gym source: counted, not a crash
        assert any("expected one from reasoning-gym" in key for key in verify.failures)
    finally:
        verify.close()


def test_reasoning_gym_mistakes_are_named():
    def build(mix):
        return build_source({"reasoning-gym": {"mix": mix, "count": 2, "seed": 1}}, "train")

    with pytest.raises(ValueError, match=r"data.train: reasoning-gym has no dataset 'chainsum'; nearest: chain_sum"):
        build({"chainsum": {}})
    with pytest.raises(ValueError, match="does not take.*max_term"):
        build({"chain_sum": {"max_term": 3}})
    with pytest.raises(ValueError, match=r"the entry has no {foo}; it has .*expression"):
        build({"chain_sum": {"question": "{foo}?"}})
    with pytest.raises(ValueError, match="reasoning-gym: mix: got {}"):
        build({})
    with pytest.raises(ValueError, match="weights"):
        build({"chain_sum": {"weight": 0}})

"""Verifiers other than the chain's: extraction, exact, reasoning-gym's scorer, math-verify and its time limit."""

import threading

import pytest

from sdpg.tasks.answers import MAX_TEXT, find_answer, find_box, normalise
from sdpg.tasks.gym import regenerate
from sdpg.tasks.judge import JudgeLost
from sdpg.tasks.sources import build_source
from sdpg.tasks.spelling import clean
from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem, Score
from tests.tasks.answer_table import HANGS, TABLE

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
    verifier = make_verifier("math-verify")
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
        (r"\boxed {42}", "42"),
        (r"\fbox{41} or \framebox {42}", "42"),
        (r"\boxed{\boxed{42}}", "42"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
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


@pytest.mark.parametrize(("reference", "right", "wrong"), TABLE, ids=[row[0] for row in TABLE])
def test_answers_are_equal_or_not_as_mathematics_has_it(math, reference, right, wrong):
    verdicts = {given: math(problem(reference), rf"So \boxed{{{given}}}.").correct for given in [reference, *right, *wrong]}
    assert verdicts == dict.fromkeys([reference, *right], True) | dict.fromkeys(wrong, False)


def test_the_one_spelling_stays_as_it_is():
    texts = [text for reference, right, wrong in TABLE for text in (reference, *right, *wrong)]
    assert [text for text in texts if clean(clean(text)) != clean(text)] == []


HOSTILE = [
    ("9^{9^{9^{9}}}", "too large"),
    ("2^2^2^2^2^2", "too large"),
    ("(10^8)!", "too large"),
    ("((((9!)!)!)!)", "too large"),
    ("1e999999999", "too large"),
    ("1.1^{999999999}", "too large"),
    (r"\binom{10^9}{10^8}", "too large"),
    (r"\Gamma(10^{8})", "too large"),
    (r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{1000000}", "too large"),
    (r"\int_0^1\int_0^1\int_0^1 e^{xyz} dx dy dz", "not carried out"),
    (r"\sum_{n=1}^{1000000000} \frac{1}{n^2}", "not carried out"),
    (r"∫_0^1 x dx", "not carried out"),
    ("(" * 50 + "1" + ")" * 50, "nested deeper"),
    (r"\{" * 50 + "1" + r"\}" * 50, "nested deeper"),
    (r"\sqrt{" * 50 + "2" + "}" * 50, "nested deeper"),
    ("|" * 40 + "x" + "|" * 40, "nested deeper"),
    (",".join("1" * 190), "more than 60 items"),
    (r"\begin{pmatrix}" + r"\\".join(["&".join("1" * 20)] * 8) + r"\end{pmatrix}", "more than 60 items"),
    ("=".join("x" * 100), "more than 60 items"),
    ("1+" * 300 + "1", "more than 400 characters"),
    (r"\frac{}{}}}", "could not be read"),
    (r"\frac" * 60, "could not be read"),
    ("$" * 200, "could not be read"),
    ("\\" * 201, None),
    ("4 2", "could not be read"),
    ("😀" * 100, "could not be read"),
    ("5\u0300" * 100, "could not be read"),
    (HANGS, "no verdict within 1 s"),
]


@pytest.mark.parametrize(("given", "reason"), HOSTILE, ids=[given[:16] for given, _ in HOSTILE])
def test_what_cannot_be_judged_is_wrong_and_counted_by_its_reason(math, given, reason):
    math.failures.clear()
    score = math(problem("42"), rf"\boxed{{{given}}}" if reason != "no verdict within 1 s" else rf"\boxed{{41.5+{given}}}")
    assert score == Score(False) and (reason in score.unjudged if reason else score.unjudged is None)
    assert math.failures == ({score.unjudged: 1} if reason else {})
    assert math(problem("1/2"), r"\boxed{\cos 60^\circ}") == Score(True)


def test_an_operation_that_the_reference_has_is_no_reason(math):
    reference = r"\sum_{i=1}^{n} i"
    assert math(problem(reference), r"\boxed{\sum_{i=1}^n i}") == Score(True)
    assert math(problem(reference), r"\boxed{\sum_{i=1}^{n} 2i}") == Score(False)


def test_equal_requests_are_asked_once(math, monkeypatch):
    asked, plain = [], math.judges.ask
    monkeypatch.setattr(math.judges, "ask", lambda **fields: asked.append(fields) or plain(**fields))
    for text in (r"\boxed{\sqrt{49}}", r"\boxed{ \sqrt{49}. }", r"\boxed{\sqrt 7^{4}}", r"\boxed{\sqrt{}}", r"\boxed{\sqrt{}}"):
        math(problem("7"), text)
    assert len(asked) == 3
    math.failures.clear()
    assert math(problem("7"), r"\boxed{\sqrt{}}").unjudged and sum(math.failures.values()) == 1
    asked.clear()
    monkeypatch.setattr(
        math.judges, "ask", lambda **fields: asked.append(fields) or (_ for _ in ()).throw(JudgeLost("it died"))
    )
    assert [math(problem("7"), r"\boxed{\sqrt{48}}").unjudged for _ in range(2)] == ["it died", "it died"] and len(asked) == 2


EXACT = [
    (
        "72",
        ["72", "72.0", "$72", "$72.00", "72 dollars", "**72**", r"$72$", r"\boxed{72}", "+72", "72.", "7.2e1", "144/2", "072"],
    ),
    ("1000", ["1,000", "1 000", "1e3", "10^3", "1,000.00", "$1,000"]),
    ("1,000", ["1000", "1,000"]),
    ("42 dollars", ["42", "$42", "42 dollars"]),
    ("#### 42", ["#### 42"]),
    ("1e3", ["1000", "1e3"]),
    ("0.5", ["1/2", ".5", r"\frac12", "50%"]),
    ("-3", ["−3", "-3.0", "- 3"]),
    ("1 1/2", ["1.5", "3/2"]),
    ("New York", ["new york", "NEW  YORK."]),
]


@pytest.mark.parametrize(("reference", "right"), EXACT)
def test_exact_takes_a_number_for_any_other_of_its_value(reference, right):
    verify = make_verifier("exact", "answer:")
    everything = {text for _, texts in EXACT for text in texts}
    equal = {text for text in everything if verify(problem(reference), f"So.\nAnswer: {text}").correct}
    same = {text for other, texts in EXACT for text in texts if set(texts) & set(right)}
    assert equal >= set(right) and not equal - same


@pytest.mark.parametrize(
    "given", ["720", "7.2", "72.1", "72 million", "72 and a half", "71", "72 or 73", "2*36", "sqrt(5184)", "x72", ""]
)
def test_exact_takes_nothing_else_for_72(given):
    assert make_verifier("exact", "answer:")(problem("72"), f"Answer: {given}") == Score(False)


def test_exact_has_no_limit_on_a_text():
    long = "a long answer " * 60
    assert make_verifier("exact", "answer:")(problem(long), f"Answer: {long}") == Score(True)


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

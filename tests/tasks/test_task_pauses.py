"""The chain task with pauses: what counts as right, how demonstrations pause and err, and hostile responses."""

import re
import time

import pytest

from sdpg.config.settings import Task, WarmStart
from sdpg.experiment.warm_start import Demonstrator
from sdpg.tasks.chain import chain_problems, parse_question, work
from sdpg.tasks.pauses import LONGEST, verify_pauses, without_pauses
from sdpg.tasks.task import make_task
from sdpg.tasks.tokenizer import character_tokenizer
from sdpg.types import Problem, Score

PROBLEM = Problem("p", "6-2*9?", "6", "6-2=4*9=6#6", "chain")
PAUSES = {"plain": 0.5, "hinted": 0.0, "goes_on": 0.5, "misconceptions": 0.3, "misconception_rate": 0.9}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6-2=4*9=6#6", Score(True, 1.0)),
        ("6-2=4?*9=6????#6", Score(True, 1.0)),
        ("6-2=4" + "?" * 50 + "*9=6#6", Score(True, 1.0)),
        ("6?-2=4*9=6#6", Score(True, 0.0)),  # a mark in another place is no pause
        ("6-2=?4*9=6#6", Score(True, 0.0)),
        ("6-2=4*9=6#6?", Score(False, 0.0)),
        ("6-2=4?#6", Score(True, 0.0)),  # skipped a step
        ("6-2=5?*9=5?#6", Score(True, 0.0)),  # right by luck
        ("6-2=4?*9=6?#5", Score(False, 0.0)),
        ("6-2=4?*9=?#6", Score(True, 0.0)),
        ("", Score(False, 0.0)),
        ("=4?#6", Score(True, 0.0)),
        ("6-2=4" + "?" * 5000 + "*9=6#6", Score(False, 0.0)),  # too long to be read
        ("#\u0666", Score(False, 0.0)),
    ],
)
def test_verifier(text, expected):
    assert verify_pauses(PROBLEM, text) == expected


def test_a_hostile_response_costs_no_time():
    start = time.perf_counter()
    for text in ("=4?" * 10**6, "?" * 10**6 + "#6", ("=4" + "?" * 30) * 30 + "#5"):
        assert not verify_pauses(PROBLEM, text).correct
    assert time.perf_counter() - start < 0.5


def test_every_solution_is_right_with_and_without_pauses():
    task = make_task(Task(template="chain", verifier="pauses"), character_tokenizer())
    for problem in chain_problems([3, 5, 7], 60, seed=3):
        for text in (problem.solution, re.sub(r"(=\d)", r"\1??", problem.solution)):
            assert task.score_text(problem, text) == Score(True, 1.0)
            assert without_pauses(text) == problem.solution


def demonstrator(seed=0, pauses=PAUSES, **changes):
    settings = {"operations": [3, 5], "error_rate": 0.3, "jump_plain": 0.0, "jump_hinted": 0.0, "reverse": 0.0, **changes}
    stream = WarmStart(**settings, pauses=pauses)
    return Demonstrator(stream, seed, lambda q, a, s, hinted: f"{q}[{a}|{s}]" if hinted else q)


def steps(question, response):
    """Yield (fact, marks after the value, whether the value is right) of each step of a demonstration."""
    value, operations = parse_question(question)
    rest = response[1:]
    for op, b in operations:
        head = f"{op}{b}="
        assert rest.startswith(head)
        stated, rest = int(rest[len(head)]), rest[len(head) + 1 :]
        marks = len(rest) - len(rest.lstrip("?"))
        yield (value, op, b), marks, stated == int(work(f"{value}{op}{b}?")[1])
        value, rest = stated, rest[marks:]
    assert rest == f"#{value}"


def test_plain_demonstrations_pause_throughout_or_not_at_all_and_hold_misconceptions():
    stream = demonstrator(hinted=0.0, error_rate=0.1)
    seen = {False: [0, 0], True: [0, 0]}  # a misconception -> [steps, wrong ones]
    paused = longest = 0
    for _ in range(1500):
        d = stream.draw()
        found = list(steps(d.prompt, d.response))
        pauses = {m > 0 for _, m, _ in found}
        assert len(pauses) == 1
        paused += True in pauses
        longest = max(longest, *(m for _, m, _ in found))
        for fact, _, right in found:
            seen[fact in stream.misconceptions][0] += 1
            seen[fact in stream.misconceptions][1] += not right
    assert abs(paused / 1500 - 0.5) < 0.06 and longest == LONGEST
    others, misconceptions = (wrong / count for count, wrong in (seen[False], seen[True]))
    assert abs(others - 0.1) < 0.02 and abs(misconceptions - 0.9) < 0.03


def test_a_fact_has_one_wrong_value_and_misconceptions_are_a_share_of_the_facts():
    stream = demonstrator(hinted=0.0)
    assert len(stream.misconceptions) == 90 and stream.misconceptions != demonstrator(seed=1).misconceptions
    wrong = {}
    for _ in range(800):
        d = stream.draw()
        value, operations = parse_question(d.prompt)
        for (op, b), stated in zip(operations, without_pauses(d.response).split("=")[1:], strict=True):
            if int(stated[0]) != int(work(f"{value}{op}{b}?")[1]):
                assert wrong.setdefault((value, op, b), stated[0]) == stated[0]
            value = int(stated[0])
    assert len(wrong) > 100


@pytest.mark.parametrize(("hinted", "pausing"), [(0.0, 0), (1.0, 1)])
def test_hinted_demonstrations_are_right_and_pause_as_they_are_told(hinted, pausing):
    stream = demonstrator(hinted=1.0, pauses=PAUSES | {"hinted": hinted})
    for _ in range(200):
        d = stream.draw()
        question = d.prompt.partition("[")[0]
        solution, answer = work(question)
        assert verify_pauses(Problem("d", question, answer, solution, "chain"), d.response) == Score(True, 1.0)
        assert ("?" in d.response) == pausing


def test_demonstrations_that_pause_skip_nothing():
    stream = demonstrator(hinted=0.0, jump_plain=1.0)
    responses = [stream.draw().response for _ in range(100)]
    assert all(("=" in response) == ("?" in response) for response in responses)
    assert 20 < sum("?" in response for response in responses) < 80


def test_without_the_block_demonstrations_are_what_they_were():
    one, two = (demonstrator(pauses=None, hinted=0.3) for _ in range(2))
    drawn = [one.draw() for _ in range(100)]
    assert drawn == [two.draw() for _ in range(100)] and not any("?" in d.response for d in drawn)

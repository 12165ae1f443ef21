"""The chain task and its tokenizer: worked solutions, verification of right, wrong, shortened and hostile responses."""

import time

import pytest
from transformers import AutoTokenizer

from sdpg.config.settings import Task
from sdpg.tasks.chain import chain_problems, parse_question, reverse_problems, verify_chain, work
from sdpg.tasks.task import make_task
from sdpg.tasks.tokenizer import CHARACTERS, character_tokenizer
from sdpg.types import Problem, Score

PROBLEM = Problem("p", "6-2*9?", "6", "6-2=4*9=6#6", "chain")


def test_worked_solution_by_hand():
    assert work("6-2*9?") == ("6-2=4*9=6#6", "6")
    assert work("0-1-9*7+5?") == ("0-1=9-9=0*7=0+5=5#5", "5")


def test_every_generated_problem_is_verified_by_its_own_solution():
    for problem in chain_problems([1, 4, 6, 8], 200, seed=3):
        assert verify_chain(problem, problem.solution) == Score(True, 1.0)
        first, steps = parse_question(problem.question)
        assert work(problem.question) == (problem.solution, problem.answer)
        assert str(first) == problem.solution[0] and len(steps) in (1, 4, 6, 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6-2=4*9=6#6", Score(True, 1.0)),
        ("6#6", Score(True, 0.0)),  # jumped to the right answer
        ("6-2=4#6", Score(True, 0.0)),
        ("6-2=5*9=5#6", Score(True, 0.0)),  # right by luck
        ("6-2=4*9=6#5", Score(False, 0.0)),
        ("6-3=3*9=7#7", Score(False, 0.0)),  # another chain
        ("6-2=4*9=6#", Score(False, 0.0)),
        ("6-2=4*9=6#66", Score(False, 0.0)),
        ("6-2=4*9=6#6#", Score(False, 0.0)),
        ("6-2=4*9=6", Score(False, 0.0)),
        ("6", Score(False, 0.0)),
        ("", Score(False, 0.0)),
        (" 6-2=4*9=6#6", Score(True, 0.0)),
        ("#\u0666", Score(False, 0.0)),  # a six, but not the character 6
        ("#" * 5000 + "6", Score(False, 0.0)),
        ("__import__('os').abort()#6", Score(True, 0.0)),  # text, nothing more
    ],
)
def test_verifier(text, expected):
    assert verify_chain(PROBLEM, text) == expected


def test_a_hostile_response_costs_no_time():
    start = time.perf_counter()
    for text in ("9*" * 10**6, "#" * 10**6, "(" * 10**6 + "#6"):
        assert not verify_chain(PROBLEM, text).correct
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("question", ["", "?", "6?", "6-?", "6-2", "6/2?", "66-2?", "6-2*?", "x+1?", "1" + "+1" * 100 + "?"])
def test_what_is_no_chain_is_refused(question):
    with pytest.raises(ValueError, match="not a chain question"):
        parse_question(question)


def test_problems_differ_repeat_by_seed_and_share_lengths_equally():
    problems = chain_problems([4, 5, 6], 300, seed=1)
    assert len({p.question for p in problems}) == 300 == len({p.id for p in problems})
    assert problems == chain_problems([4, 5, 6], 300, seed=1)
    assert problems != chain_problems([4, 5, 6], 300, seed=2)
    lengths = [len(parse_question(p.question)[1]) for p in problems]
    assert [lengths.count(k) for k in (4, 5, 6)] == [100, 100, 100]


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="count is 300 over operations .*expected 1 to 180"):
        chain_problems([1], 300, seed=0)
    with pytest.raises(ValueError, match="operations must be"):
        chain_problems([0], 3, seed=0)
    with pytest.raises(ValueError, match="digits must be"):
        reverse_problems(3, seed=0, digits=[99])


def test_tokenizer_round_trip_also_after_saving(tmp_path):
    character_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in [CHARACTERS, *(p.solution for p in chain_problems([6], 20, seed=0)), "6-2*9?[6|6-2=4*9=6#6]"]:
        ids = tokenizer.encode(text)
        assert len(ids) == len(text) and tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer.encode("12") + [tokenizer.eos_token_id], skip_special_tokens=True) == "12"
    assert tokenizer.encode("1a") == [tokenizer.encode("1")[0], tokenizer.unk_token_id]


def test_task_scores_token_ids():
    tokenizer = character_tokenizer()
    task = make_task(Task(**{"template": "chain", "verifier": "chain"}), tokenizer)
    ids = [*tokenizer.encode(PROBLEM.solution), tokenizer.eos_token_id]
    assert task.text(ids) == PROBLEM.solution
    assert task.score(PROBLEM, ids, "stop") == Score(True, 1.0)
    assert task.score(PROBLEM, ids[:-1], "length") == Score(False, 0.0)  # it has not ended
    assert task.stop_token_ids == (tokenizer.eos_token_id,)


def test_reverse_is_judged_by_its_own_rule_in_a_chain_task():
    tokenizer = character_tokenizer()
    task = make_task(Task(**{"template": "chain", "verifier": "chain"}), tokenizer)
    for problem in reverse_problems(20, seed=1):
        assert problem.question[1:-1] == problem.answer[::-1]
        ids = [*tokenizer.encode(problem.answer), tokenizer.eos_token_id]
        assert task.score(problem, ids, "stop") == Score(True)
        assert task.score(problem, ids[1:], "stop") == Score(False)

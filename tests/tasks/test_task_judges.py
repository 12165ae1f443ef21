"""Judging side by side: order, limits and counts of failures hold, and children come and go as they are needed.

math-verify is the library; `HANGS` is text on which it hangs. Where two requests must overlap, a barrier holds them.
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdpg.tasks import judge
from sdpg.tasks.judge import JudgeError, Judges, side_by_side
from sdpg.tasks.prompts import load_template
from sdpg.tasks.task import Task
from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem, Rollout, Score
from tests.tasks.answer_table import HANGS

HALF, THIRD = r"\frac12", r"\frac13"


@pytest.fixture
def judges(monkeypatch):
    """Three children at most, started without patience."""
    monkeypatch.setattr(judge, "GROW_SECONDS", 0.0)
    judges = Judges("math-verify", seconds=0.3, most=3)
    yield judges
    judges.close()


def ask(judges, given, answer="1/2"):
    return judges.ask(answer=answer, given=given)


def verdict(judges, given):
    try:
        return ask(judges, given)
    except JudgeError as error:
        return str(error)


def meet(monkeypatch, count):
    """Let the children be asked only when `count` requests are in their hands at once."""
    barrier, plain = threading.Barrier(count), judge._Child.ask

    def together(self, fields, seconds):
        barrier.wait(60)
        return plain(self, fields, seconds)

    monkeypatch.setattr(judge._Child, "ask", together)


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(2, None, 2), (2, "8", 1), (64, "8", 8), (12, "4", 3), (192, None, 8), (1, None, 1)]
)
def test_cores_are_shared_out_over_the_processes_of_a_machine(monkeypatch, cores, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert side_by_side() == expected == Judges("math-verify").most


def test_verdicts_come_in_the_order_of_the_requests_and_a_hanging_one_costs_only_its_own(judges):
    given = [HALF, HANGS, THIRD, "0.5", HANGS, "2/4", r"\frac{3}{6}", THIRD]
    late = "math-verify: no verdict within 0.3 s"
    assert judges.map(lambda x: verdict(judges, x), given) == [True, late, False, True, late, True, True, False]
    assert len(judges._children) <= 3 and len(judges._free) == len(judges._children)


def test_children_judge_at_the_same_time(judges, monkeypatch):
    assert ask(judges, HALF) and len(judges._children) == 1
    meet(monkeypatch, 3)
    assert judges.map(lambda x: verdict(judges, x), [HALF, THIRD, HALF]) == [True, False, True]
    assert len(judges._children) == 3


def test_one_after_the_other_takes_one_child_and_none_before_the_first(judges):
    assert judges._children == []
    assert [ask(judges, x) for x in (HALF, THIRD, HALF)] == [True, False, True]
    assert len(judges._children) == 1


def test_what_one_child_does_in_time_starts_no_other(judges, monkeypatch):
    monkeypatch.setattr(judge, "GROW_SECONDS", 1000.0)
    assert judges.map(lambda x: verdict(judges, x), [HALF, THIRD] * 20) == [True, False] * 20
    assert len(judges._children) == 1


def test_with_one_child_everything_stays_in_one_thread():
    judges, here = Judges("math-verify", most=1), threading.current_thread()
    assert judges.map(lambda x: (x, threading.current_thread() is here), iter("ab")) == [("a", True), ("b", True)]


def test_a_child_that_dies_costs_one_request_and_one_that_has_died_none(judges, monkeypatch):
    assert ask(judges, HALF)
    (child,) = judges._children
    child.process.kill()
    child.process.wait()
    assert ask(judges, HALF)
    (child,) = judges._children
    os.killpg(child.process.pid, signal.SIGSTOP)  # so that it cannot answer between the request and its end
    plain = judge._Child._read
    monkeypatch.setattr(judge._Child, "_read", lambda self, seconds: judge._kill(self.process) or plain(self, seconds))
    assert verdict(judges, HALF) == "math-verify: the judging process died"
    monkeypatch.setattr(judge._Child, "_read", plain)
    assert ask(judges, HALF) and len(judges._children) == 1


@pytest.mark.parametrize("given", [HANGS, r"\binom{1000000000}{100000000}"])
def test_what_takes_too_long_ends_a_fork_and_not_the_child(judges, given):
    assert ask(judges, HALF)
    children = list(judges._children)
    judges.seconds = 0.2
    assert verdict(judges, given) == "math-verify: no verdict within 0.2 s"
    assert ask(judges, HALF) and judges._children == children


def test_the_limit_is_processor_time_and_not_the_clocks(judges, monkeypatch):
    assert ask(judges, HALF)
    judges.seconds, plain = 0.4, judge._Child._read

    def read(self, seconds):
        os.killpg(self.process.pid, signal.SIGSTOP)
        time.sleep(0.8)
        os.killpg(self.process.pid, signal.SIGCONT)
        return plain(self, seconds)

    monkeypatch.setattr(judge._Child, "_read", read)
    assert ask(judges, HALF) and not ask(judges, THIRD)


def test_a_fork_that_dies_while_nothing_is_asked_costs_no_verdict(judges):
    assert ask(judges, HALF)
    (child,) = judges._children
    forks = Path(f"/proc/{child.process.pid}/task/{child.process.pid}/children")
    first = forks.read_text()
    os.kill(int(first), signal.SIGKILL)
    while forks.read_text() in ("", first):
        time.sleep(0.01)
    assert [ask(judges, x) for x in (HALF, THIRD, HALF)] == [True, False, True]
    assert judges._children == [child]


def test_an_error_of_the_library_keeps_its_child(judges):
    assert ask(judges, HALF)
    (child,) = judges._children
    with pytest.raises(JudgeError, match="math-verify: the reference answer .* could not be read"):
        ask(judges, HALF, answer="}{")
    assert judges._free == [child]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_ctrl_c_ends_the_children_and_counts_nothing(monkeypatch, error):
    """It comes while two requests hang that have ten minutes; what waits behind them is never judged."""
    monkeypatch.setattr(judge, "GROW_SECONDS", 0.0)
    verifier = make_verifier("math-verify", seconds=600.0)
    verifier.judges.most = 2
    asked, begun, plain = [], threading.Semaphore(0), judge._Child.ask

    def watched(self, fields, seconds):
        asked.append(self.process)
        begun.release()
        return plain(self, fields, seconds)

    def items():
        yield from [HANGS] * 6
        for _ in range(2):
            assert begun.acquire(timeout=60)
        raise error

    assert verifier(Problem("p", "q", "1/2", "", "x"), r"\boxed{\cos 60^\circ}") == Score(True)  # nobody waits before a verdict
    monkeypatch.setattr(judge._Child, "ask", watched)
    with pytest.raises(error):
        verifier.map(lambda x: verifier(Problem("p", "q", "1/2", "", "x"), rf"\boxed{{{x}}}"), items())
    assert len(asked) == 2 and all(process.poll() is not None for process in asked)
    assert not verifier.failures and not verifier.judges._children


def test_close_while_a_response_is_judged_is_an_error_and_no_verdict(judges, monkeypatch):
    judges.seconds = 600.0
    plain = judge._Child._read

    def read(self, seconds):
        if seconds > 600.0:
            judges.close()
        return plain(self, seconds)

    monkeypatch.setattr(judge._Child, "_read", read)
    with pytest.raises(RuntimeError, match="math-verify: the judges were closed before a response was judged") as error:
        ask(judges, HANGS)
    assert not isinstance(error.value, JudgeError)
    monkeypatch.setattr(judge._Child, "_read", plain)
    assert ask(judges, HALF)


def test_a_child_that_does_not_start_is_an_error(monkeypatch):
    judges = Judges("no-such-verifier", most=2)
    with pytest.raises(RuntimeError, match="the judging process of no-such-verifier did not start"):
        judges.map(lambda x: ask(judges, x), [HALF] * 4)
    assert judges._children == []


def test_a_fork_has_children_of_its_own_and_leaves_the_parents_alone(judges):
    assert ask(judges, HALF)
    (child,) = judges._children
    read, write = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            alone = judges._children == [] and not child._finalizer.alive
            right = ask(judges, HALF) and not ask(judges, THIRD)
            judges.close()
            os.write(write, b"ok" if alone and right and judges._children == [] else b"no")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"ok"
    os.waitpid(fork, 0)
    assert child.process.poll() is None and ask(judges, HALF) and judges._children == [child]


class Letters:
    """A tokenizer of one token a character."""

    name_or_path, chat_template, eos_token_id, unk_token_id, bos_token_id, all_special_ids = "", None, 0, None, None, [0]

    def decode(self, ids, **_):
        return "".join(map(chr, ids))


def responses(*texts):
    return [Rollout([*map(ord, text), 0], [0.0] * (len(text) + 1), "stop", 0) for text in texts]


def test_a_task_scores_many_as_it_scores_one(monkeypatch):
    monkeypatch.setattr(judge, "GROW_SECONDS", 0.0)
    task = Task(load_template("boxed"), "math-verify", Letters())
    task.verifier.judges.seconds, task.verifier.judges.most = 0.3, 3
    given = [HALF, HANGS, "", "0.5", THIRD, HANGS, "1/2", "2/4"]
    problems = [Problem(str(i), "q", "1/2", "", "x") for i in range(len(given))]
    problems[-1] = Problem("r", "q", r"\boxed{2/4}", "", "reverse")  # its source has a rule of its own
    rollouts = responses(*(rf"so \boxed{{{x}}}" for x in given[:-1]), r"\boxed{2/4}")
    rollouts[3] = Rollout(rollouts[3].ids, rollouts[3].logprobs, "length", 0)
    expected = [True, False, False, False, False, False, True, True]
    assert [score.correct for score in task.score_many(problems, rollouts)] == expected
    assert task.failures == {"math-verify: no verdict within 0.3 s": 2}
    alone = [task.score(p, r.ids, r.finish_reason).correct for p, r in zip(problems, rollouts, strict=True) if p.id not in "15"]
    assert alone == [x for i, x in enumerate(expected) if i not in (1, 5)]
    task.close()
    with pytest.raises(ValueError, match="shorter"):
        task.score_many(problems, rollouts[:-1])
    task.close()


def test_a_verifier_without_a_library_judges_in_this_thread(monkeypatch):
    monkeypatch.setattr(judge, "ThreadPoolExecutor", SimpleNamespace)
    verify = make_verifier("exact", "answer:")
    problem = Problem("p", "q", "7", "", "x")
    assert verify.map(lambda text: verify(problem, text), ["7", "8"]) == [Score(True), Score(False)]
    verify.close()

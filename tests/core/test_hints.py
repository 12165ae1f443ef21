"""What RLCSD's teacher reads, and a step of it on a real model against plain forward passes in float64."""

import math
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM

import baselines
from sdpg.core.batch import micro_batches
from sdpg.core.hints import Hints
from sdpg.core.recorder import Clock
from sdpg.tasks.prompts import Template
from sdpg.tasks.task import Task
from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem, Rollout, Score
from tests.core.conftest import Never, TokenTask, make_trainer, train_config

CPU = torch.device("cpu")
PROBLEM = Problem("p", "3 4", "7", "", "test")


class Sevens(TokenTask):
    """Right: token 7 is in the response; unjudged with a 9; the prompts of wrong hints are marked."""

    def score(self, problem, ids, finish_reason):
        return Score(7 in ids, unjudged="nine" if 9 in ids and 7 not in ids else None)

    def wrong_prompt(self, problem, ids):
        return None if 8 in ids else [*self.student_prompt(problem), 6, *ids]


def hints(responses, *, limit=100, seed=(0, 1)):
    rollouts = [Rollout(ids, [0.0] * len(ids), "stop", 0) for ids in responses]
    task, counts = Sevens(), Counter()
    scores = [task.score(PROBLEM, ids, "stop") for ids in responses]
    return Hints(task, PROBLEM, rollouts, scores, limit=limit, seed=seed, counts=counts), counts


def test_wrong_hints_are_other_wrong_responses_in_one_order():
    responses = [[7, 1], [5, 1], [10, 1], [11, 1], [12, 1]]
    found, counts = hints(responses)
    wrong = [[prompt[3:] for prompt in found.wrong(j, 3)] for j in range(5)]
    for j, texts in enumerate(wrong):
        assert len(texts) == 3 and responses[j] not in texts and [7, 1] not in texts
    assert len({tuple(map(tuple, texts)) for texts in wrong}) == 4  # the right response reads what the last of the four reads
    assert len(found.wrong(1, 9)) == 3 and not counts["groups_without_wrong"]
    orders = {tuple(map(tuple, hints(responses, seed=(0, k))[0].wrong(0, 4))) for k in range(20)}
    assert len(orders) > 5 and hints(responses)[0].wrong(0, 4) == found.wrong(0, 4)  # of the step; the same again


def test_what_cannot_be_a_wrong_hint_is_left_out_and_counted():
    found, counts = hints([[7], [5], [8], [5, 5, 5, 5], [9]], limit=5)
    assert [found.wrong(j, 4) for j in range(2)] == [([3, 4, 6, 5],), ()]  # the second is the only one, and no hint for itself
    assert counts == {
        "wrong_no_answer": 1,
        "wrong_no_room": 1,
        "groups_without_wrong": 0,
    }  # the unjudged is not known to be wrong
    found, counts = hints([[7], [7, 1], [9]])
    assert found.wrong(0, 4) == () and counts["groups_without_wrong"] == 1


@pytest.mark.parametrize(
    ("verifier", "marker", "teacher", "text", "expected"),
    [
        ("exact", "#", "{question}[{answer}|{solution}]", "3+4=8#8", "q[8|3+4=8#8]"),
        ("exact", "#", "{question}[{answer}|{solution}]", "3+4=", None),  # gives no answer, and the right one must not be shown
        ("exact", "#", "{question}[{solution}]", "3+4=", "q[3+4=]"),
        ("exact", None, "{question}[{answer}]", "well\n 8.", "q[8]"),
        ("math-verify", None, "{question}[{answer}]", r"so \boxed{8}, no, \boxed{9} it is", "q[9]"),
        ("math-verify", None, "{question}[{answer}]", "so 8", None),
        ("exact", "#", "{question}[{solution}]", " ", None),
    ],
)
def test_a_wrong_hint_shows_the_wrong_answer(verifier, marker, teacher, text, expected):
    task = Task.__new__(Task)
    task.template, task._own, task.stop = Template("t", "{question}", teacher), {}, ()
    task.verifier, task._teacher_chat = make_verifier(verifier, marker), None
    task.text = lambda ids: text
    task._encode = lambda fill, chat, content, problem: fill(**content)
    assert task.wrong_prompt(Problem("p", "q", "7", "worked", "test"), []) == expected
    task.verifier.close()


def test_a_response_without_both_hints_has_no_teacher_and_the_row_says_how_many(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("rlcsd", wrong_hints=2), task=Sevens())
    batch = trainer.collector.collect(1, Clock(CPU), "sibling", 2)
    seen = 0
    for i in range(4):
        samples = batch.samples[i * 4 : i * 4 + 4]
        right = [7 in s.rollout.ids for s in samples]
        wrong = [not r and not {8, 9} & set(s.rollout.ids) for r, s in zip(right, samples, strict=True)]
        for j, s in enumerate(samples):
            n_right, n_wrong = sum(right) - right[j], sum(wrong) - wrong[j]
            assert len(s.wrong_prompts) == (min(2, n_wrong) if n_right else 0)
            assert (s.teacher_prompt is not None) == bool(n_right and n_wrong)
            seen += s.teacher_prompt is not None
    assert 0 < seen < 16
    row = trainer.step(1)
    assert row["teacher_fraction"] == seen / 16
    assert row["wrong_hints"] == sum(len(s.wrong_prompts) for s in batch.samples) / seen
    assert row["wrong_no_answer"] == batch.left_out["wrong_no_answer"] / 16 and row["wrong_no_room"] == 0
    assert "wrong_hints" not in make_trainer(tiny, tmp_path / "g", baselines.make("grpo"), task=Sevens()).step(1)


def test_without_a_right_response_nothing_is_learnt_and_no_teacher_reads(tiny, tmp_path):
    row = make_trainer(tiny, tmp_path / "w", baselines.make("rlcsd"), task=Never()).step(1)
    assert (row["grad_norm"], row["teacher_fraction"], row["seconds_teacher"], row["wrong_hints"]) == (
        0,
        0,
        row["seconds_teacher"],
        None,
    )
    assert row["groups_without_wrong"] == 0


def log_prob(model, prompt, ids):
    """Log-probs of a response after a prompt, in float64."""
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[:, None])[:, 0]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("hint", ["sibling", "solution"])
def test_a_step_is_the_equations_on_plain_forward_passes(tiny, tmp_path, packed, hint):
    algorithm = baselines.make("rlcsd", hint=hint, tau=0.1, wrong_hints=2)
    config = train_config(packed=packed, reduction="sequence", clip_grad_norm=1e9, micro_batch_tokens=150)
    trainer = make_trainer(tiny, tmp_path / "w", algorithm, config, task=Sevens())
    batch = trainer.collector.collect(1, Clock(CPU), hint, 2)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
    A = algorithm.advantages(batch.R_NG.double()).flatten().tolist()
    loss = torch.zeros((), dtype=torch.float64)
    for a, s in zip(A, batch.samples, strict=True):
        if a == 0 or not s.wrong_prompts:
            continue
        ids = s.rollout.ids
        logp = log_prob(model, s.prompt, ids)
        with torch.no_grad():
            right = log_prob(model, s.teacher_prompt, ids)
            wrong = torch.stack([log_prob(model, prompt, ids).exp() for prompt in s.wrong_prompts]).mean(0).log()
        r = [0.5 * math.tanh(e / 0.1) for e in (right - wrong).tolist()]
        terms = {True: [], False: []}
        for x, residual in zip(logp, r, strict=True):
            chosen = abs(residual) > 0.02
            kept = a + residual * chosen
            terms[chosen].append(-(x - x.detach()).exp() * (max(kept, 0.0) if a > 0 else min(kept, 0.0)))
        for chosen, eta in ((False, 1.0), (True, 0.5)):
            loss = loss + eta * sum(terms[chosen]) / max(1, len(terms[chosen])) / 16
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    row = trainer.step(1)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4) and norm > 1e-3
    assert 0 < row["teacher_fraction"] < 1


def test_the_longest_hint_counts_in_a_micro_batch(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("rlcsd"), task=Sevens())
    samples = trainer.collector.collect(1, Clock(CPU), "sibling", 4).samples
    budget = 40
    for rows in micro_batches(samples, budget, packed=False, teacher=True):
        length = lambda s: max(map(len, (s.prompt, s.teacher_prompt or (), *s.wrong_prompts))) + len(s.rollout.ids)  # noqa: E731
        assert len(rows) == 1 or len(rows) * max(length(samples[i]) for i in rows) <= budget

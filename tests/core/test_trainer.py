"""The loop: passes that are skipped, learning, several updates per batch, bf16, errors."""

import threading
from dataclasses import dataclass, replace

import pytest
import torch

import baselines
from sdpg.algorithms.base import Needs
from sdpg.algorithms.sdpg import SDPG as SDPGClass
from sdpg.core import passes as passes_of_a_step
from sdpg.core.head import api as head
from sdpg.core.objective import gradient_without_advantage
from sdpg.core.recorder import read_rows
from sdpg.types import Problem
from tests.core.conftest import SDPG, Easy, Never, TokenTask, make_trainer, problems, train_config, without_times


@pytest.fixture
def passes(monkeypatch):
    """Counts the responses that each model pass reads."""
    counts = {"teacher": 0, "reference": 0}
    inputs, reference = passes_of_a_step.inputs, passes_of_a_step.policy_logprobs

    def count_teacher(model, samples, *, teacher=False):
        counts["teacher"] += len(samples) if teacher else 0
        return inputs(model, samples, teacher=teacher)

    def count_reference(model, head, read, tokens, temperature):
        counts["reference"] += tokens.shape[0]
        return reference(model, head, read, tokens, temperature)

    monkeypatch.setattr(passes_of_a_step, "inputs", count_teacher)
    monkeypatch.setattr(passes_of_a_step, "policy_logprobs", count_reference)
    return counts


def test_the_teacher_reads_exactly_the_responses_whose_gate_is_open(tiny, tmp_path, passes):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpg", **SDPG))
    row = trainer.step(1)
    assert 0 < row["gate_fraction"] < 1
    assert passes == {"teacher": round(16 * row["gate_fraction"]), "reference": 16}


@pytest.mark.parametrize(
    ("fields", "task", "expected"),
    [
        (SDPG, Never(), {"teacher": 0, "reference": 16}),  # no positive advantage
        (SDPG | {"gate": False}, Never(), {"teacher": 16, "reference": 16}),
        (SDPG | {"beta_base": 0.0}, None, {"teacher": 0, "reference": 16}),
        (SDPG | {"T_decay": 6}, None, {"teacher": 0, "reference": 16}),  # beta(T) = 0
        (SDPG | {"alpha": 0.0, "beta_base": 0.0}, None, {"teacher": 0, "reference": 0}),
    ],
)
def test_no_pass_that_cannot_matter(tiny, tmp_path, passes, fields, task, expected):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpg", **fields), task=task)
    row = trainer.step(6)
    assert passes == expected
    assert (row["kl_ref"] is None) == (expected["reference"] == 0)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("sdpg", SDPG, True),  # the anchor holds every response
        ("sdpg", SDPG | {"alpha": 0.0}, False),  # the gate is closed
        ("sdpg", SDPG | {"alpha": 0.0, "gate": False}, True),
        ("sdpg", SDPG | {"alpha": 0.0, "gate": False, "beta_base": 0.0}, False),
        ("grpo", {"kl_coef": 0.1}, True),
        ("grpo", {"kl_coef": 0.0}, False),
        ("grpo", {"kl_coef": 0.0, "ratio": "sequence"}, False),
        ("rlsd", {"kl_coef": 0.0}, False),
        ("opcd", {}, True),
        ("opsd", {}, True),
        ("sdft", {}, True),
        ("sdpo", {}, True),
    ],
)
def test_which_methods_leave_responses_without_advantage_alone(name, fields, expected):
    assert gradient_without_advantage(baselines.make(name, **fields), 3) == expected


def test_responses_without_a_gradient_get_no_backward_pass(tiny, tmp_path, monkeypatch):
    """The same update as with one for all, from fewer operations; entropy and log-prob gap still count every token."""
    algorithm = baselines.make("grpo", kl_coef=0.0)
    outcomes = []
    for every in (False, True):
        if every:
            monkeypatch.setattr("sdpg.core.trainer.gradient_without_advantage", lambda algorithm, k: True)
        trainer = make_trainer(tiny, tmp_path / str(every), algorithm, task=Easy())
        trainer._push(0)
        row = trainer.step(1)
        assert 0 < row["informative_groups"] < 1
        outcomes.append((row, torch.cat([p.detach().flatten() for p in trainer.models.policy.parameters()])))
    (some, a), (all_rows, b) = outcomes
    assert (a - b).abs().max() < 1e-5  # of 5e-4: AdamW divides by the root of tiny squares
    for key in ("entropy", "loss", "grad_norm", "logprob_gap_mean", "tokens"):
        assert some[key] == pytest.approx(all_rows[key], rel=1e-5, abs=1e-7)
    assert some["flops"] < all_rows["flops"]


def test_an_update_without_any_gradient(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("grpo", kl_coef=0.0), task=Never())
    row = trainer.step(1)
    assert row["grad_norm"] == 0 and row["loss"] == 0 and row["entropy"] > 0


def test_log_prob_gap_to_the_engine_stays_at_rounding(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpg", **SDPG), train_config(temperature=0.8))
    rows = [trainer.step(k) for k in range(1, 5)]
    assert max(row["logprob_gap_max"] for row in rows) < 1e-4
    trainer.collector.engine.load_weights(((n, p + 0.1) for n, p in trainer.models.policy.named_parameters()), version=9)
    with pytest.raises(RuntimeError, match="step 5: log-probs of the in-process engine are .* nats a token from"):
        trainer.step(5)


def test_validation_is_looked_at_when_asked_and_after_the_last_step(tiny, tmp_path):
    config = train_config(steps=5, validate_every=2)
    make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), config).run()
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert [row["step"] for row in rows if "validation_test_accuracy" in row] == [2, 4, 5]
    assert all(row["seconds_validation"] == 0 for row in rows if row["step"] in (1, 3))
    assert all(0 <= row["validation_test_accuracy"] <= 1 and row["seconds_validation"] > 0 for row in rows[1::2])


def test_the_learning_rate_is_multiplied(tiny, tmp_path):
    config = train_config(steps=3, lr=2e-3, lr_multiplier=2.5, warmup_steps=2)
    make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), config).run()
    assert [row["lr"] for row in read_rows(tmp_path / "w" / "metrics.jsonl")] == pytest.approx([2.5e-3, 5e-3, 5e-3])


@pytest.mark.parametrize("name", ["sdpg", "grpo"])
def test_it_learns(tiny, tmp_path, name):
    fields = SDPG | {"T": 40, "alpha": 1e-3} if name == "sdpg" else {}
    config = train_config(steps=40, lr=3e-3, checkpoint_every=40)
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make(name, **fields), config, task=Easy())
    trainer.run()
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert sum(r["reward"] for r in rows[-5:]) / 5 > sum(r["reward"] for r in rows[:5]) / 5 + 0.2


def test_several_updates_per_batch(tiny, tmp_path):
    config = train_config(updates_per_batch=2, lr=1e-2)
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpg", **SDPG, off_policy=True), config)
    row = trainer.step(1)
    assert trainer.optimizer.updates == 2 and row["logprob_gap_max"] < 1e-4
    with pytest.raises(ValueError, match="updates_per_batch=2, but SDPG is on-policy"):
        make_trainer(tiny, tmp_path / "x", baselines.make("sdpg", **SDPG), config)
    with pytest.raises(ValueError, match="expected a multiple of updates_per_batch=3"):
        make_trainer(tiny, tmp_path / "x", baselines.make("grpo"), train_config(updates_per_batch=3))


def test_bf16_keeps_float32_masters(tiny, tmp_path):
    """Updates far below bf16's resolution must add up instead of being rounded away."""
    config = train_config(precision="bf16", lr=1e-5, steps=3, micro_batch_tokens=40)
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), config)
    before = [m.detach().clone() for m in trainer.optimizer.masters]
    trainer._push(0)
    for k in range(1, 4):
        row = trainer.step(k)
    assert row["logprob_gap_max"] < 0.1
    assert all(p.dtype == torch.bfloat16 and p.grad is None for p in trainer.models.policy.parameters())
    moved = [(m - b).abs().max().item() for m, b in zip(trainer.optimizer.masters, before, strict=True)]
    assert all(m.dtype == torch.float32 for m in trainer.optimizer.masters) and max(moved) < 1e-4 and min(moved) > 0


def test_bad_input_is_refused_before_anything_is_written(tiny, tmp_path):
    algorithm = baselines.make("grpo")
    with pytest.raises(ValueError, match="training set is empty"):
        make_trainer(tiny, tmp_path / "w", algorithm, data=[])
    long = [Problem("p7", " ".join(["3"] * 17), "4", "", "test")]
    with pytest.raises(ValueError, match=r"problem 'p7' gives a prompt of 17 tokens, more than 16 \(train.max_prompt_tokens"):
        make_trainer(tiny, tmp_path / "w", algorithm, data=long)
    with pytest.raises(ValueError, match="no model at .*missing"):
        trainer = make_trainer(tiny, tmp_path / "w", algorithm)
        type(trainer)(
            trainer.config,
            algorithm,
            base=tmp_path / "missing",
            tokenizer=None,
            task=None,
            engine=None,
            problems=[],
            seed=0,
            validation={},
            work=tmp_path / "w",
            identity={},
            title="",
        )
    assert not (tmp_path / "w").exists()


def test_data_order_is_one_stream_of_shuffled_epochs(tiny, tmp_path):
    collector = make_trainer(tiny, tmp_path / "w", baselines.make("grpo")).collector
    seen = [i for k in range(1, 7) for i in collector.indices(k)]
    assert sorted(seen[:12]) == sorted(seen[12:24]) == list(range(12))
    assert seen[:12] != seen[12:24]
    assert len(problems()) == 12


def test_a_gradient_that_is_not_finite_leaves_the_weights_untouched(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("grpo"))
    before = [m.detach().clone() for m in trainer.optimizer.masters]
    trainer.optimizer.masters[0].grad = torch.full_like(before[0], float("nan"))
    with pytest.raises(FloatingPointError, match="gradient norm is nan at update 1"):
        trainer.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.optimizer.masters, strict=True))


class Coupled:
    """A loss of whole responses that forgets to say so."""

    off_policy = False
    whole = False

    def needs(self, k):
        return Needs(whole_responses=self.whole)

    def advantages(self, R_NG):
        return R_NG - R_NG.mean(1, keepdim=True)

    def token_loss(self, s, A_B1, k):
        return {"outcome": -A_B1 * s.logp * (s.logp * s.mask).sum(1, keepdim=True).detach()}


def test_a_loss_that_couples_tokens_must_say_so(tiny, tmp_path):
    algorithm = Coupled()
    with pytest.raises(ValueError, match=r"Coupled.token_loss: the term 'outcome' .* whole_responses=True"):
        make_trainer(tiny, tmp_path / "a", algorithm).step(1)
    algorithm.whole = True
    assert make_trainer(tiny, tmp_path / "b", algorithm).step(1)["grad_norm"] > 0


def test_in_chunks_or_whole_the_gradients_are_the_same(tiny, tmp_path, monkeypatch):
    """The same step with `whole_responses`, in one chunk, and in chunks of few tokens."""

    @dataclass(frozen=True, kw_only=True)
    class Whole(SDPGClass):
        def needs(self, k):
            return replace(super().needs(k), whole_responses=True)

    norms = []
    for name, algorithm, elements in (
        ("whole", Whole(**SDPG), 2**25),
        ("one", SDPGClass(**SDPG), 2**25),
        ("few", SDPGClass(**SDPG), 3 * 24),
    ):
        monkeypatch.setitem(head.Options.__init__.__kwdefaults__, "chunk_elements", elements)
        row = make_trainer(tiny, tmp_path / name, algorithm).step(1)
        norms.append((row["grad_norm"], row["loss"], row["entropy"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[2], rel=1e-5)


def test_groups_are_judged_while_others_are_sampled(tiny, tmp_path):
    """An engine that gives its groups one by one finds the first judged before the second is there, in any order of groups."""
    judged = threading.Event()

    class Told(TokenTask):
        def score_many(self, problems, rollouts):
            judged.set()
            return super().score_many(problems, rollouts)

    rows = []
    for name in ("together", "each"):
        trainer = make_trainer(tiny, tmp_path / name, baselines.make("grpo"), task=Told())
        engine = trainer.collector.engine
        if name == "each":

            def generate_each(prompts, n, sampling, seeds, engine=engine):
                groups = engine.generate(prompts, n, sampling, seeds)
                for i in reversed(range(len(groups))):
                    judged.clear()
                    yield i, groups[i]
                    assert judged.wait(10), "the group was not judged before the next was sampled"

            engine.generate_each = generate_each
        trainer._push(0)
        rows.append(without_times([trainer.step(1)]))
    assert rows[0] == rows[1]

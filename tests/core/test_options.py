"""What methods can ask the core for beside the basics: teachers, contexts, rewards, sampling."""

import pytest
import torch

import baselines
from benchmarks.gpu.tiny import EOS
from sdpg.algorithms.base import Needs
from sdpg.core.models import MovingAverage
from sdpg.core.recorder import Clock, read_rows
from sdpg.types import Score
from tests.core.conftest import SDPG, Easy, Never, TokenTask, make_trainer, train_config, without_times

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", ["opsd", "opcd", "sdft"])
def test_a_method_without_groups_trains_on_one_response_per_prompt(tiny, tmp_path, method):
    config = train_config(group_size=1, steps=2)
    make_trainer(tiny, tmp_path / "w", baselines.make(method), config).run()
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert len(rows) == 2 and all(row["loss_distillation"] > 0 and row["informative_groups"] == 0 for row in rows)
    with pytest.raises(ValueError, match="group_size=1, but GRPO compares the responses of a group"):
        make_trainer(tiny, tmp_path / "grpo", baselines.make("grpo"), config)


class Short(TokenTask):
    """Right: the response stopped by itself within six tokens."""

    def score(self, problem, ids, finish_reason):
        return Score(correct=len(ids) <= 6 and ids[-1] == EOS)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_ema_teacher_follows_its_definition_and_survives_a_resume(tiny, tmp_path, precision):
    config = train_config(precision=precision, steps=4)
    trainer = make_trainer(tiny, tmp_path / "a", baselines.make("sdft", ema_rate=0.3), config)
    trainer._push(0)
    expected = [m.detach().clone() for m in trainer.optimizer.masters]
    for k in (1, 2, 3):
        trainer.step(k)
        expected = [0.7 * e + 0.3 * m.detach() for e, m in zip(expected, trainer.optimizer.masters, strict=True)]
        for ours, true in zip(trainer.average.masters, expected, strict=True):
            torch.testing.assert_close(ours, true)
    for parameter, true in zip(trainer.models.average.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.float(), true, rtol=1e-2 if precision == "bf16" else 1e-5, atol=1e-6)
    trainer.optimizer.updates = 3
    trainer._save_state(3)
    (tmp_path / "a" / "metrics.jsonl").write_text("".join(f'{{"step": {k}}}\n' for k in (1, 2, 3)))
    again = make_trainer(tiny, tmp_path / "a", baselines.make("sdft", ema_rate=0.3), config)
    again.run()
    trainer.step(4)
    for ours, true in zip(again.average.masters, trainer.average.masters, strict=True):
        assert torch.equal(ours, true)


def test_a_frozen_teacher_stays_and_a_live_one_moves(tiny, tmp_path):
    start = make_trainer(tiny, tmp_path / "x", baselines.make("grpo")).models.policy.state_dict()
    for kind in ("frozen", "live"):
        trainer = make_trainer(tiny, tmp_path / kind, baselines.make("opcd", teacher=kind), train_config(lr=1e-2))
        trainer.step(1)
        same = all(torch.equal(t, start[name]) for name, t in trainer.models.teacher(kind).state_dict().items())
        assert same == (kind == "frozen")


def test_an_ema_rate_out_of_range_is_refused(tiny):
    with pytest.raises(ValueError, match=r"ema_rate must be in \(0, 1\], got 0"):
        MovingAverage(None, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher": "live"}, "each of them needs one"),
        ({"teacher_logp": True}, "each of them needs one"),
        ({"teacher": "ema", "teacher_logp": True}, "ema_rate"),
        ({"teacher": "live", "teacher_logp": True, "ema_rate": 0.1}, "ema_rate"),
    ],
)
def test_needs_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Needs(**fields)


def test_sdpo_reads_a_successful_sibling_and_never_the_response_itself(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpo"), task=Short())
    batch = trainer.collector.collect(1, Clock(CPU), "sibling")
    seen = 0
    for i, group in enumerate(batch.R_NG):
        samples = batch.samples[i * 4 : i * 4 + 4]
        for j, sample in enumerate(samples):
            others = [samples[o].rollout.ids for o in range(4) if o != j and group[o] == 1]
            if not others:
                assert sample.teacher_prompt is None
                continue
            seen += 1
            assert sample.teacher_prompt[len(sample.prompt) + 1 :] in others
    assert 0 < seen < 16
    again = trainer.collector.collect(1, Clock(CPU), "sibling")
    assert again.samples == batch.samples  # derived from the seed and the step


def test_a_sibling_without_room_is_no_teacher_and_counted(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpo"), task=Short())
    free = trainer.collector.collect(1, Clock(CPU), "sibling")
    lengths = [len(s.teacher_prompt) for s in free.samples if s.teacher_prompt]
    trainer.collector.teacher_limit = limit = sorted(lengths)[len(lengths) // 2] - 1
    batch = trainer.collector.collect(1, Clock(CPU), "sibling")
    left = [s.teacher_prompt if s.teacher_prompt and len(s.teacher_prompt) <= limit else None for s in free.samples]
    assert [s.teacher_prompt for s in batch.samples] == left
    assert free.no_room == 0 and 0 < batch.no_room == sum(length > limit for length in lengths)
    row = trainer.step(1)
    assert row["teacher_no_room"] == batch.no_room / 16 and row["teacher_fraction"] == sum(map(bool, left)) / 16


@pytest.mark.parametrize(("algorithm", "refused"), [("sdft", True), ("grpo", False), ("sdpo", False)])
def test_only_a_context_that_is_read_must_fit_the_model(tiny, tmp_path, algorithm, refused):
    class Wordy(TokenTask):
        def teacher_prompt(self, problem):
            return [5] * 1000

    if refused:
        with pytest.raises(ValueError, match="gives a prompt of 1000 tokens, more than .*the model's context"):
            make_trainer(tiny, tmp_path / "w", baselines.make(algorithm), task=Wordy())
    else:
        make_trainer(tiny, tmp_path / "w", baselines.make(algorithm), task=Wordy())


def test_without_successful_siblings_sdpo_learns_nothing_and_pays_for_no_teacher(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("sdpo"), task=Never())
    row = trainer.step(1)
    assert row["grad_norm"] == 0 and row["teacher_fraction"] == 0 and row["seconds_teacher"] == 0
    assert row["loss_distillation"] == 0


def test_reward_convention_changes_no_normalised_advantage(tiny, tmp_path):
    rows = []
    for name, reward in (("a", [0.0, 1.0]), ("b", [-1.0, 1.0])):
        trainer = make_trainer(tiny, tmp_path / name, baselines.make("grpo"), train_config(reward=reward), task=Easy())
        rows.append(trainer.step(1))
    assert rows[0]["accuracy"] == rows[1]["accuracy"] and rows[1]["reward"] == 2 * rows[0]["reward"] - 1
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-4)


def test_soft_overlong_penalty_is_dapos(tiny, tmp_path):
    config = train_config(overlong_buffer=4)  # max_response_tokens is 10
    collector = make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), config, task=Never()).collector
    rewards = [collector._reward(Score(correct=True), length) for length in (1, 6, 7, 8, 10)]
    assert rewards == [1.0, 1.0, 0.75, 0.5, 0.0]
    with pytest.raises(ValueError, match="overlong_buffer is 10, expected less than max_response_tokens=10"):
        make_trainer(tiny, tmp_path / "x", baselines.make("grpo"), train_config(overlong_buffer=10))


def test_dynamic_sampling_finds_informative_groups_and_counts_what_it_drew(tiny, tmp_path):
    plain = make_trainer(tiny, tmp_path / "a", baselines.make("grpo"), train_config(group_size=2), task=Easy()).step(1)
    config = train_config(group_size=2, dynamic_sampling=8)
    trainer = make_trainer(tiny, tmp_path / "b", baselines.make("grpo"), config, task=Easy())
    row = trainer.step(1)
    assert plain["informative_groups"] < 1 == row["informative_groups"]
    assert row["sampled_tokens"] > row["tokens"] and plain["sampled_tokens"] == plain["tokens"]
    assert len(trainer.collector.collect(1, Clock(CPU)).samples) == 8
    hopeless = make_trainer(tiny, tmp_path / "c", baselines.make("grpo"), config, task=Never()).step(1)
    assert hopeless["informative_groups"] == 0  # after at most 8 more batches it goes on with what it has


def test_kl_in_the_reward_gives_equal_groups_advantages_of_unit_size(tiny, tmp_path):
    """The released code's GRPO: where rewards are equal, the KL's noise decides the advantages."""
    algorithm = baselines.make("grpo", kl_in_reward=True, kl_coef=1e-3)
    trainer = make_trainer(tiny, tmp_path / "w", algorithm, train_config(lr=1e-2), task=Never())
    first = trainer.step(1)
    assert first["gate_fraction"] == 0 and first["grad_norm"] == 0  # the policy is the reference still: no KL at all
    with torch.no_grad():
        for p in trainer.models.policy.parameters():
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    trainer._push(1)
    second = trainer.step(2)
    assert second["informative_groups"] == 0 and second["gate_fraction"] > 0.3 and second["grad_norm"] > 0


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_every_method_trains_and_resumes_exactly(tiny, tmp_path, name, monkeypatch):
    algorithm = baselines.make(name, **(SDPG if name == "sdpg" else {}))
    config = train_config(steps=3, checkpoint_every=1)
    make_trainer(tiny, tmp_path / "whole", algorithm, config, task=Short()).run()
    killed = make_trainer(tiny, tmp_path / "killed", algorithm, config, task=Short())
    step = killed.step
    monkeypatch.setattr(killed, "step", lambda k: step(k) if k < 3 else (_ for _ in ()).throw(SystemExit()))
    with pytest.raises(SystemExit):
        killed.run()
    make_trainer(tiny, tmp_path / "killed", algorithm, config, task=Short()).run()
    whole, resumed = (without_times(read_rows(tmp_path / n / "metrics.jsonl")) for n in ("whole", "killed"))
    assert whole == resumed and len(whole) == 3
    assert any(row["grad_norm"] > 0 for row in whole)


def test_the_released_aggregation_depends_on_the_split_and_the_papers_does_not(tiny, tmp_path):
    gaps = {}
    for reduction in ("group", "micro-batch"):
        losses = []
        for budget in (4096, 1):
            config = train_config(reduction=reduction, micro_batch_tokens=budget)
            trainer = make_trainer(tiny, tmp_path / f"{reduction}{budget}", baselines.make("opcd"), config)
            losses.append(trainer.step(1)["loss"])
        gaps[reduction] = abs(losses[0] - losses[1]) / losses[0]
    assert gaps["group"] < 1e-5 and gaps["micro-batch"] > 1e-3


def test_one_micro_batch_of_the_released_aggregation_is_the_batch_mean(tiny, tmp_path):
    rows = []
    for reduction in ("batch", "micro-batch"):
        config = train_config(reduction=reduction)
        rows.append(make_trainer(tiny, tmp_path / reduction, baselines.make("opcd"), config).step(1))
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(rows[1]["grad_norm"], rel=1e-4)

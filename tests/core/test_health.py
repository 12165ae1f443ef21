"""A run that diverges is a result: it ends by itself, keeps its batch and its last good checkpoint, and says at which step."""

import json
import math
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3ForCausalLM

import baselines
from sdpg.algorithms.base import Signals
from sdpg.core import metrics
from sdpg.core.checkpoint import list_checkpoints
from sdpg.core.health import fault_of_row
from sdpg.rollout.engines.in_process import _inverse_cdf
from sdpg.types import Sampling
from tests.core.conftest import make_trainer, train_config
from tests.core.jobs import METHODS

ABSURD = {"lr": 1e4, "warmup_steps": 0, "steps": 12, "checkpoint_every": 1}


def trainer_of(tiny, work, method="grpo", **changes):
    name, fields = METHODS[method]
    return make_trainer(tiny, work, baselines.make(name, **fields), train_config(**changes))


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def rows_of(work):
    return [json.loads(line, parse_constant=refuse) for line in (work / "metrics.jsonl").read_text().splitlines()]


def check_diverged(work, outcome):
    """What a diverged run leaves is whole and finite, and says the same everywhere -> its rows."""
    k, rows = outcome["step"], rows_of(work)
    assert outcome["status"] == "diverged" and [row["step"] for row in rows] == list(range(1, k + 1))
    assert [row.get("diverged") for row in rows] == [None] * (k - 1) + [outcome["reason"]]
    assert all(row["nonfinite"] == 0 for row in rows[:-1])
    listed = list_checkpoints(work / "checkpoints")
    assert listed[-1]["step"] == outcome["last_checkpoint"] < k
    assert json.loads((work / "checkpoints/checkpoints.json").read_text())["diverged"] == {"step": k}
    assert sorted(p.name for p in (work / "checkpoints").iterdir()) == ["checkpoints.json", *(c["path"] for c in listed)]
    for entry in listed:
        weights = load_file(work / "checkpoints" / entry["path"] / "model.safetensors")
        assert all(x.isfinite().all() for x in weights.values())
    model = Qwen3ForCausalLM.from_pretrained(work / "checkpoints" / listed[-1]["path"])
    assert model(torch.arange(8)[None]).logits.isfinite().all()
    batch = pq.read_table(work / "diverged").to_pylist()
    assert [(row["group"], row["number"]) for row in batch] == [(n, g) for n in range(4) for g in range(4)]
    for row in batch:
        assert row["step"] == k and row["response"] == " ".join(map(str, row["response_ids"]))
        assert len(row["response_ids"]) == len(row["logprobs"]) == len(row["logprobs_engine"]) and row["prompt"]
        assert row["reward"] == row["correct"]
    assert sum(row["reward"] for row in batch) / 16 == pytest.approx(rows[-1]["reward"])
    return rows


@pytest.mark.parametrize("method", ["grpo", "sdpg", "sdpg-off", "gspo", "opcd", "sdpo-ema"])
@pytest.mark.parametrize("lr", [1e4, 1e10, 1e18, 1e38])
def test_an_absurd_learning_rate_ends_as_a_result(tiny, tmp_path, capsys, method, lr):
    """From weights that are too large to compute with to such as are not finite, at the first step or later."""
    changes = {"updates_per_batch": 2} if method == "sdpg-off" else {}
    outcome = trainer_of(tiny, tmp_path, method, **ABSURD | changes | {"lr": lr}).run()
    check_diverged(tmp_path, outcome)
    said = capsys.readouterr().err
    assert f"test: diverged at step {outcome['step']} of 12: {outcome['reason']}" in said and "lower train.lr" in said


@pytest.mark.parametrize("keep", ["all", "last", 2])
def test_what_is_kept_ends_with_the_last_good_checkpoint(tiny, tmp_path, keep):
    outcome = trainer_of(tiny, tmp_path, **ABSURD | {"lr": 100.0, "keep": keep}).run()
    check_diverged(tmp_path, outcome)
    assert outcome["last_checkpoint"] > 2


@pytest.mark.parametrize("method", ["grpo", "sdpg-off"])
def test_a_killed_and_resumed_run_diverges_in_the_same_way(tiny, tmp_path, monkeypatch, method):
    changes = ABSURD | {"lr": 100.0} | ({"updates_per_batch": 2} if method == "sdpg-off" else {})
    outcome = trainer_of(tiny, tmp_path / "whole", method, **changes).run()
    for stop in (outcome["step"], outcome["step"] - 1):  # as the last row is there, and as it is about to be
        work = tmp_path / str(stop)
        killed = trainer_of(tiny, work, method, **changes)
        step = killed.step

        def step_until_killed(k, step=step, stop=stop, last=outcome["step"]):
            row = step(k)
            if k == stop and stop == last:
                raise SystemExit("killed")
            if k > stop:
                raise SystemExit("killed")
            return row

        monkeypatch.setattr(killed, "step", step_until_killed)
        with pytest.raises(SystemExit):
            killed.run()
        killed.state.wait()
        assert trainer_of(tiny, work, method, **changes).run() == outcome
        drop = ("seconds", "tokens_per_second", "peak_memory")
        ours, theirs = (
            [{k: v for k, v in row.items() if not k.startswith(drop)} for row in check_diverged(w, outcome)]
            for w in (work, tmp_path / "whole")
        )
        assert ours == theirs


@pytest.mark.parametrize("fault", ["gradient", "weights", "loss", "log-probs"])
def test_each_kind_of_fault_ends_the_run_at_its_step(tiny, tmp_path, monkeypatch, fault):
    trainer = trainer_of(tiny, tmp_path, steps=6, checkpoint_every=1)
    update, row, present = trainer._update, trainer._row, [0]

    def faulty_update(batch, A, old, u, k, clock, sums):
        present[0] = k
        if k == 3 and fault == "gradient":
            master = trainer.optimizer.masters[0]
            master.register_hook(lambda g: g * math.inf)
        norm = update(batch, A, old, u, k, clock, sums)
        if k == 3 and fault == "weights":
            trainer.optimizer.masters[1].data.view(-1)[0] = math.inf
        return norm

    def faulty_row(k, *rest):
        found = row(k, *rest)
        broken = {"loss": {"loss": math.inf}, "log-probs": {"logprob_gap_mean": math.nan}}.get(fault, {})
        return found | (broken if k == 3 else {})

    monkeypatch.setattr(trainer, "_update", faulty_update)
    monkeypatch.setattr(trainer, "_row", faulty_row)
    outcome = trainer.run()
    check_diverged(tmp_path, outcome)
    assert (outcome["step"], outcome["last_checkpoint"]) == (3, 2)
    assert fault in outcome["reason"] and present == [3]


def test_a_metric_that_overflows_is_null_and_counted_and_the_run_goes_on(tiny, tmp_path, monkeypatch):
    trainer = trainer_of(tiny, tmp_path, "sdpg", steps=3)
    row = trainer._row

    def overflown(k, *rest):
        return row(k, *rest) | ({"kl_ref": math.inf, "entropy": math.nan, "tokens_per_second": math.inf} if k == 2 else {})

    monkeypatch.setattr(trainer, "_row", overflown)
    assert trainer.run() == {"status": "finished", "step": 3}
    rows = rows_of(tmp_path)
    assert [row["nonfinite"] for row in rows] == [0, 3, 0]
    assert rows[1]["kl_ref"] is rows[1]["entropy"] is None and rows[2]["kl_ref"] is not None
    assert not (tmp_path / "diverged").exists()


def test_a_kl_that_overflows_on_one_token_is_null():
    """1/w of a token that the policy has all but given up: exp(100) is no float32."""
    zero, gap = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 100.0]])
    signals = Signals(logp=-gap, logp_old=-gap, logp_rollout=-gap, logp_ref=zero, entropy=zero, mask=zero + 1, stop=zero)
    sums = defaultdict(float, {"responses": 1, "sampled": 1, "groups": 1})
    metrics.add_signals(sums, signals)
    metrics.add_logprob_gap(sums, torch.tensor([[0.0, math.nan, 0.0]]), zero, zero + 1)
    row = metrics.finite(metrics.means(metrics.add_up([sums, defaultdict(float, {"signal_tokens": 3.0})])))
    assert row["kl_ref"] is row["logprob_gap_mean"] is row["logprob_gap_max"] is None
    assert row["nonfinite"] == 3 and row["entropy"] == 0


def test_a_base_model_without_log_probs_is_no_divergence(tiny, tmp_path):
    trainer = trainer_of(tiny, tmp_path)
    with torch.no_grad():
        trainer.models.policy.model.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match=r"the base model gives log-probs that are not finite"):
        trainer.run()


def test_an_engine_gives_tokens_whatever_the_logits(tiny, tmp_path):
    assert _inverse_cdf(torch.full((2, 5), math.nan), torch.tensor([0.1, 0.9])).tolist() == [4, 4]
    engine = trainer_of(tiny, tmp_path).collector.engine
    engine.model.model.norm.weight.fill_(math.nan)
    ((rollout,),) = engine.generate([[3, 4]], 1, Sampling(1.0, 5, (1,)), 0)
    assert not any(map(math.isfinite, rollout.logprobs))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"loss": 0.1, "logprob_gap_mean": 0.0}, None),
        ({"loss": -math.inf, "logprob_gap_mean": 0.0}, "loss is -inf"),
        ({"loss": 0, "logprob_gap_mean": math.inf}, "log-probs of the responses are not finite"),
    ],
)
def test_faults_of_a_row(row, fault):
    assert fault_of_row(row) == fault


def test_the_batch_has_what_the_teacher_read(tiny, tmp_path):
    trainer_of(tiny, tmp_path, "sdpg", **ABSURD | {"lr": 1e38}).run()
    for row in pq.read_table(Path(tmp_path) / "diverged" / "batch-0.parquet").to_pylist():
        assert row["teacher_prompt_ids"][: len(row["prompt_ids"])] == row["prompt_ids"]
        assert row["teacher_prompt"].startswith(row["prompt"]) and math.isfinite(row["advantage"])

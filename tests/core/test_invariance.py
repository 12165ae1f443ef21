"""The gradient of an update depends on neither the micro-batch split nor padding; on processes: test_processes.py."""

import pytest
import torch

import baselines
from sdpg.core.recorder import Clock
from sdpg.core.sharding import full_tensors
from tests.core.conftest import make_trainer, train_config

METHODS = {"sdpg": {"T": 6, "beta_base": 1.0, "T_warm": 0, "T_decay": 0, "alpha": 0.1}, "grpo": {"kl_coef": 0.1}, "opcd": {}}


def parameters_after(tiny, work, name, steps=2, **changes):
    trainer = make_trainer(tiny, work, baselines.make(name, **METHODS[name]), train_config(**changes))
    trainer._push(0)
    rows = [trainer.step(k) for k in range(1, steps + 1)]
    return torch.cat([p.flatten() for _, p in full_tensors(trainer.models.policy, torch.float32)]), rows


@pytest.mark.parametrize("reduction", ["group", "batch"])
@pytest.mark.parametrize("name", METHODS)
def test_micro_batch_split_and_padding_change_nothing(tiny, tmp_path, name, reduction):
    """One padded batch of 16 responses, against batches of 2-3 alike ones, against one response at a time (no padding)."""
    whole, rows = parameters_after(tiny, tmp_path / "a", name, reduction=reduction)
    start, _ = parameters_after(tiny, tmp_path / "b", name, steps=0)
    assert rows[0]["grad_norm"] > 1e-3
    assert (whole - start).abs().max() > 1e-3
    for budget in (60, 1):
        split, split_rows = parameters_after(tiny, tmp_path / str(budget), name, reduction=reduction, micro_batch_tokens=budget)
        assert (whole - split).abs().max() < 2e-5
        for key in ("loss", "entropy", "grad_norm"):
            assert split_rows[0][key] == pytest.approx(rows[0][key], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["sdpg", "grpo"])
def test_reductions_differ(tiny, tmp_path, name):
    group, _ = parameters_after(tiny, tmp_path / "a", name, reduction="group")
    batch, _ = parameters_after(tiny, tmp_path / "b", name, reduction="batch")
    assert (group - batch).abs().max() > 1e-5


def test_gradient_checkpointing_changes_nothing(tiny, tmp_path):
    plain, _ = parameters_after(tiny, tmp_path / "a", "sdpg")
    other, _ = parameters_after(tiny, tmp_path / "b", "sdpg", gradient_checkpointing=True)
    assert (plain - other).abs().max() < 1e-6


def test_clock_adds_up_phases():
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock("a"):
            pass
    assert set(clock.seconds) == {"a"} and clock.seconds["a"] >= 0

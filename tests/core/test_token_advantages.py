"""Advantages by token: a step of OPSA on a real model against plain float64 forward passes; one response per prompt; counts."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

import baselines
from sdpg.core.recorder import Clock, read_rows
from tests.core.conftest import make_trainer, train_config

CPU = torch.device("cpu")


def weight(reduction, i, counted):
    """Weight of a token of response i (groups of 4), given how many tokens of each response count."""
    group = counted[i // 4 * 4 : i // 4 * 4 + 4]
    return {
        "sequence": 1 / (16 * counted[i]),
        "group": 1 / (4 * sum(group)),
        "batch": 1 / sum(counted),
        "constant": 1 / (16 * 10),
    }[reduction]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize(
    ("advantage", "reduction"), [("entropy", "sequence"), ("constant", "group"), ("entropy", "batch"), ("constant", "constant")]
)
def test_a_step_is_the_equations_on_plain_forward_passes(tiny, tmp_path, packed, advantage, reduction):
    config = train_config(packed=packed, reduction=reduction, clip_grad_norm=1e9, micro_batch_tokens=60)
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("opsa", advantage=advantage), config)
    samples = trainer.collector.collect(1, Clock(CPU)).samples
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
    tokens = []
    for i, s in enumerate(samples):
        logits = model(torch.tensor([[*s.prompt, *s.rollout.ids]])).logits[0, len(s.prompt) - 1 : -1]
        p = torch.log_softmax(logits, -1)
        tokens += [(i, p[t, y], -(p[t].exp() * p[t]).sum().item()) for t, y in enumerate(s.rollout.ids)]
    selected = sorted(tokens, key=lambda x: x[1].item())[: math.floor(0.2 * len(tokens))]
    counted = [sum(i == j for i, *_ in selected) for j in range(16)]
    H = [entropy for *_, entropy in selected]
    loss = torch.zeros((), dtype=torch.float64)
    for i, logp, entropy in selected:
        A = -0.5 - 0.5 * (entropy - min(H)) / (max(H) - min(H)) if advantage == "entropy" else -0.5
        loss = loss - A * (logp - logp.detach()).exp() * weight(reduction, i, counted)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    row = trainer.step(1)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-3) and norm > 1e-3
    assert row["selected_fraction"] == pytest.approx(len(selected) / len(tokens))
    assert -1 < row["selected_advantage"] <= -0.5


def test_several_updates_share_one_selection_and_the_ratio_moves(tiny, tmp_path):
    """A fifth of the whole rollout batch, whatever an update takes of it; no update has lost its log-probs of before."""
    rows = []
    for updates in (1, 4):
        config = train_config(updates_per_batch=updates, reduction="sequence", steps=1, lr=1e-2, warmup_steps=0)
        make_trainer(tiny, tmp_path / str(updates), baselines.make("opsa"), config).run()
        rows += read_rows(tmp_path / str(updates) / "metrics.jsonl")
    assert rows[0]["selected_fraction"] == rows[1]["selected_fraction"]
    assert rows[0]["selected_advantage"] == pytest.approx(rows[1]["selected_advantage"], rel=1e-5)
    assert rows[0]["grad_norm"] != rows[1]["grad_norm"] and rows[1]["loss"] > 0


@pytest.mark.parametrize("reduction", ["sequence", "micro-batch"])
def test_one_response_per_prompt_no_teacher_and_what_is_not_selected_has_no_weight(tiny, tmp_path, reduction):
    config = train_config(group_size=1, steps=3, reduction=reduction, micro_batch_tokens=1)
    algorithm = baselines.make("opsa", fraction=0.01)  # one token: most responses have none
    make_trainer(tiny, tmp_path / "w", algorithm, config).run()
    for row in read_rows(tmp_path / "w" / "metrics.jsonl"):
        assert row["grad_norm"] > 0 and row["seconds_teacher"] == row["seconds_reference"] == row["gate_fraction"] == 0
        assert row["selected_fraction"] * row["tokens"] == pytest.approx(1) and row["selected_advantage"] == -1


def test_the_selected_tokens_become_less_likely(tiny, tmp_path):
    config = train_config(lr=1e-3, warmup_steps=0, reduction="sequence")
    trainer = make_trainer(tiny, tmp_path / "w", baselines.make("opsa", fraction=0.05), config)
    batch = trainer.collector.collect(1, Clock(CPU))
    before = AutoModelForCausalLM.from_pretrained(tiny)

    def lowest(model):
        rows = [
            torch.log_softmax(model(torch.tensor([[*s.prompt, *s.rollout.ids]])).logits[0, len(s.prompt) - 1 : -1], -1)
            .gather(1, torch.tensor(s.rollout.ids)[:, None])[:, 0]
            .detach()
            for s in batch.samples
        ]
        return torch.cat(rows)

    start = lowest(before)
    chosen = start.argsort()[: math.floor(0.05 * len(start))]
    trainer.step(1)
    before.load_state_dict(trainer.models.policy.state_dict())
    assert (lowest(before) - start)[chosen].mean() < -1e-3

"""FLOPs, bytes and limits, counted in `benchmarks/`."""

from __future__ import annotations

import pytest
import torch

from benchmarks import limits
from benchmarks.fixed import FixedBatch
from benchmarks.flops import forward, rollout_work, step_work
from sdpg.experiment.architecture import Architecture, of_config
from tests.benchmark_facts import MACHINE, SMALL

TOY = Architecture(name="toy", layers=2, hidden=4, q=6, kv=2, head_dim=2, feed_forward=5, vocabulary=7, tied=True)
NORMS = 2 * 2 * 4 + 4


def test_work_by_hand():
    body = 2 * (4 * 6 + 2 * 4 * 2 + 6 * 4 + 3 * 4 * 5)  # q, k and v, o; gate, up and down
    assert (TOY.body, TOY.embedding, TOY.parameters) == (body, 28, body + 28 + NORMS)
    pairs = 1 + 2 + 3
    assert forward(TOY, [3], 2) == 2 * body * 3 + 2 * 2 * (2 * 3 * 2) * pairs + 2 * 28 * 2
    work = step_work(TOY, 2, [1, 1], [4, 4], [2, 3], reference=True, gated=[True, False])
    assert work["reference"].flops == forward(TOY, [3, 4], 5)
    assert work["train"].flops == 3 * forward(TOY, [3, 4], 5)
    assert work["teacher"].flops == forward(TOY, [6], 2)
    assert work["optimizer"].bytes == (body + 28 + NORMS) * (7 * 4 + 2)
    assert set(step_work(TOY, 2, [1], [4], [2], reference=False, gated=[False])) == {"train", "optimizer"}


def test_a_rollout_needs_the_flops_of_one_forward_pass_over_its_responses():
    """Without a shared prompt (one response): the same products and pairs, with logits at every sampled token."""
    work = rollout_work(TOY, 2, [3], 1, 4)
    assert work.flops == forward(TOY, [3 + 4 - 1], 4)  # the last token is sampled, not read
    weights = (TOY.body + TOY.embedding) * 2
    cached = sum(3 + t for t in (1, 2, 3))
    assert work.bytes == 4 * weights + cached * 2 * 2 * 1 * 2 * 2


def test_flops_agree_with_torchs_counter():
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        attn_implementation="eager",  # its products are seen by the counter
    )
    model, shape = Qwen3ForCausalLM(config), of_config(config.to_dict(), "small")
    ids = torch.randint(0, 50, (3, 11))
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids, use_cache=False).logits
    rope = 2 * 3 * 11 * 4  # the products of the rotary frequencies, once per pass
    expected = forward(shape, [11] * 3, 33, causal=False)
    assert 0 <= counter.get_total_flops() - expected <= 10 * rope
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    assert counter.get_total_flops() == pytest.approx(2 * expected, rel=1e-3)


def test_a_phases_limit_is_the_larger_of_compute_and_memory():
    rows = [{"seconds": 1.0, "tokens": 5} | {f"seconds_{p}": 0.2 for p in limits.PHASES}] * 3
    work = step_work(TOY, 2, [1], [4], [2], reference=True, gated=[True])
    peak = {"flops_per_second": work["train"].flops / 0.1, "bytes_per_second": work["optimizer"].bytes / 0.05}
    result = limits.summarise(rows, work, peak)
    assert result["phases"]["train"] == result["phases"]["train"] | {"bound_by": "compute", "time_over_limit": 2.0}
    assert result["phases"]["optimizer"] == result["phases"]["optimizer"] | {"bound_by": "memory", "time_over_limit": 4.0}
    flops = sum(work[p].flops for p in ("reference", "teacher", "train"))
    assert result["mfu"] == pytest.approx(flops / 0.6 / peak["flops_per_second"], abs=1e-4)
    assert result["rest_ms"] == pytest.approx(200)
    entry = {"model": "m", "precision": "fp32", "threads": 1, "responses": 1, "response_tokens": 5, "peak": peak}
    report = {"setting": {"repeats": 3}, **MACHINE, "models": [entry | {"methods": {"sdpg": result}}]}
    assert "beats its limit" not in limits.table(report)
    result["phases"]["train"]["time_over_limit"] = 0.9
    assert "beats its limit" in limits.table(report)


def test_work_of_a_method_on_the_batch():
    batch = FixedBatch.draw(SMALL, range(3, 23))
    grpo, sdpg = (limits.work_of(TOY, 2, batch, method, 5) for method in ("grpo", "sdpg"))
    assert set(grpo) == {"rollout", "reference", "train", "optimizer"}
    right = [
        (context, y)
        for context, group, rewards in zip(batch.teacher_prompts, batch.responses, batch.rewards, strict=True)
        for y, reward in zip(group, rewards, strict=True)
        if reward
    ]
    assert sdpg["teacher"].flops == forward(TOY, [len(c) + len(y) for c, y in right], sum(len(y) for _, y in right))
    assert sdpg["train"] == grpo["train"]


def test_a_step_with_closed_gates_beside_grpos():
    facts = {"model": "m", "precision": "fp32", "responses": 1, "response_tokens": 5}
    closed = [{"seconds": s, "seconds_rollout": 1.0} for s in (3.02, 5.0, 3.0)]
    ratio = limits.over(closed, [{"seconds": 3.0, "seconds_rollout": 1.0}] * 3)
    methods = {"grpo": {}, "sdpg": {"over_grpo": 1.2}, "sdpg-closed": {"over_grpo": ratio}}
    (row,) = limits.headlines(MACHINE | {"models": [facts | {"methods": methods}]})
    assert (row["name"], row["value"], row["model"]) == ("gate_closed_step_vs_grpo", 1.01, "m")
    assert limits.headlines(MACHINE | {"models": [facts | {"methods": {"grpo": methods["grpo"]}}]}) == []

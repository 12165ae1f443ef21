"""Part f: sixty steps of GRPO and SDPG on a tiny model, sampled by the in-process engine: does it learn, and stay in memory?"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.session import Outcome, Session
from benchmarks.gpu.tiny import Tokenizer, TokenTask, save_tiny

STEPS, EDGE = 60, 10  # steps, and those at the beginning and end whose reward is compared
VOCABULARY, LENGTH = 32, 12
RISE = 0.15  # of the mean reward
GAP = {"fp32": 1e-3, "bf16": 5e-2}  # nats per token between engine and trainer; far below what stops a run
GROWTH_MB = 8.0  # of what the allocator holds, between a third of the steps and the end


def problems() -> list:
    """Return sixteen problems."""
    from sdpg.types import Problem

    draw = torch.Generator().manual_seed(0)
    questions = [torch.randint(3, VOCABULARY, (2 + i % 4,), generator=draw).tolist() for i in range(16)]
    return [Problem(str(i), " ".join(map(str, q)), str(q[0]), "", "check") for i, q in enumerate(questions)]


def make_trainer(session: Session, folder: Path, fields: dict, precision: str):
    """Return a Trainer with the in-process engine on this device."""
    import baselines
    from sdpg.config.settings import Train
    from sdpg.core.trainer import Trainer
    from sdpg.rollout.engines.in_process import HFEngine

    config = Train(
        steps=STEPS + 1,  # so that the last one taken writes no checkpoint
        prompts_per_step=4 if session.dry else 16,
        group_size=8,
        max_prompt_tokens=16,
        max_response_tokens=LENGTH,
        lr=3e-3,
        warmup_steps=5,
        weight_decay=0.0,
        precision=precision,
        checkpoint_every=STEPS + 1,
    )
    return Trainer(
        config,
        baselines.make(**fields),
        base=save_tiny(folder, VOCABULARY),
        tokenizer=Tokenizer(),
        task=TokenTask(),
        engine=HFEngine(folder, dtype=config.dtype, max_len=16 + LENGTH),
        problems=problems(),
        seed=0,
        validation={},
        work=folder / "work",
        identity={},
        title=fields["algorithm"],
    )


def run(session: Session) -> None:
    """Run all checks of the part."""
    cases = [("grpo", {"algorithm": "grpo"}, "fp32"), ("grpo", {"algorithm": "grpo"}, "bf16")]
    cases.append(("sdpg", {"algorithm": "sdpg", "T": STEPS + 1, "T_warm": 5, "T_decay": 5}, "bf16"))
    for name, fields, precision in cases[:1] if session.dry else cases:
        expected = f"reward rises by {RISE}, gap below {GAP[precision]:g}, at most {GROWTH_MB:g} MB more than after a third"
        session.check(f"{STEPS} steps of {name}, {precision}", expected, partial(learn, session, fields, precision))


def learn(session: Session, fields: dict, precision: str) -> Outcome:
    """Train, and look at the rows of metrics and at the allocator."""
    rows, held = [], []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(session, Path(folder), fields, precision)
        for k in range(1, STEPS + 1):
            rows.append(trainer.step(k))
            held.append(torch.cuda.memory_allocated() / 1e6 if session.device.type == "cuda" else 0.0)
    first, last = (statistics.fmean(row["reward"] for row in part) for part in (rows[:EDGE], rows[-EDGE:]))
    gap = max(row["logprob_gap_mean"] for row in rows)
    speed = statistics.median(row["tokens_per_second"] for row in rows[EDGE:])
    growth = held[-1] - held[STEPS // 3]
    peaks = [row["peak_memory_mb"] for row in rows]
    ok = last - first >= RISE and gap < GAP[precision] and growth <= GROWTH_MB
    text = f"reward {first:.2f} to {last:.2f}, gap {gap:.1e}, {speed:.0f} response tokens/s, growth {growth:.1f} MB"
    facts = {"first": first, "last": last, "gap": gap, "tokens_per_second": speed, "growth_mb": growth}
    return Outcome(text, ok, facts | {"peak_memory_mb": max(peaks), "seconds": sum(row["seconds"] for row in rows)})

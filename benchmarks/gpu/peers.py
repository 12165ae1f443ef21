"""Part d: the head beside plain torch and Liger, a training step beside TRL's, at the shapes of Qwen3 with random weights.

Ratios are theirs over ours: above 1, ours is faster. Of the head what is compared is in benchmarks/heads.py, of the step in
benchmarks/peers/trl_step.py; here both run in this process and neither has a KL penalty, so that no reference is loaded.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from benchmarks.gpu.rig import PARAMETERS, RECIPE, TINY, checkpointing, config_of, shapes
from benchmarks.gpu.session import LeftOut, Outcome, Session, relative
from benchmarks.gpu.tiny import Tokenizer, build

REPEATS, WARM = 5, 2
HEAD_TOKENS, HEAD_GB = 4096, 30.0
AGREE = 5e-2  # of the head's gradients (largest entry) in bf16
SAME_WORK = 0.1  # relative difference of the steps' gradient norms in bf16
SLOW_TO_COMPILE = 45.0  # seconds that must be left for what torch compiles first
STEP_STATE = {"ours": 18, "trl": 18}  # bytes a parameter; TRL keeps float32 weights and bf16 copies under autocast
STEP_METHODS = {
    "grpo": {"algorithm": "grpo", "kl_coef": 0.0},
    "sdpo": {"algorithm": "sdpo", "kind": "reverse_kl", "top_k": None, "teacher": "live"},
}


def run(session: Session) -> None:
    """Run all checks of the part, the one that compiles for long last."""
    from benchmarks.heads import LIGER, PLAIN

    heads = [(shape, other) for shape in shapes(session) for other in [*PLAIN[2:], *LIGER[:1]]]
    for shape, other in heads:
        _head(session, shape, PLAIN[0], other)
    for shape in shapes(session):
        for method in STEP_METHODS:
            work = partial(step_beside, session, shape, method)
            session.check(f"{method} step of {shape} beside TRL", f"gradient norms within {SAME_WORK:.0%}", work)
    _head(session, shapes(session)[0], PLAIN[0], LIGER[1])


def _head(session: Session, shape: str, ours: str, other: str) -> None:
    work = partial(head_beside, session, shape, ours, other)
    session.check(f"head of {shape} beside {other}", f"gradients within {AGREE:g}; a ratio is only shown", work)


def head_beside(session: Session, shape: str, ours: str, other: str) -> Outcome:
    """Time both heads in turns, and compare their memory and gradients."""
    from benchmarks import heads

    config = config_of(shape)
    if shape != "tiny":
        session.need(HEAD_GB, f"the head of {shape} with all logits")
    if why := heads.refusal(other, session.device):
        raise LeftOut(why)
    if other == "liger-chunked" and (session.dry or session.left < SLOW_TO_COMPILE):
        raise LeftOut(f"torch.compile takes its time; it needs {SLOW_TO_COMPILE:.0f} s and no --dry")
    calls = {ours: getattr(heads, ours), other: heads.liger(other) if other in heads.LIGER else getattr(heads, other)}
    dtype, tokens = (torch.float32, 32) if session.dry else (torch.bfloat16, HEAD_TOKENS)
    bench = heads.Bench(tokens, config.vocab_size, config.hidden_size, dtype, session.device)
    with_logp = other not in heads.DIVERGENCE_ONLY
    gradients = [bench.gradients(call, with_logp) for call in calls.values()]  # warms up, too
    error = max(relative(torch.tensor(gradients[0][k]), torch.tensor(gradients[1][k])) for k in gradients[0])
    seconds = {name: [] for name in calls}
    for _ in range(1 if session.dry else REPEATS):
        for name, call in calls.items():
            seconds[name].append(bench.seconds(call))
    own, theirs = (statistics.median(values) for values in seconds.values())
    facts = {"ms": {name: 1e3 * statistics.median(x) for name, x in seconds.items()}, "ratio": theirs / own, "error": error}
    text = f"{theirs / own:.2f} x our {1e3 * own:.3g} ms"
    if session.device.type == "cuda":
        facts["extra_mb"] = {name: bench.memory_mb(call) for name, call in calls.items()}
        text += ", extra memory {1:.0f} MiB against our {0:.0f}".format(*facts["extra_mb"].values())
    return Outcome(f"{text}, gradients {error:.1e}", error <= AGREE, facts)


def step_beside(session: Session, shape: str, method: str) -> Outcome:
    """Take some steps of ours, then of TRL's, on the same batch."""
    try:
        from benchmarks.peers import trl_step
    except ImportError as error:
        raise LeftOut(f"TRL cannot be imported: {error}") from None
    from benchmarks.fixed import FixedBatch

    config = config_of(shape)
    batch = FixedBatch.draw(TINY if session.dry else RECIPE, range(3, config.vocab_size))
    steps = 2 if session.dry else WARM + REPEATS
    if shape != "tiny":
        session.need(max(STEP_STATE.values()) * PARAMETERS[shape] / 1e9 + 15.0, f"a step of {shape}")
    ours = our_steps(session, shape, config, batch, method, steps)
    theirs, rows = [], len(batch.prompts) * batch.group // 2
    while not theirs:
        session.free()
        try:
            theirs = trl_steps(trl_step, session, shape, config, batch, method, steps, rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows = max(1, rows // 4)
    own, other = (statistics.median(x["seconds"] for x in side[len(side) // 3 :]) for side in (ours, theirs))
    error = abs(ours[0]["grad_norm"] / theirs[0]["grad_norm"] - 1)
    same = ours[0]["response_tokens"] == theirs[0]["response_tokens"]
    tokens = ours[0]["response_tokens"]
    text = f"{other / own:.2f} x our {1e3 * own:.4g} ms ({tokens / own:.0f} response tokens/s), "
    text += f"memory {theirs[-1]['memory_mb']:.0f} MiB against our {ours[-1]['memory_mb']:.0f}, {rows} rows a micro-batch, "
    text += f"gradient norms {error:.1e} apart"
    text += "" if same else f"; TRL saw {theirs[0]['response_tokens']} response tokens, ours {tokens}"
    facts = {"ratio": other / own, "ours": ours, "trl": theirs, "trl_rows": rows, "error": error}
    return Outcome(text, same and error <= SAME_WORK, facts)


def our_steps(session: Session, shape: str, config, batch, method: str, steps: int) -> list[dict]:
    """Take steps of the suite's Trainer, its models built from `config` in place of a checkpoint."""
    from benchmarks.ours import MIDDLE, FixedEngine, answer_of, build_trainer

    def load_model(base, *, masters=False, lora=None, **how):
        """Build what `sdpg.core.models.load_model` would load, without adapters."""
        return build(config, **how)

    precision = "fp32" if session.dry else "bf16"
    with tempfile.TemporaryDirectory() as work, mock.patch("sdpg.core.trainer.load_model", load_model):
        train = {"gradient_checkpointing": checkpointing(session, shape)}
        trainer = build_trainer(
            Path(work), batch, method, precision, Path(work), FixedEngine(batch), Tokenizer(), STEP_METHODS[method], **train
        )
        answers = []
        for k in range(MIDDLE, MIDDLE + steps):
            row: dict = {}
            seconds = session.seconds(lambda k=k, row=row: row.update(trainer.step(k)))
            answers.append(answer_of(row, seconds))
    return answers


def trl_steps(trl_step, session: Session, shape: str, config, batch, method: str, steps: int, rows: int) -> list[dict]:
    """Take steps of TRL's trainer in this process, `rows` responses in a micro-batch."""
    from sdpg.tasks.tokenizer import character_tokenizer

    answers: list[dict] = []
    channel = SimpleNamespace(request=dict, send=lambda **answer: answers.append(answer))
    how = {"precision": "fp32" if session.dry else "bf16", "checkpointing": checkpointing(session, shape)}
    args = SimpleNamespace(method=method, rows=rows, **how)
    model = build(config, dtype=torch.float32, device=session.device, packed=False)
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        given = {"model": model, "tokenizer": character_tokenizer(), "kl": 0.0, "steps": steps}
        trl_step.build_trainer(args, batch, trl_step.Turns(channel), folder, **given).train()
    return answers

"""Part e: how much of the machine's speed each phase uses.

MFU: FLOPs that the arithmetic asks for (a layer computed again by checkpointing is not counted twice) over time and the FLOP/s
of a large bf16 product measured here. The optimizer multiplies nothing: its bytes are set against a large copy's bandwidth.
"""

from __future__ import annotations

import statistics
from functools import partial

import torch

from benchmarks.gpu.rig import Phases, load, need, shapes
from benchmarks.gpu.session import Outcome, Session

REPEATS = 4  # steps that count, after two that do not
MOVED = 7 * 4 + 2  # bytes a parameter that AdamW reads and writes (benchmarks/flops.py)
MOST = 1.05  # of the peak: more means that FLOPs or times are wrong


def run(session: Session) -> None:
    """Run all checks of the part."""
    peak: dict[str, float] = {}
    session.check("peaks", "FLOP/s of a bf16 product, bytes/s of a copy", partial(measure_peaks, session, peak))
    for shape in shapes(session) if peak else []:
        session.check(f"MFU of {shape}", f"each phase above 0 and below {MOST:g}", partial(by_phase, session, shape, peak))


def measure_peaks(session: Session, peak: dict[str, float]) -> Outcome:
    """Fill `peak` with "flops" and "bytes" a second."""
    from benchmarks.peaks import copy_bandwidth, matmul_peak

    peak["flops"] = matmul_peak("bf16", 128 if session.dry else 8192, 0.05 if session.dry else 1.0)
    peak["bytes"] = copy_bandwidth(4 if session.dry else 1024, 0.05 if session.dry else 1.0)
    return Outcome(f"{peak['flops'] / 1e12:.3g} TFLOP/s, {peak['bytes'] / 1e9:.4g} GB/s", facts=dict(peak))


def by_phase(session: Session, shape: str, peak: dict[str, float]) -> Outcome:
    """Time each phase of some steps, and set the medians against the peaks."""
    need(session, shape)
    rig = load(session, shape)
    seconds = timed(session, rig)
    shares = {name: flops / seconds[name] / peak["flops"] for name, flops in rig.flops().items()}
    total = sum(rig.flops().values()) / sum(seconds[name] for name in rig.flops()) / peak["flops"]
    n = sum(p.numel() for p in rig.policy.parameters())
    bandwidth = MOVED * n / seconds["optimizer"] / peak["bytes"]
    ok = session.dry or all(0 < x <= MOST for x in (*shares.values(), bandwidth))
    tokens = rig.read.ids.shape[1]
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    text += f", all {total:.0%}; optimizer {bandwidth:.0%} of the bandwidth; {sum(seconds.values()):.3g} s, {tokens} tokens"
    facts = {"mfu": shares, "mfu_all": total, "optimizer_bandwidth": bandwidth, "seconds": seconds, "flops": rig.flops()}
    facts |= {"tokens": tokens, "response_tokens": len(rig.tokens.targets), "parameters": n}
    facts["checkpointing"] = bool(rig.policy.is_gradient_checkpointing)
    return Outcome(text, ok, facts)


def timed(session: Session, rig: Phases) -> dict[str, float]:
    """Return the median seconds of each phase."""
    found: dict[str, list[float]] = {name: [] for name in rig.calls()}
    for i in range(1 if session.dry else 2 + REPEATS):
        for name, call in rig.calls().items():
            seconds = session.seconds(call)
            if session.dry or i >= 2:
                found[name].append(seconds)
    if session.device.type == "cuda":
        torch.cuda.synchronize()
    return {name: statistics.median(values) for name, values in found.items()}

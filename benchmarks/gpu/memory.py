"""Part c: memory of the state, and of each phase at its peak, beside what arithmetic says.

The state is exact: bytes a parameter times parameters. Of the phases' working memory sdpg/experiment/planner.py has estimates;
what was measured stands beside them, and only an estimate that is far too low is a failure: a plan would have let a run begin
that cannot end.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.rig import Phases, load, need, shapes
from benchmarks.gpu.session import LeftOut, Outcome, Session

BYTES = {"weights": 2, "reference": 2, "masters": 4, "moments": 8}  # a parameter
TOLERANCE, SLACK_GB = 0.03, 0.1  # of the state: blocks of the allocator; workspaces of cuBLAS
TOO_LOW = 1.25  # times the estimate, and a GB
FIXED_GB = 1.0
PHASES = {"reference": "reference", "teacher": "reference", "trunk": "train", "head": "train", "trunk back": "train"}


def run(session: Session) -> None:
    """Run all checks of the part."""
    for shape in shapes(session):
        held: dict[str, float] = {}
        rig: list[Phases] = []
        session.check(
            f"state of {shape}",
            f"within {TOLERANCE:.0%} and {SLACK_GB:g} GB of the sum",
            partial(state, session, shape, held, rig),
        )
        if rig:
            expected = f"at most {TOO_LOW:g} times the plan's estimate"
            session.check(f"phases of {shape}", expected, partial(peaks, session, held, rig[0]))


def allocated(session: Session, rig: Phases | None = None) -> float:
    """Return bytes that the allocator holds; on the CPU those of the tensors of the state."""
    if session.device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    return 0.0 if rig is None else sum(x.nbytes for x in tensors(rig))


def tensors(rig: Phases) -> list[torch.Tensor]:
    """Return all tensors of the state."""
    moments = [x for key, x in rig.optimizer.state_tensors().items() if key.startswith("exp_avg")]
    return [*rig.policy.parameters(), *rig.reference.parameters(), *rig.optimizer.masters, *moments]


def state(session: Session, shape: str, held: dict[str, float], rig: list[Phases]) -> Outcome:
    """Measure weights, reference, masters and moments, one after the other; `held` and `rig` are filled for the phases."""
    need(session, shape)
    marks = {"start": allocated(session)}
    found = load(session, shape, lambda name: marks.update({name: allocated(session)}))
    found.optimizer.state_tensors()  # makes the moments
    marks["moments"] = allocated(session, found)
    names = list(marks)
    n = sum(p.numel() for p in found.policy.parameters())
    want = {name: size * n / 1e9 for name, size in BYTES.items()}
    got = {"all": (marks["moments"] - marks["start"]) / 1e9}
    if session.device.type == "cuda":
        steps = zip(names, names[1:], strict=False)
        got |= {after: (marks[after] - marks[before]) / 1e9 for before, after in steps}
    want["all"] = sum(want.values())
    slack = SLACK_GB if session.device.type == "cuda" else 0.0
    ok = all(abs(got[name] - want[name]) <= TOLERANCE * want[name] + slack for name in got)
    held["state"] = got["all"]
    rig.append(found)
    text = ", ".join(f"{name} {got[name]:.3g} of {want[name]:.3g} GB" for name in got)
    return Outcome(text, ok, {"got_gb": got, "expected_gb": want, "parameters": n})


def peaks(session: Session, held: dict[str, float], rig: Phases) -> Outcome:
    """Measure each phase's peak over two steps: the first makes the gradients and whatever libraries take for good."""
    estimate = predicted(rig)
    if session.device.type != "cuda":
        for call in rig.calls().values():
            call()
        raise LeftOut("needs CUDA: torch does not count the CPU's memory")
    found = {}
    for _ in range(2):
        for name, call in rig.calls().items():
            torch.cuda.reset_peak_memory_stats()
            call()
            torch.cuda.synchronize()
            found[name] = torch.cuda.max_memory_allocated() / 1e9
    facts = {"peak_gb": found, "estimate_gb": estimate, "state_gb": held["state"]}
    text = ", ".join(f"{name} {found[name]:.1f}" for name in found) + " GB; plan: "
    if estimate is None:
        return Outcome(
            f"{text}not to be imported here, so nothing to compare with; the state is {held['state']:.1f}", True, facts
        )
    over = max(found[name] / (estimate[PHASES[name]] + FIXED_GB) for name in PHASES)
    return Outcome(text + ", ".join(f"{phase} {value:.1f}" for phase, value in estimate.items()), over <= TOO_LOW, facts)


def predicted(rig: Phases) -> dict[str, float] | None:
    """Return GB of the phases "reference", "train" and "optimizer" as `sdpg plan` estimates them; None without its packages."""
    from sdpg.algorithms.base import Needs
    from sdpg.algorithms.divergences import Divergence
    from sdpg.config.settings import Train

    try:
        from sdpg.experiment.architecture import of_config
        from sdpg.experiment.machine import Placement, card
        from sdpg.experiment.planner import Demand, Job, pass_items, phase_bytes, state_items
    except ModuleNotFoundError:
        return None
    needs = Needs(reference=True, teacher="live", divergence=Divergence())
    longest = max(len(s.rollout.ids) for s in rig.samples)
    tokens = max(rig.read.ids.shape[1], rig.teacher_read.ids.shape[1])
    train = Train(
        steps=1,
        prompts_per_step=2,
        group_size=len(rig.samples) // 2,
        max_prompt_tokens=max(len(s.teacher_prompt) for s in rig.samples),
        max_response_tokens=longest,
        micro_batch_tokens=tokens,
        precision="bf16",
        gradient_checkpointing=bool(rig.policy.is_gradient_checkpointing),
    )
    job = Job(
        method="sdpg",
        demand=Demand.of([needs]),
        model=of_config(rig.policy.config.to_dict(), "here"),
        train=train,
        gpu=card(None, torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None),
        place=Placement(gpus=1),
        response=float(longest),
    )
    sums = phase_bytes([*state_items(job), *pass_items(job)])
    return {phase: sums[phase] / 1e9 for phase in ("reference", "train", "optimizer")}

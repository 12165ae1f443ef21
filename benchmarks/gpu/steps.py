"""Part b: one training step of every method on the same rollouts, on the CPU in fp32 and on the GPU in fp32 and bf16.

    python -m benchmarks.gpu.steps FOLDER   (the CPU's side, in a process that sees no GPU: FOLDER/cpu.pt)

Compared are the loss, the gradient's norm, the clipped gradient itself (AdamW's first moment holds it after one step) and how
the weights moved. AdamW's first step is about lr times the gradient's sign, so that rounding flips it where the gradient is
near 0: the movement of the weights is judged less strictly than the gradient. The reference is not the policy, as it would be
at the start of a run, and KL and distillation have a weight that shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.session import Outcome, Session, distance

ROOT = Path(__file__).resolve().parents[2]
STEP, STEPS = 100, 400  # of SDPG's schedule: beta(k) > 0
WEIGHTS = {"grpo": {"kl_coef": 0.1}, "rlsd": {"kl_coef": 0.1}, "sdpg": {"alpha": 0.1, "beta_base": 0.1}}
MOVED = 0.9  # the reference's weights over the policy's
ANCHORS = ("urkl", "fkl", "rkl")
# relative: loss (to itself, at least 0.001), norm, gradient and movement (Euclidean)
TOLERANCE = {"fp32": (1e-4, 1e-4, 1e-3, 5e-2), "bf16": (2e-2, 2e-2, 8e-2, 5e-1)}
CPU_SECONDS = 120.0  # most that the CPU's side may take


def methods() -> dict[str, dict]:
    """Return every method of the registry with its defaults, and the variants that take another way through the core."""
    import baselines

    found = {name: {"algorithm": name, **WEIGHTS.get(name, {})} for name in baselines.REGISTRY}
    found |= {f"sdpg, {anchor}": {**found["sdpg"], "anchor": anchor} for anchor in ANCHORS}
    return found | {"gspo": {**found["grpo"], "ratio": "sequence"}, "sdpo, full": {"algorithm": "sdpo", "top_k": None}}


def batch():
    """Return the rollouts: four prompts with four responses each."""
    from benchmarks.fixed import FixedBatch, Recipe
    from benchmarks.gpu.tiny import TINY_VOCABULARY

    return FixedBatch.draw(Recipe(4, 4, (5, 9), (12, 18), (3, 12), 4096), range(3, TINY_VOCABULARY))


def take_step(model_dir: Path, fields: dict, precision: str) -> dict:
    """Take one step -> loss, grad_norm, and gradient and movement of all weights, (parameters,) float32 on the CPU."""
    from benchmarks.gpu.tiny import Tokenizer
    from benchmarks.ours import FixedEngine, build_trainer

    rollouts = batch()
    with tempfile.TemporaryDirectory() as work:
        train = {"steps": STEPS, "checkpoint_every": STEPS, "lr": 1e-3, "reduction": "group", "max_prompt_tokens": 32}
        trainer = build_trainer(
            model_dir, rollouts, "", precision, Path(work), FixedEngine(rollouts), Tokenizer(), fields, **train
        )
        if trainer.models.reference is not None:
            for p in trainer.models.reference.parameters():
                p.mul_(MOVED)
        flat = lambda kind: torch.cat(  # noqa: E731
            [x.float().flatten().cpu() for key, x in trainer.optimizer.state_tensors().items() if key.startswith(kind)]
        )
        before = flat("master/")
        row = trainer.step(STEP)
        moments, after = flat("exp_avg/"), flat("master/")
    return {"loss": row["loss"], "grad_norm": row["grad_norm"], "gradient": moments, "movement": after - before}


def cpu_side(folder: Path) -> dict[str, dict]:
    """Take a step of every method on the CPU in fp32."""
    return {name: take_step(folder, fields, "fp32") for name, fields in methods().items()}


def run(session: Session) -> None:
    """Run all checks of the part."""
    from benchmarks.gpu.tiny import save_tiny

    with tempfile.TemporaryDirectory() as folder:
        folder, true = Path(folder), {}
        save_tiny(folder)
        if session.check("every method on the CPU, fp32", "no error", partial(_reference, session, folder, true)):
            for name, fields in methods().items():
                for precision, tolerance in TOLERANCE.items():
                    expected = "loss within {:g}, norm {:g}, gradient {:g}, movement {:g}".format(*tolerance)
                    work = partial(compare, true[name], folder, fields, precision)
                    session.check(f"step of {name}, {precision}", expected, work)


def _reference(session: Session, folder: Path, true: dict) -> Outcome:
    """Fill `true` with the CPU's side: from a process without a GPU, in --dry from this one."""
    if session.dry:
        true |= cpu_side(folder)
    else:
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "4"}
        command = [sys.executable, "-m", "benchmarks.gpu.steps", str(folder)]
        seconds = min(CPU_SECONDS, session.left)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise RuntimeError(f"the CPU's side ended with exit status {done.returncode}:\n{done.stderr[-1500:]}")
        true |= torch.load(folder / "cpu.pt", weights_only=True)
    return Outcome(f"{len(true)} methods")


def compare(true: dict, folder: Path, fields: dict, precision: str) -> Outcome:
    """Take a step here and compare it with the CPU's."""
    got = take_step(folder, fields, precision)
    errors = {
        "loss": abs(got["loss"] - true["loss"]) / max(1e-3, abs(true["loss"])),
        "norm": abs(got["grad_norm"] / true["grad_norm"] - 1),
        "gradient": distance(got["gradient"], true["gradient"]),
        "movement": distance(got["movement"], true["movement"]),
    }
    ok = all(error <= limit for error, limit in zip(errors.values(), TOLERANCE[precision], strict=True))
    return Outcome(", ".join(f"{name} {error:.1e}" for name, error in errors.items()), ok, errors)


if __name__ == "__main__":
    there = Path(sys.argv[1])
    torch.save(cpu_side(there), there / "cpu.pt")

"""What the processes of tests/core/processes.py do. Each job returns JSON data; that of the first process is kept."""

from __future__ import annotations

import json
import os
import sys
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor

import baselines
from sdpg.core import distributed, state
from sdpg.core.sharding import full_tensors
from sdpg.progress import Interrupted
from sdpg.types import Score
from tests.core.conftest import SDPG, Easy, Never, TokenTask, make_trainer, train_config

METHODS = {
    "sdpg": ("sdpg", SDPG),
    "sdpg-urkl": ("sdpg", SDPG | {"anchor": "urkl"}),
    "sdpg-off": ("sdpg", SDPG | {"off_policy": True}),
    "sdpo-ema": ("sdpo", {"ema_rate": 0.05, "top_k": None}),
    "sdpg-no-anchor": ("sdpg", SDPG | {"alpha": 0.0}),
    "grpo": ("grpo", {"kl_coef": 0.1}),
    "grpo-no-kl": ("grpo", {"kl_coef": 0.0}),
    "grpo-reward-kl": ("grpo", {"kl_coef": 0.1, "kl_in_reward": True}),
    "gspo": ("grpo", {"kl_coef": 0.0, "ratio": "sequence"}),
    "rlsd": ("rlsd", {"kl_coef": 0.1}),
    "sdpo": ("sdpo", {}),
    "sdft": ("sdft", {}),
    "opcd": ("opcd", {}),
    "opsa": ("opsa", {}),
    "rlcsd": ("rlcsd", {"tau": 0.02}),
}


class OneRight(TokenTask):
    """One problem's responses differ in reward, all others' are wrong: some processes have nothing to learn from."""

    def score(self, problem, ids, finish_reason):
        return Score(correct=problem.id == "0" and ids[0] % 2 == 0)


TASKS = {"token": TokenTask, "easy": Easy, "one-right": OneRight, "never": Never}


def parameters(trainer) -> dict[str, list[float]]:
    """The whole policy after training, by name. Collective."""
    return {name: p.flatten().tolist() for name, p in full_tensors(trainer.models.policy, torch.float32)}


def steps(folder, *, model, method="sdpg", task="token", count=2, tied=True, **changes) -> dict:
    """Take some steps of one method -> parameters and rows; `head` is whether the head still is the embedding."""
    name, fields = METHODS[method]
    trainer = make_trainer(
        Path(model), folder / "work", baselines.make(name, **fields), train_config(**changes), task=TASKS[task]()
    )
    trainer._push(0)
    rows = [trainer.step(k) for k in range(1, count + 1)]
    policy = trainer.models.policy
    same = policy.get_output_embeddings().weight is policy.get_input_embeddings().weight
    engine = trainer.collector.engine.model.state_dict()
    pushed = max((p - engine[n]).abs().max().item() for n, p in full_tensors(policy, torch.float32))
    return {"parameters": parameters(trainer), "rows": rows, "tied": same, "pushed": pushed}


def many(folder, *, cases) -> dict:
    """Run several jobs one after the other, `steps` unless they say which; a log's last line says which case was begun."""
    out = {}
    for name, case in cases.items():
        print(name, flush=True)
        job = JOBS[case.pop("job", "steps")]
        out[name] = job(folder / name, **case)
    return out


def whole_run(folder, *, model, work, method="sdpg", signal_in=None, **changes) -> dict:
    """Train to the end, or go on from what is there -> parameters.

    signal_in: (phase, step, signal) that the last process sends itself.
    """
    name, fields = METHODS[method]
    trainer = make_trainer(Path(model), Path(work), baselines.make(name, **fields), train_config(**changes))
    if signal_in and distributed.start().rank + 1 == distributed.start().size:
        send_itself(trainer, *signal_in)
    try:
        trainer.run()
    except Interrupted as stop:
        print(stop, flush=True)
        sys.exit(130)
    return {"parameters": parameters(trainer)}


def push(folder, *, model) -> dict:
    """Push the weights -> how many were pushed, and most whole tensors that were alive at the same time."""
    trainer = make_trainer(Path(model), folder / "work", baselines.make("grpo"), train_config())
    alive, most, count = [], 0, 0

    def watched():
        nonlocal most, count
        for name, tensor in full_tensors(trainer.models.policy, torch.float32):
            alive.append(weakref.ref(tensor))
            most, count = max(most, sum(x() is not None for x in alive)), count + 1
            yield name, tensor

    trainer.collector.engine.load_weights(watched(), version=1)
    return {"tensors": count, "most": most}


def groups_of(folder, *, model, **changes) -> dict:
    """Collect three batches -> rewards and the groups' problems, in order, over all processes."""
    trainer = make_trainer(Path(model), folder / "work", baselines.make("grpo"), train_config(**changes), task=Easy())
    trainer._push(0)
    found = []
    for k in (1, 2, 3):
        batch = trainer.collector.collect(k, trainer_clock())
        own = {i: batch.samples[j * 4].prompt for j, i in enumerate(batch.own)}
        every = {int(i): p for part in distributed.gather(own) for i, p in part.items()}
        sampled = sum(distributed.gather(batch.sampled))
        found.append({"rewards": batch.R_NG.tolist(), "prompts": [every[i] for i in sorted(every)], "sampled": sampled})
    return {"steps": found}


def trainer_clock():
    from sdpg.core.recorder import Clock

    return Clock(torch.device("cpu"))


def send_itself(trainer, phase, step, number):
    """Let the process send itself a signal in a phase of a step."""
    where, name = {"sampling": (trainer.collector.engine, "generate"), "update": (trainer, "_slot")}[phase]
    real, real_step, present = getattr(where, name), trainer.step, [0]

    def noted(k):
        present[0] = k
        return real_step(k)

    def signalling(*args, **kwargs):
        if present[0] == step and not trainer.stopper.asked:
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    trainer.step = noted
    setattr(where, name, signalling)


def saved(folder, *, where, file_bytes) -> dict:
    """Save sharded tensors in small files, and read them into others: the files' names, and what was read, whole."""
    state.FILE_BYTES = file_bytes
    place = [Shard(0)]

    def tensors(scale: float) -> dict:
        whole = {name: scale * (torch.arange(32.0).view(8, 4) + 100 * i) for i, name in enumerate("abc")}
        return {name: distribute_tensor(x, distributed.mesh(), place) for name, x in whole.items()}

    kept = state.StateFolder(Path(where), {"run": 1})
    kept.save(tensors(1.0), 3, updates=3)
    kept.wait()
    distributed.barrier()
    found, read = kept.newest(), tensors(0.0)
    kept.load(found, read)
    return {"sha256": found["sha256"], "read": {name: x.full_tensor().tolist() for name, x in read.items()}}


def beside_engine(folder, *, groups) -> dict:
    """Save and load a state in each of these process groups, as vLLM starts one for one process; "" is none."""
    import torch.testing._internal.distributed.fake_pg  # noqa: F401  # registers the backend "fake"

    assert not dist.is_initialized()
    tensors, same = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(5)}, {}
    for i, backends in enumerate(groups):
        if backends:
            dist.init_process_group(backends, store=dist.HashStore(), rank=0, world_size=1)
        kept = state.StateFolder(folder / f"state{i}", {"run": 1})
        kept.save(tensors, 4, updates=4)
        kept.wait()
        read = {name: torch.zeros_like(x) for name, x in tensors.items()}
        kept.load(kept.newest(), read)
        same[backends] = all(torch.equal(read[name], x) for name, x in tensors.items())
        if backends:
            dist.destroy_process_group()
    return same


JOBS = {job.__name__: job for job in (many, steps, whole_run, groups_of, push, saved, beside_engine)}

if __name__ == "__main__":
    chosen, given, place = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    world = distributed.start()
    result = JOBS[chosen](place / f"rank{world.rank}" if chosen != "whole_run" else place, **given)
    if world.first:
        (place / "result.json").write_text(json.dumps(result))
    distributed.barrier()

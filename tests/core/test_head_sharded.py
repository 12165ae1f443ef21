"""The head under FSDP2 (`fully_shard`): two gloo processes on the CPU, against the same head in one process."""

import pytest
import torch
import torch.distributed as dist
from head_oracle import V, arguments, inputs, weighted
from torch import nn

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head import Head, token_signals, token_signals_backward

WORLD = 2
DIVERGENCE = Divergence(kind="gjsd")


def run_head(x, rank, *, two_pass, zero_on=()):
    """One forward and backward with every loss scaled by 1 + rank, 0 on the ranks `zero_on` -> signals, hidden's gradient."""
    positional, how = arguments(x, divergence=DIVERGENCE, softcap=3.0)
    scale = 0.0 if rank in zero_on else 1.0 + rank
    loss = lambda s, j: scale * weighted((s.logp, s.entropy, s.div), x["upstream"][:, j])  # noqa: E731
    if two_pass:
        s = token_signals(*positional, **how, chunk_elements=5 * V)
        loss(s, slice(None)).backward()
        return s.div.detach(), x["hidden"].grad
    s, gradient = token_signals_backward(*positional, loss, **how, chunk_elements=5 * V)
    return s.div, gradient


def worker(rank, rendezvous, out, case):
    """One of two processes: its own tokens, the head's weight and bias sharded by rows (17 of them: 9 and 8)."""
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD)
    try:
        x = inputs(seed=0)
        layer = nn.Linear(x["weight"].shape[1], V, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(x["weight"])
            layer.bias.copy_(x["bias"])
        fully_shard(layer)
        x |= {k: inputs(seed=10 + rank)[k] for k in ("hidden", "teacher", "targets", "upstream")}
        x |= {"weight": layer.weight, "bias": layer.bias}
        for _ in range(2):  # the second time there is a gradient to add to
            x["hidden"].grad = None
            div, hidden = run_head(x, rank, **case)
        assert layer.weight.grad.placements == layer.weight.placements
        full = [layer.weight.grad.full_tensor(), layer.bias.grad.full_tensor()]
        torch.save([div, hidden, *full], f"{out}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "case",
    [{"two_pass": False}, {"two_pass": True}, {"two_pass": False, "zero_on": (1,)}],
    ids=["one pass", "two passes", "nothing on one process"],
)
def test_a_sharded_head_has_the_mean_of_the_processes_gradients(tmp_path, case):
    torch.multiprocessing.spawn(worker, (str(tmp_path / "rendezvous"), str(tmp_path), case), nprocs=WORLD)
    weight, bias = 0.0, 0.0
    for rank in range(WORLD):
        x = inputs(seed=0)
        x |= {k: inputs(seed=10 + rank)[k] for k in ("hidden", "teacher", "targets", "upstream")}
        div, hidden = run_head(x, rank, **case)
        if rank not in case.get("zero_on", ()):
            weight, bias = weight + 2 * x["weight"].grad / WORLD, bias + 2 * x["bias"].grad / WORLD
        got = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(got[0], div)
        torch.testing.assert_close(got[1], hidden)
    for rank in range(WORLD):
        got = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(got[2], weight)
        torch.testing.assert_close(got[3], bias)


def trainable():
    """A trunk and a tied head, as in a small language model: the embedding serves as the head's weight."""
    torch.manual_seed(0)
    return nn.ModuleDict({"embed": nn.Embedding(V, 6), "trunk": nn.Linear(6, 6)}).double()


def step(model, rank):
    """Trunk forward, fused head, trunk backward, on this rank's tokens."""
    ids = inputs(seed=20 + rank)["targets"]
    hidden = model["trunk"](model["embed"](ids)).tanh()
    _, gradient = token_signals_backward(hidden, Head(model["embed"].weight), ids.roll(1), lambda s, j: s.logp.sum())
    hidden.backward(gradient)


def tied_worker(rank, rendezvous, out):
    """FSDP2 shards embedding and trunk, and reduces what the trunk's backward pass gives; the head adds its share."""
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD)
    try:
        model = trainable()
        for part in model.values():
            fully_shard(part, reshard_after_forward=True)
        step(model, rank)
        torch.save({n: p.grad.full_tensor() for n, p in model.named_parameters()}, f"{out}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_a_tied_head_adds_to_what_fsdp_reduces_for_the_embedding(tmp_path):
    torch.multiprocessing.spawn(tied_worker, (str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=WORLD)
    model = trainable()
    for rank in range(WORLD):
        step(model, rank)
    for rank in range(WORLD):
        got = torch.load(tmp_path / f"{rank}.pt")
        for name, p in model.named_parameters():
            torch.testing.assert_close(got[name], p.grad / WORLD)

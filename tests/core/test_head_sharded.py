"""A sharded model's head, gathered and handed back (WholeHead): two gloo processes on the CPU, against one process."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from sdpg.algorithms.divergences import Divergence
from sdpg.core.head.api import Head, token_signals, token_signals_backward
from sdpg.core.sharding import WholeHead
from tests.core.head_oracle import V, arguments, inputs, weighted

pytestmark = pytest.mark.slow
WORLD = 2
CASES = {
    "one pass": {"two_pass": False},
    "two passes": {"two_pass": True},
    "nothing on one process": {"two_pass": False, "zero_on": (1,)},
    "bf16 compute": {"two_pass": False, "compute": torch.bfloat16},
}


class Model:
    """Stands in for a causal LM with this head."""

    config = None

    def __init__(self, layer):
        self.layer = layer

    def get_output_embeddings(self):
        return self.layer


def run_head(x, rank, *, two_pass, zero_on=(), compute=torch.float64):
    """One forward and backward, the loss scaled by 1 + rank, by 0 on the ranks `zero_on` -> div, gradient of hidden."""
    x = x | {k: x[k].detach().to(compute).requires_grad_() for k in ("hidden", "teacher")}
    x |= {k: x[k].to(compute) for k in ("teacher_weight", "teacher_bias")}
    positional, how = arguments(x, divergence=Divergence(kind="gjsd"), softcap=3.0)
    scale = 0.0 if rank in zero_on else 1.0 + rank
    loss = lambda s, j: scale * weighted((s.logp, s.entropy, s.div), x["upstream"][:, j])  # noqa: E731
    if two_pass:
        s = token_signals(*positional, **how, chunk_elements=5 * V)
        loss(s, slice(None)).backward()
        return s.div.detach(), x["hidden"].grad
    s, gradient = token_signals_backward(*positional, loss, **how, chunk_elements=5 * V)
    return s.div, gradient


def own_tokens(x, rank):
    return x | {k: inputs(seed=10 + rank)[k] for k in ("hidden", "teacher", "targets", "upstream")}


def sharded_head(rank, case):
    """The head's rows on two processes (17 of them: 9 and 8), each with its own tokens -> div, gradients; done twice."""
    x = inputs(seed=0)
    layer = nn.Linear(x["weight"].shape[1], V, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(x["weight"])
        layer.bias.copy_(x["bias"])
    fully_shard(layer)
    for _ in range(2):  # the second time there is a gradient to add to
        whole = WholeHead(Model(layer), case.get("compute", torch.float64))
        div, hidden = run_head(own_tokens(x, rank) | {"weight": whole.head.weight, "bias": whole.head.bias}, rank, **case)
        whole.release()
    assert layer.weight.grad.placements == layer.weight.placements
    return [div, hidden, layer.weight.grad.full_tensor(), layer.bias.grad.full_tensor()]


def tied_model():
    """A trunk and a tied head, as in a small language model: the embedding serves as the head's weight."""
    torch.manual_seed(0)
    return nn.ModuleDict({"embed": nn.Embedding(V, 6), "trunk": nn.Linear(6, 6)}).double()


def step(model, rank, head):
    """Trunk forward, fused head, trunk backward, on this rank's tokens."""
    ids = inputs(seed=20 + rank)["targets"]
    hidden = model["trunk"](model["embed"](ids)).tanh()
    _, gradient = token_signals_backward(hidden, head, ids.roll(1), lambda s, j: s.logp.sum())
    hidden.backward(gradient)


def tied_gradients(rank):
    """FSDP2 shards embedding and trunk, and reduces what the trunk's backward pass gives; the head adds its share."""
    model = tied_model()
    for part in model.values():
        fully_shard(part, reshard_after_forward=True)
    whole = WholeHead(Model(model["embed"]), torch.float64)
    step(model, rank, whole.head)
    whole.release()
    return {name: p.grad.full_tensor() for name, p in model.named_parameters()}


def worker(rank, folder):
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    try:
        results = {name: sharded_head(rank, case) for name, case in CASES.items()}
        torch.save(results | {"tied": tied_gradients(rank)}, f"{folder}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """What each process got."""
    folder = tmp_path_factory.mktemp("sharded")
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
def test_a_sharded_head_has_the_mean_of_the_processes_gradients(sharded, name):
    case = CASES[name]
    compute = case.get("compute", torch.float64)
    weight = bias = 0.0
    for rank in range(WORLD):
        x = own_tokens(inputs(seed=0), rank)
        x |= {k: x[k].detach().to(compute).requires_grad_() for k in ("weight", "bias")}
        div, hidden = run_head(x, rank, **case)
        torch.testing.assert_close(sharded[rank][name][0], div)
        assert (hidden is None) == (rank in case.get("zero_on", ()))
        if hidden is None:
            assert sharded[rank][name][1] is None
        else:  # a head in bf16 rounds its gradient once more than float64 shards of it
            torch.testing.assert_close(sharded[rank][name][1], hidden)
            weight, bias = weight + 2 * x["weight"].grad / WORLD, bias + 2 * x["bias"].grad / WORLD
    for rank in range(WORLD):
        for got, expected in zip(sharded[rank][name][2:], (weight, bias), strict=True):
            tolerance = {"rtol": 1e-2, "atol": 1e-2} if compute == torch.bfloat16 else {}
            torch.testing.assert_close(got, expected, check_dtype=False, **tolerance)


def test_a_tied_head_adds_to_what_fsdp_reduces_for_the_embedding(sharded):
    model = tied_model()
    for rank in range(WORLD):
        step(model, rank, Head(model["embed"].weight))
    for rank in range(WORLD):
        for name, p in model.named_parameters():
            torch.testing.assert_close(sharded[rank]["tied"][name], p.grad / WORLD)

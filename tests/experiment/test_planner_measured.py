"""The planner's bytes beside those of real, tiny models on the CPU."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sdpg.algorithms.divergences import Divergence
from sdpg.core.adapters import Lora, OtherAdapters
from sdpg.core.head import api
from sdpg.core.head.api import Head, token_signals_backward
from sdpg.core.models import MovingAverage, frozen
from sdpg.core.optimizer import MasterAdamW
from sdpg.core.packing import enable_packing, prepare
from sdpg.experiment import architecture as sizes
from sdpg.experiment import planner
from sdpg.experiment.planner import TRAIN, resume_bytes, state_items
from tests.experiment.planning import job_of

# --- tiny models, measured


def tiny(kind=Qwen3ForCausalLM, dtype=torch.bfloat16, checkpointing=False, **more):
    torch.manual_seed(0)
    config = {Qwen3ForCausalLM: Qwen3Config, LlamaForCausalLM: LlamaConfig}[kind]
    shape = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    model = kind(config(**(shape | heads | more))).to(dtype).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    enable_packing(model)
    return model, sizes.of_config(model.config.to_dict(), "tiny")


def storage(*tensors) -> int:
    """Bytes of the tensors' storages, each counted once."""
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())


def reading(model, responses=4, length=100):
    prompts = [list(range(5, 25))] * responses
    read = prepare(model, prompts, [list(range(1, length + 1))] * responses)
    return read, read.ids.shape[1]


def tiny_job(model, method="grpo", precision="bf16", **train):
    job = job_of("matched", method, overrides={"train": {"precision": precision, "engine": "in-process"} | train}, gpus=0)
    return replace(job, model=model)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_bytes_of_the_state_are_those_of_the_tensors(precision, dtype):
    model, architecture = tiny(dtype=dtype)
    job = tiny_job(architecture, "sdpo", precision)
    items = {item.name: item.bytes for item in state_items(job)}
    optimizer = MasterAdamW(model, lr=0.1, betas=(0.9, 0.9), weight_decay=0.0, warmup_steps=0, clip_norm=1.0)

    def learn():
        model(input_ids=torch.arange(8)[None]).logits.float().sum().backward()

    learn()
    optimizer.step()
    learn()
    gradients = storage(*(m.grad for m in optimizer.masters), *(p.grad for p in model.parameters() if p.grad is not None))
    moments = storage(*(s[key] for s in optimizer.adamw.state.values() for key in ("exp_avg", "exp_avg_sq")))
    weights = storage(*model.parameters(), *optimizer.masters)
    average = MovingAverage(tiny(dtype=dtype)[0], 0.1)
    copies = storage(*average.model.parameters(), *average.masters)
    names = [name for name in items if "policy:" in name or "masters" in name]
    assert sum(items[name] for name in names) == weights
    assert (items["Adam's two moments"], items["gradients, fp32"]) == (moments, gradients)
    assert items["average of the policy (EMA teacher)"] == copies
    reference = {item.name: item.bytes for item in state_items(tiny_job(architecture, "grpo", precision))}["reference"]
    assert reference == storage(*frozen(tiny(dtype=dtype)[0]).parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_bytes_of_adapters_are_those_of_the_tensors(precision, dtype):
    model, architecture = tiny(dtype=dtype)
    Lora(8, None, 0).add(model, model.model.layers, dtype)
    job = tiny_job(architecture, "sdpo", precision, lora_rank=8)
    optimizer = MasterAdamW(model, lr=0.1, betas=(0.9, 0.9), weight_decay=0.0, warmup_steps=0, clip_norm=1.0)
    average = MovingAverage(OtherAdapters(model), 0.1)
    for step in (True, False):
        model(input_ids=torch.arange(8)[None]).logits.float().sum().backward()
        if step:
            optimizer.step()
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert job.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert {item.name: item.bytes for item in state_items(job)} == {
        f"policy: {precision}, frozen": storage(*frozen),
        "fp32 masters of what is trained": storage(*optimizer.masters, *optimizer.parameters),
        "Adam's two moments": storage(*(s[key] for s in optimizer.adamw.state.values() for key in ("exp_avg", "exp_avg_sq"))),
        "gradients, fp32": storage(*(m.grad for m in optimizer.masters)),
        "average of the policy (EMA teacher)": storage(*average.masters, *average.model.parameters()),
    }
    saved = [*optimizer.state_tensors().values(), *average.state_tensors().values()]
    assert resume_bytes(job) == storage(*saved)


@pytest.mark.parametrize("kind", [Qwen3ForCausalLM, LlamaForCausalLM])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rank", [0, 8])
def test_activations_are_within_a_tenth_of_what_autograd_keeps(kind, dtype, checkpointing, rank):
    """With checkpointing autograd keeps the layers' inputs; one layer's own are computed again in the backward pass."""
    model, architecture = tiny(kind, dtype, checkpointing)
    if rank:
        Lora(rank, None, 0).add(model, model.model.layers, dtype)
    read, tokens = reading(model)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        kept.append(read.hidden(model))
    measured = storage(*(x for x in kept if x.untyped_storage().data_ptr() not in weights))
    b = dtype.itemsize
    predicted = sizes.activations(architecture, b, tokens, checkpointing, rank)
    if checkpointing:
        predicted -= tokens * sizes.layer_activations(architecture, b, rank)
    assert predicted == pytest.approx(measured, rel=0.1)


class Live(TorchDispatchMode):
    """Follows the bytes of all storages made while it is on, and their peak."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor) and (key := x.untyped_storage()._cdata) not in self.known:
                self.known.add(key)
                self.now += (size := x.untyped_storage().nbytes())
                self.peak = max(self.peak, self.now)
                weakref.finalize(x.untyped_storage(), self._freed, key, size)
        return out

    def _freed(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_of_a_micro_batch_is_within_a_tenth_of_the_plan(checkpointing, monkeypatch):
    monkeypatch.setitem(api.TILE_ELEMENTS, "cpu", 2**16)
    monkeypatch.setitem(api.CHUNK_ELEMENTS, "cpu", 2**18)
    model, architecture = tiny(checkpointing=checkpointing, vocab_size=4096, num_hidden_layers=6)
    read, tokens = reading(model, responses=16)
    targets, head = torch.ones(16 * 100, dtype=torch.long), Head.of(model)
    teacher = torch.randn(len(targets), 128, dtype=torch.bfloat16)
    distil = {"divergence": Divergence(), "teacher_hidden": teacher, "teacher_head": head}
    MasterAdamW(model, lr=0.1, betas=(0.9, 0.9), weight_decay=0.0, warmup_steps=0, clip_norm=1.0)  # takes the gradients
    with Live() as live:
        hidden = read.hidden(model)
        _, gradient = token_signals_backward(hidden, head, targets, lambda s, j: (s.logp + s.div).sum(), **distil)
        hidden.backward(gradient)
    job = tiny_job(architecture, "opcd", max_prompt_tokens=20, max_response_tokens=100, micro_batch_tokens=tokens)
    job = replace(job, train=job.train.model_copy(update={"gradient_checkpointing": checkpointing}))
    planned = {item.name: item.bytes for item in [*planner.pass_items(job), *state_items(job)] if TRAIN in item.phases}
    predicted = sum(planned[name] for name in planned if name not in ("policy: bf16", "Adam's two moments"))
    predicted -= planned["fp32 masters of what is trained"]
    assert job.micro_tokens == tokens
    assert predicted == pytest.approx(live.peak, rel=0.1)

"""Low-rank adapters: the steps of a model written out by hand, the reference's own bits, merged weights, and no second copy."""

import copy
import json
import weakref

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import baselines
from sdpg import reference as program
from sdpg.core import adapters
from sdpg.core.adapters import Lora, OtherAdapters, WithoutAdapters
from sdpg.core.flops import Work, backward_flops, forward_flops
from sdpg.core.head import weights as head_weights
from sdpg.core.models import load_model
from sdpg.core.recorder import read_rows
from sdpg.core.sharding import full_tensors
from tests.core.conftest import Easy, make_trainer, save_tiny, train_config, without_times
from tests.core.jobs import METHODS
from tests.core.processes import Processes, run

CPU = torch.device("cpu")
IDS = torch.arange(2, 20)[None]
SDPG = {"T": 6, "beta_base": 1.0, "T_warm": 0, "T_decay": 0, "alpha": 0.1}
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora_trainer(tiny, work, method="sdpg", *, seed=0, task=None, **changes):
    name, fields = METHODS[method]
    algorithm = baselines.make(name, **fields)
    return make_trainer(tiny, work, algorithm, train_config(**{"lora_rank": 4} | changes), seed=seed, task=task)


def plain(tiny, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


class ByHand(nn.Module):
    """y = x (W + s B A)^T with W fixed."""

    def __init__(self, W, A, B, s):
        super().__init__()
        self.W, self.s = nn.Parameter(W.detach().clone(), requires_grad=False), s
        self.A, self.B = nn.Parameter(A.clone()), nn.Parameter(B.clone())

    def forward(self, x):
        return x @ (self.W + self.s * self.B @ self.A).T


def written_out(tiny, start, s):
    """The tiny model with its blocks' linear layers by hand; start: name -> value of the adapters, as peft names them."""
    model = plain(tiny).requires_grad_(False)
    for i, layer in enumerate(model.model.layers):
        for module in (layer.self_attn, layer.mlp):
            for part in PARTS:
                if hasattr(module, part):
                    (prefix,) = {name.partition("lora_")[0] for name in start if f"layers.{i}." in name and f".{part}." in name}
                    A, B = (start[f"{prefix}lora_{x}.default.weight"] for x in "AB")
                    setattr(module, part, ByHand(getattr(module, part).weight, A, B, s))
    return model


def values_by_hand(model):
    names = {"A": "lora_A.default.weight", "B": "lora_B.default.weight"}
    pairs = (name.rpartition(".") for name, p in model.named_parameters() if p.requires_grad)
    return {f"{path}.{names[last]}": model.get_parameter(f"{path}.{last}").detach() for path, _, last in pairs}


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"packed": False}, {"lora_alpha": 3.0}], ids=str)
def test_steps_are_those_of_layers_written_out_by_hand(tiny, tmp_path, changes):
    options = {"lr": 2e-3, "warmup_steps": 2, "weight_decay": 0.1}
    trainer = lora_trainer(tiny, tmp_path / "w", task=Easy(), micro_batch_tokens=100, **options, **changes)
    policy, start = trainer.models.policy, trained(trainer.models.policy)
    assert len(start) == 2 * 2 * len(PARTS)
    model, initial = written_out(tiny, start, changes.get("lora_alpha", 8.0) / 4), plain(tiny)
    settings = program.Settings(steps=6, **{key: SDPG[key] for key in SDPG if key != "T"}, **options)
    optimizer = program.make_optimizer(model, settings)
    collect, batches = trainer.collector.collect, []

    def record(*args, **kwargs):
        batches.append(collect(*args, **kwargs))
        return batches[-1]

    trainer.collector.collect = record
    trainer._push(0)
    for k in (1, 2, 3):
        trainer.step(k)
        x, cx = ([list(getattr(s, name)) for s in batches[-1].samples] for name in ("prompt", "teacher_prompt"))
        y = [list(s.rollout.ids) for s in batches[-1].samples]
        program.train_step(model, initial, optimizer, program.Rollouts(x, cx, y, batches[-1].R_NG), k, settings)
        ours, theirs = trained(policy), values_by_hand(model)
        assert ours.keys() == theirs.keys()
        assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-5
    assert max((ours[name] - start[name]).abs().max() for name in ours) > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_is_the_untouched_model_bit_for_bit_and_no_copy(tiny, tmp_path, precision):
    trainer = lora_trainer(tiny, tmp_path / "w", precision=precision)
    trainer._push(0)
    trainer.step(1)
    policy, reference, untouched = trainer.models.policy, trainer.models.reference, plain(tiny, trainer.dtype)
    assert isinstance(reference, WithoutAdapters) and trainer.models.head(reference).weight is policy.lm_head.weight
    hidden = lambda model: model.base_model(input_ids=IDS, use_cache=False).last_hidden_state  # noqa: E731
    with torch.no_grad():
        assert torch.equal(hidden(reference), hidden(untouched))
        assert not torch.equal(hidden(policy), hidden(untouched))
    frozen = {name.replace(".base_layer", ""): p for name, p in policy.named_parameters() if not p.requires_grad}
    own = dict(untouched.named_parameters())
    assert frozen.keys() == own.keys() and all(torch.equal(frozen[name], own[name]) for name in own)
    assert all(p.grad is None for p in frozen.values())


def test_the_seed_decides_the_start_and_torchs_random_state_stays(tiny):
    state = torch.get_rng_state()
    a, b, c = (load_model(tiny, dtype=torch.float32, device=CPU, lora=Lora(4, None, seed)) for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    a, b, c = map(trained, (a, b, c))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert all(torch.equal(a[name], c[name]) == ("lora_B" in name) for name in a)
    assert all(a[name].any() != ("lora_B" in name) for name in a)


@pytest.mark.parametrize("tied", [True, False])
def test_the_engine_and_checkpoints_have_the_merged_weights(tmp_path, tied):
    tiny = save_tiny(tmp_path / "model", tied=tied)
    trainer = lora_trainer(tiny, tmp_path / "w", lr=1e-2, steps=2, checkpoint_every=2)
    trainer.run()
    policy, engine = trainer.models.policy, trainer.collector.engine.model
    assert [name for name, _ in full_tensors(policy, torch.float32)] == [name for name, _ in plain(tiny).named_parameters()]
    torch.testing.assert_close(logits(engine), logits(policy), atol=1e-5, rtol=1e-5)
    folder = tmp_path / "w" / "checkpoints" / "step000002"
    loaded, facts = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(facts[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), engine.parameters(), strict=True))
    torch.testing.assert_close(logits(loaded), logits(policy), atol=1e-5, rtol=1e-5)
    assert (logits(loaded) - logits(plain(tiny))).abs().max() > 1e-3
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert "lora" not in (folder / "config.json").read_text()
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert max(row["logprob_gap_max"] for row in rows) < 1e-4


def test_weights_are_merged_one_after_the_other(tiny):
    policy, alive = load_model(tiny, dtype=torch.float32, device=CPU, lora=Lora(4, None, 0)), []
    for _, tensor in full_tensors(policy, torch.bfloat16):
        alive = [x for x in alive if x() is not None] + [weakref.ref(tensor)]
        assert len(alive) <= 2


@pytest.mark.parametrize("method", ["sdpg", "sdpo-ema"])
def test_a_run_resumes_bit_for_bit_from_adapters_alone(tiny, tmp_path, method, monkeypatch):
    lora_trainer(tiny, tmp_path / "whole", method).run()
    killed = lora_trainer(tiny, tmp_path / "killed", method)
    step = killed.step

    def step_until_killed(k):
        if k == 4:
            raise SystemExit("killed")
        return step(k)

    monkeypatch.setattr(killed, "step", step_until_killed)
    with pytest.raises(SystemExit):
        killed.run()
    killed.state.wait()
    (file,) = (tmp_path / "killed" / "state" / "step000002").glob("*.safetensors")
    with safe_open(file, "pt") as state:
        names = set(state.keys())
    kinds = {"master", "exp_avg", "exp_avg_sq"} | ({"ema"} if method == "sdpo-ema" else set())
    assert names == {f"{kind}/{name}" for kind in kinds for name in trained(killed.models.policy)}
    again = lora_trainer(tiny, tmp_path / "killed", method)
    again.run()
    whole, resumed = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed"))
    assert without_times(resumed) == without_times(whole) and len(whole) == 6
    lists = [json.loads((tmp_path / n / "checkpoints/checkpoints.json").read_text()) for n in ("whole", "killed")]
    assert lists[0] == lists[1]  # with the hashes of the weights


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_ema_teacher_averages_the_adapters(tiny, tmp_path, precision):
    trainer = lora_trainer(tiny, tmp_path / "w", "sdpo-ema", lr=1e-2, precision=precision)
    policy, teacher = trainer.models.policy, trainer.models.average
    assert isinstance(teacher, OtherAdapters) and trainer.models.head(teacher).weight is policy.lm_head.weight
    trainer._push(0)
    expected = [m.detach().clone() for m in trainer.optimizer.masters]
    for k in (1, 2):
        trainer.step(k)
        expected = [torch.lerp(old, m.detach(), 0.05) for old, m in zip(expected, trainer.optimizer.masters, strict=True)]
    assert all(x.dtype == torch.float32 for x in trainer.average.masters)
    torch.testing.assert_close(trainer.average.masters, expected, rtol=0, atol=1e-7)
    found = dict(teacher.named_parameters())
    assert all(torch.equal(x, m.to(x.dtype)) for x, m in zip(found.values(), trainer.average.masters, strict=True))
    twin = copy.deepcopy(policy)
    for name, value in found.items():
        twin.get_parameter(name).data.copy_(value)
    before = trained(policy)
    with torch.no_grad():
        ours = teacher.base_model(input_ids=IDS, use_cache=False).last_hidden_state
        assert torch.equal(ours, twin.base_model(input_ids=IDS, use_cache=False).last_hidden_state)
        assert not torch.equal(ours, policy.base_model(input_ids=IDS, use_cache=False).last_hidden_state)
    assert all(torch.equal(before[name], p) for name, p in trained(policy).items())


@pytest.mark.parametrize("kind", [WithoutAdapters, OtherAdapters])
def test_a_view_that_fails_leaves_the_policy_as_it_was(tiny, kind):
    policy = load_model(tiny, dtype=torch.float32, device=CPU, lora=Lora(4, None, 0))
    with torch.no_grad():
        [p.add_(0.1) for p in policy.parameters() if p.requires_grad]
    view = kind(policy)
    if kind is OtherAdapters:
        [x.zero_() for x in view.parameters()]
    before = logits(policy)
    with pytest.raises(IndexError):
        view.base_model(input_ids=torch.tensor([[10**6]]))
    assert torch.equal(logits(policy), before)
    assert all(p.requires_grad == (".lora_" in name) for name, p in policy.named_parameters())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(tiny, tmp_path, method):
    trainer = lora_trainer(tiny, tmp_path / "w", method, task=Easy(), lr=1e-2)
    trainer._push(0)
    before = trained(trainer.models.policy)
    row = trainer.step(1)
    moved = {name for name, p in trained(trainer.models.policy).items() if not torch.equal(p, before[name])}
    assert row["grad_norm"] > 0 and {name for name in before if "lora_B" in name} <= moved
    assert not isinstance(trainer.models.reference, nn.Module) and not isinstance(trainer.models.average, nn.Module)


def test_bf16_adapters_have_float32_masters(tiny, tmp_path, monkeypatch):
    """Updates far below bf16's resolution add up, and the frozen head asks for no gradient of its own."""
    monkeypatch.setattr(head_weights, "way_to_add", lambda *args: pytest.fail("the gradient of a frozen head was computed"))
    trainer = lora_trainer(tiny, tmp_path / "w", precision="bf16", lr=1e-5, steps=3, gradient_checkpointing=True)
    policy = trainer.models.policy
    before = [m.detach().clone() for m in trainer.optimizer.masters]
    trainer._push(0)
    for k in (1, 2, 3):
        row = trainer.step(k)
    assert 0 < row["logprob_gap_max"] < 0.1
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    for name, old, m in zip(trainer.optimizer.names, before, trainer.optimizer.masters, strict=True):
        assert m.dtype == torch.float32 and 0 < (m - old).abs().max() < 1e-4
        assert torch.equal(policy.get_parameter(name), m.bfloat16())


def test_adapters_are_counted_once(tiny, tmp_path):
    whole = load_model(tiny, dtype=torch.float32, device=CPU)
    trainer = lora_trainer(tiny, tmp_path / "w")
    policy, reference = trainer.models.policy, trainer.models.reference
    count, work = sum(p.numel() for p in policy.parameters() if p.requires_grad), Work(100, 1000, 50)
    base = forward_flops(whole, work)
    assert backward_flops(whole, work) == 2 * base
    assert forward_flops(reference, work) == base
    assert forward_flops(policy, work) == base + 2 * count * 100
    attention = forward_flops(whole, Work(0, 1000, 0))
    assert backward_flops(policy, work) == forward_flops(policy, work) + attention + 2 * count * 100


def test_what_cannot_be_adapted_is_refused(tiny):
    with pytest.raises(ValueError, match="lora_alpha is 4.0, but lora_rank is 0: there are no adapters; give a rank, or null"):
        train_config(lora_alpha=4.0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=8))
    with pytest.raises(
        ValueError, match=r"train.lora_rank=4: the blocks of GPT2LMHeadModel have no torch.nn.Linear .* set it to 0"
    ):
        Lora(4, None, 0).add(model, model.transformer.h, torch.float32)
    assert not adapters.has_adapters(model)


CASES = {
    "sdpg": {},
    "sdpg, untied": {"tied": False},
    "sdpg, padded rows": {"packed": False},  # the reference's pass is the first of all
    "sdpg, gradient checkpointing": {"gradient_checkpointing": True, "micro_batch_tokens": 60},
    "an EMA teacher": {"method": "sdpo-ema"},
    "KL in the reward, two updates": {"method": "grpo-reward-kl", "updates_per_batch": 2},
    "advantages of 0 on some processes": {"method": "gspo", "task": "one-right", "prompts_per_step": 6},
}


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_do_what_one_does(tmp_path):
    models = {tied: str(save_tiny(tmp_path / f"tied-{tied}", tied=tied)) for tied in (True, False)}
    cases = {name: {"model": models[case.get("tied", True)], "lora_rank": 4} | case for name, case in CASES.items()}
    low = {"sdpg, bf16": cases["sdpg"] | {"precision": "bf16"}}
    one, two = (run("many", n, tmp_path / str(n), {"cases": cases | low}) for n in (1, 2))
    for name in cases | low:
        close = 1e-5 if name in cases else 1e-3
        a, b = one[name]["parameters"], two[name]["parameters"]
        assert a.keys() == b.keys() == dict(plain(models[cases.get(name, {}).get("tied", True)]).named_parameters()).keys()
        assert max(abs(x - y) for key in a for x, y in zip(a[key], b[key], strict=True)) < close, name
        assert [row["grad_norm"] for row in two[name]["rows"]] == pytest.approx(
            [row["grad_norm"] for row in one[name]["rows"]], rel=1e-4 if name in cases else 0.02
        )
        assert two[name]["pushed"] == 0 or name in low


@pytest.mark.long
def test_a_run_of_two_processes_goes_on_in_one(tiny, tmp_path):
    given = {"model": str(tiny), "method": "sdpo-ema", "lora_rank": 4, "checkpoint_every": 2, "work": str(tmp_path / "w")}
    whole = run("whole_run", 1, tmp_path / "whole", given | {"work": str(tmp_path / "v")})
    assert Processes("whole_run", 2, tmp_path / "two", given | {"signal_in": ["sampling", 4, 15]}).wait() == [130, 130]
    out = run("whole_run", 1, tmp_path / "one", given)
    assert "going on after step" in (tmp_path / "one" / "log0.txt").read_text()
    largest = max(abs(x - y) for key, p in whole["parameters"].items() for x, y in zip(p, out["parameters"][key], strict=True))
    assert largest < 1e-5

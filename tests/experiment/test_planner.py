"""The planner: the paper's setting as worked out by hand, tensors of a tiny model as measured, and advice that holds."""

import re
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen3Config

from sdpg.config import parse_value, resolve
from sdpg.config.files import read_mapping
from sdpg.experiment import architecture as sizes
from sdpg.experiment import planner
from sdpg.experiment.machine import CARDS, GIB, Placement, card, placement
from sdpg.experiment.plan_time import (
    Rates,
    checkpoints,
    decode_seconds,
    disk_bytes,
    problems,
    run_seconds,
    step_flops,
    step_seconds,
    unit_hours,
)
from sdpg.experiment.planner import (
    TRAIN,
    head_items,
    host_bytes,
    make_plan,
    memory_items,
    misfit,
    peak,
    phase_bytes,
    refuse_what_does_not_fit,
    remedy,
    resume_bytes,
    shortage,
    with_settings,
)
from sdpg.rollout.placement import Share
from sdpg.tasks.tokenizer import character_tokenizer
from tests.experiment.planning import SCALES, gb, job_of, plan_of

# --- sizes of models


@pytest.mark.parametrize("name", read_mapping(sizes.TABLE))
def test_parameters_of_the_table_are_those_of_the_model(name):
    values = read_mapping(sizes.TABLE)[name]
    classes = {"qwen3": Qwen3Config, "qwen2": Qwen2Config, "llama": LlamaConfig}
    with torch.device("meta"):
        model = Auto.from_config(classes[values["model_type"]](**values))
    found = sizes.of_config(values, name)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found == sizes.of_config(model.config.to_dict(), name)  # what its config.json will say
    assert found.layer == sum(p.numel() for p in model.model.layers[0].parameters())
    assert found.adapter_inputs_and_outputs == sum(
        sum(m.weight.shape) for m in model.model.modules() if isinstance(m, torch.nn.Linear)
    )


def test_parameters_of_the_papers_models():
    for name, billions in (("Qwen/Qwen3-0.6B", 0.596), ("Qwen/Qwen3-1.7B", 1.720), ("Qwen/Qwen3-4B", 4.022)):
        assert sizes.architecture(resolve("matched", {"model": {"pretrained": name}})).parameters / 1e9 == pytest.approx(
            billions, abs=6e-4
        )


def test_biases_and_an_untied_head_count():
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**shape, num_key_value_heads=2, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sizes.of_config(config.to_dict(), "x").parameters == sum(p.numel() for p in model.parameters())


def test_sizes_of_the_scales_own_models():
    assert sizes.CHARACTERS == len(character_tokenizer())
    assert sizes.architecture(resolve("cpu-chain")).parameters == 128_896
    assert sizes.architecture(resolve("lm")).parameters == 134_515_008


def test_a_folder_comes_before_the_hubs_cache_and_the_cache_before_the_table(tmp_path, monkeypatch):
    config = Qwen3Config(hidden_size=64, num_hidden_layers=3)
    config.save_pretrained(tmp_path / "folder")
    cached = tmp_path / "models--Qwen--Qwen3-4B"
    config.save_pretrained(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    of = lambda name: sizes.architecture(resolve("matched", {"model": {"pretrained": name}}))  # noqa: E731
    assert of(str(tmp_path / "folder")).layers == 3
    assert of("Qwen/Qwen3-4B").layers == 36
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert of("Qwen/Qwen3-4B").layers == 3
    assert of("Qwen/Qwen3-4B@abc").layers == 3
    assert of("Qwen/Qwen3-1.7B@abc").layers == 28


@pytest.mark.parametrize(
    ("name", "text"),
    [("Qwen/Qwen3-5B", "did you mean 'Qwen/Qwen3-4B'"), ("./no/such/folder", "does not exist"), ("{}", "has no config.json")],
)
def test_a_model_that_is_not_at_hand_is_refused(name, text, tmp_path):
    with pytest.raises(ValueError, match=re.escape(text)):
        plan_of("matched", overrides={"model": {"pretrained": name.format(tmp_path)}})


@pytest.mark.parametrize(("values", "text"), [({"n_embd": 4}, "no hidden_size"), ({"num_experts": 8}, "num_experts")])
def test_another_kind_of_model_is_refused(values, text):
    complete = {} if "n_embd" in values else read_mapping(sizes.TABLE)["Qwen/Qwen3-4B"]
    with pytest.raises(ValueError, match=text):
        sizes.of_config(complete | values, "x")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_hidden_layers": -4}, "num_hidden_layers=-4"),
        ({"hidden_size": "2560"}, "hidden_size='2560'"),
        ({"vocab_size": None}, "vocab_size=None"),
        ({"num_key_value_heads": -1}, "num_key_value_heads=-1"),
        ({"head_dim": "128"}, "head_dim='128'"),
        ({"text_config": [1]}, r"text_config=\[1\]"),
    ],
)
def test_sizes_that_make_no_sense_are_named(values, text):
    with pytest.raises(ValueError, match=f"x: its config.json has {text}"):
        sizes.of_config(read_mapping(sizes.TABLE)["Qwen/Qwen3-4B"] | values, "x")


@pytest.mark.parametrize("values", [[1, 2], "a", 3, None])
def test_a_config_that_is_no_object_is_refused(values):
    with pytest.raises(ValueError, match=f"x: its config.json holds a {type(values).__name__}, expected an object"):
        sizes.of_config(values, "x")


# --- the paper's setting, by hand: docs/scale.md


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("paper-qwen3-4b", (8.0, 16.1, 32.2, 8.0, 16.1, 6)), ("paper-qwen3-1.7b", (3.4, 6.9, 13.8, 3.4, 6.9, 4))],
)
def test_memory_of_the_papers_setting_on_one_card(scale, expected):
    job = job_of(scale, gpus=1)
    names = ("policy: bf16", "masters", "moments", "reference", "gradients, fp32", "activations")
    found = [gb(job, name) for name in names]
    assert found[:5] == pytest.approx(expected[:5], abs=0.05)
    assert found[5] == pytest.approx(expected[5], abs=0.5)
    assert gb(job, "vLLM") == pytest.approx(0.6 * 80 * GIB / 1e9)  # 51.5
    assert gb(job, "vLLM") == pytest.approx(51, abs=0.6)


def test_one_gpu_on_each_of_several_nodes_shards_over_the_nodes():
    assert gb(job_of("paper-qwen3-4b", gpus=1, nodes=8), "moments") == gb(job_of("paper-qwen3-4b", gpus=8), "moments")
    assert gb(job_of("paper-qwen3-4b", gpus=8, nodes=2), "moments") == gb(job_of("paper-qwen3-4b", gpus=8), "moments")


def test_4b_does_not_fit_one_card_as_it_is_and_1_7b_just_does():
    big, small = job_of("paper-qwen3-4b", gpus=1), job_of("paper-qwen3-1.7b", gpus=1)
    assert shortage(big) and phase_bytes(memory_items(big))[TRAIN] > big.gpu.memory  # with vLLM asleep
    assert shortage(small) is None
    assert peak(small) > 0.9 * small.gpu.memory


def test_memory_of_the_papers_setting_sharded_over_8():
    job = job_of("paper-qwen3-4b", gpus=8)
    assert gb(job, "shard, its own", "moments", "gradients, fp32") == pytest.approx(8, abs=0.1)
    assert gb(job, "reference") == pytest.approx(1, abs=0.02)
    assert gb(job, "two layers") == pytest.approx(1.2, abs=0.05)
    assert sum(item.bytes for item in head_items(job)) / 1e9 == pytest.approx(4.5, abs=0.05)  # 2.1 of it a chunk of 2**29
    assert phase_bytes(memory_items(job))[TRAIN] / 1e9 - planner.FIXED["cuda"] / 1e9 == pytest.approx(21.5, abs=0.5)
    assert shortage(with_settings(job, {"resources.vllm.memory": 0.7})) is None


def test_the_time_of_a_step_in_the_papers_setting():
    job = job_of("paper-qwen3-4b", gpus=8)
    flops = step_flops(job)
    passes = {phase: flops[phase] for phase in ("reference", "teacher", "train")}
    assert sum(passes.values()) / 1e15 == pytest.approx(128, rel=0.03)
    for mfu, seconds in ((1.0, 16), (0.4, 41), (0.3, 54)):
        found = step_seconds(job, Rates(mfu))
        assert sum(found[phase] for phase in passes) == pytest.approx(seconds, rel=0.04)
    limit = step_seconds(job, Rates())
    assert limit["rollout"] == pytest.approx(32, abs=0.5)
    assert sum(limit.values()) - limit["save"] == pytest.approx(48, abs=1)
    expected = step_seconds(job, Rates(0.4, 0.55))
    assert 55 <= expected["rollout"] <= 60
    assert sum(expected.values()) < 115
    assert run_seconds(job, Rates(0.4, 0.55)) < 13 * 3600


def test_disk_of_the_matched_family():
    plan = plan_of("matched", gpus=8)
    assert (len(plan.jobs), checkpoints(plan.jobs[0].train)) == (13, 41)
    assert disk_bytes(plan)["checkpoints"] / 1e12 == pytest.approx(12.9, abs=0.05)
    assert disk_bytes(plan)["checkpoints"] / 39 / 1e9 == pytest.approx(330, abs=0.5)
    assert disk_bytes(plan)["resume state"] == pytest.approx(16 * 4.022e9, rel=1e-3)  # with an EMA teacher


def test_host_memory_is_that_of_the_processes_of_one_node():
    one, eight = job_of("paper-qwen3-4b", gpus=1), job_of("paper-qwen3-4b", gpus=8)
    fixed = planner.HOST_PROCESS
    assert host_bytes(one)["load"] - fixed == pytest.approx(8.04e9, rel=1e-2)
    assert host_bytes(eight)["load"] - 8 * fixed == pytest.approx(8 * 16.1e9, rel=1e-2)
    assert host_bytes(eight)["save"] - 8 * fixed == pytest.approx(14 * 4.022e9 + 8 * 2e9, rel=1e-2)  # 1 GB a file, twice
    small = job_of("smoke")  # whose state is one small file
    assert host_bytes(small)["save"] - fixed == pytest.approx(3 * resume_bytes(small) + small.b * small.model.parameters)
    assert host_bytes(eight) == host_bytes(job_of("paper-qwen3-4b", gpus=8, nodes=2))


# --- what the methods need


def test_a_method_pays_for_what_it_asks_for():
    plan = plan_of("matched", gpus=8)
    jobs = {job.method: job for job in plan.jobs}
    assert plan.job.method == "sdpo"
    assert gb(jobs["sdpg-no-anchor"], "reference") == 0 < gb(jobs["opsd"], "reference")  # a frozen teacher
    assert gb(jobs["sdpo"], "EMA") > 0 == gb(jobs["grpo"], "EMA")
    assert gb(jobs["sdpo"], "head, gathered") == gb(jobs["opsd"], "head, gathered") == 2 * gb(jobs["opcd"], "head, gathered")
    assert gb(jobs["sdpo"], "logits") > gb(jobs["sdpg-ufkl"], "logits") > gb(jobs["grpo"], "logits")
    flops = {name: step_flops(job) for name, job in jobs.items()}
    assert flops["grpo"]["teacher"] == 0 == flops["opcd"]["reference"]
    assert flops["sdpg-ufkl"]["teacher"] < 0.51 * flops["sdpg-no-gate"]["teacher"]
    assert flops["grpo-double"]["train"] == pytest.approx(2 * flops["grpo"]["train"], rel=0.02)


def test_a_teacher_that_leaves_counts_for_the_steps_before():
    always, early = (job_of("matched", "rlsd", gpus=8, overrides={"methods": {"rlsd": {"lam_decay": x}}}) for x in (None, 100))
    assert 0.2 < early.demand.teacher / always.demand.teacher < 0.3


def test_several_updates_read_the_batch_once_more():
    one, two = (
        job_of("released-qwen3-4b", "grpo", gpus=8, overrides={"train": x, "methods": {"grpo": {"kl_in_reward": False}}})
        for x in ({"updates_per_batch": 1}, {"updates_per_batch": 2})
    )
    assert step_flops(two)["train"] - step_flops(one)["train"] == pytest.approx(step_flops(one)["rollout"])


# --- more of one thing, more or less of another


@pytest.mark.parametrize("scale", ["paper-qwen3-1.7b", "paper-qwen3-4b"])
def test_memory_moves_the_right_way(scale):
    worst = lambda **settings: peak(job_of(scale, **settings))  # noqa: E731
    train = lambda **train: phase_bytes(memory_items(job_of(scale, gpus=8, overrides={"train": train})))[TRAIN]  # noqa: E731
    assert worst(gpus=1) > worst(gpus=2) > worst(gpus=4) > worst(gpus=8) == worst(gpus=8, nodes=4)
    assert train(micro_batch_tokens=8192) < train() < train(micro_batch_tokens=32768)
    assert train() < train(gradient_checkpointing=False)
    assert train() < train(precision="fp32")
    job = job_of(scale, gpus=8)
    shares = [peak(with_settings(job, {"resources.vllm.memory": share})) for share in (0.3, 0.5, 0.7)]
    assert shares == sorted(set(shares))


def test_time_moves_the_right_way():
    def total(rates=None, **options):
        return sum(step_seconds(job_of("paper-qwen3-4b", **options), rates or Rates()).values())

    assert total(gpus=1) > total(gpus=4) > total(gpus=8) > total(gpus=8, nodes=2)
    assert total(gpus=8, gpu="a100") > total(gpus=8, gpu="h100") > total(gpus=8, gpu="h200", memory=None)
    assert total(Rates(0.3, 0.5), gpus=8) > total(Rates(0.4, 0.5), gpus=8) > total(gpus=8)
    assert total(gpus=8, response_tokens=1000) < total(gpus=8) < total(gpus=8, response_tokens=4000)
    job = job_of("paper-qwen3-4b", gpus=8)
    little = with_settings(
        job, {"resources.vllm.memory": 0.15}
    )  # a cache that holds few: more steps, more reads of the weights
    assert decode_seconds(little, 128, 8, 2, Rates()) > decode_seconds(job, 128, 8, 2, Rates())


def test_hours_are_those_of_all_runs():
    one = plan_of("paper-qwen3-4b", gpus=8)
    three = plan_of("paper-qwen3-4b", gpus=8, overrides={"seeds": [0, 1, 2]})
    assert unit_hours(three, Rates()) == pytest.approx(3 * unit_hours(one, Rates()))
    assert disk_bytes(three)["checkpoints"] == 3 * disk_bytes(one)["checkpoints"]


def test_problems_are_counted_where_they_are_known(tmp_path):
    (tmp_path / "x.jsonl").write_text("{}\n{}\n\n{}\n")
    paths = {"here": {"path": str(tmp_path / "x.jsonl")}, "cut": {"path": str(tmp_path / "x.jsonl"), "limit": 2}}
    sets = paths | {"away": {"path": "no.jsonl"}, "hub": {"path": "a/b", "revision": "c", "limit": 7}}
    config = resolve("smoke", {"data.evaluation": sets})
    found = {name: problems(source) for name, source in config.data.evaluation.items()}
    assert found == {"chain": 16, "chain-long": 16, "here": 3, "cut": 2, "away": None, "hub": 7}


def test_adapters_need_their_own_state_only():
    whole = job_of("paper-qwen3-4b", gpus=1)
    job = replace(whole, train=whole.train.model_copy(update={"lora_rank": 32}))
    assert job.trainable == 32 * whole.model.adapter_inputs_and_outputs < 0.03 * whole.model.parameters
    assert gb(job, "frozen") == gb(whole, "policy: bf16")
    assert gb(job, "moments") < 0.03 * gb(whole, "moments")
    assert gb(job, "reference", "lm-head's") == 0
    assert shortage(whole) and shortage(job) is None


def test_frozen_weights_take_no_gradient():
    whole = job_of("paper-qwen3-4b", gpus=1)
    job = replace(whole, train=whole.train.model_copy(update={"lora_rank": 32, "gradient_checkpointing": False}))
    whole = replace(whole, train=whole.train.model_copy(update={"gradient_checkpointing": False}))
    assert 0.68 < step_flops(job)["train"] / step_flops(whole)["train"] < 0.75
    assert step_flops(job)["reference"] == step_flops(whole)["reference"]


def test_the_preset_for_one_gpu_fits_a_card_of_24_gb_and_with_adapters_1_7b_does_too():
    assert misfit(plan_of("one-gpu", memory=24)) is None
    larger = {"model": "Qwen/Qwen3-1.7B"}
    assert misfit(plan_of("one-gpu", memory=24, overrides=larger)) is not None
    assert misfit(plan_of("one-gpu", memory=24, overrides=larger | {"train.lora_rank": 32})) is None


# --- refusals


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_advised_fits(scale):
    refused = 0
    most = 8 if scale in ("cpu", "matched") or "qwen" in scale else 4  # of GPUs that divide its prompts
    for gpus, memory in product((None, 1, 2, most), (16, 24, 40, 80, 141)):
        plan = plan_of(scale, gpus=gpus, memory=memory)
        problem = misfit(plan)
        assert (problem is None) == all(shortage(job) is None for job in plan.jobs)
        if problem is None:
            refuse_what_does_not_fit(plan)
            continue
        refused += 1
        with pytest.raises(ValueError, match=re.escape(problem)):
            refuse_what_does_not_fit(plan)
        assert "\n" not in problem
        settings = {key: parse_value(value, key) for key, value in re.findall(r"--set (\S+)=(\S+)", problem)}
        assert settings == (remedy(plan) or {})
        if not settings:
            assert "larger cards" in problem
            continue
        train = {key: value for key, value in settings.items() if key.startswith("train.")}
        rest = {key: value for key, value in settings.items() if key not in train}
        again = plan_of(scale, gpus=gpus, memory=memory, overrides=train)  # the config takes them
        assert all(shortage(with_settings(job, rest)) is None for job in again.jobs), problem
    assert refused or scale in ("cpu", "smoke", "lm")


def test_advice_takes_what_costs_least():
    assert remedy(plan_of("paper-qwen3-4b", gpus=8, memory=24)) == {"resources.vllm.memory": 0.5}
    assert remedy(plan_of("paper-qwen3-4b", gpus=1)) == {"resources.gpus": 2}
    deep = plan_of("paper-qwen3-4b", gpus=8, overrides={"train.gradient_checkpointing": False})
    assert remedy(deep) == {"train.micro_batch_tokens": 8192}
    assert remedy(plan_of("lm", overrides={"resources.mem_mb": 2000})) == {"resources.mem_mb": 8000}


def test_a_cache_too_small_for_one_sequence_is_a_refusal():
    job = job_of("paper-qwen3-4b", gpus=8, memory=40)
    assert "one sequence of 6144 tokens" in shortage(with_settings(job, {"resources.vllm.memory": 0.2}))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gpus": 8, "response_tokens": 5000}, "expected 1 to train.max_response_tokens=4096"),
        ({"gpus": 8, "gpu": "h10"}, "expected one of h100"),
    ],
)
def test_impossible_requests_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        plan_of("paper-qwen3-4b", **options)


def test_tensor_parallel_must_divide_processes_and_heads():
    config = resolve("paper-qwen3-4b")
    with pytest.raises(ValueError, match="tensor_parallel=3 must divide 8 processes and 8 heads"):
        make_plan(config, gpu=card(None, 80), place=Placement(gpus=8, engine=Share(tensor_parallel=3)))


def test_cards():
    assert [card(None, gib).name for gib in (None, 80, 24, 40, 48, 141, 180)] == [
        *("h100", "h100", "l4", "l40s", "l40s", "h200", "b200")
    ]
    assert card("l4", None).memory == 24 * GIB
    assert card("a100", 40) == replace(CARDS["a100"], memory=40 * GIB)


def test_what_the_resources_say_is_planned():
    vllm = {"memory": 0.3, "max_num_seqs": 64, "tensor_parallel": 2, "prefix_caching": False}
    config = resolve("smoke", {"resources": {"gpus": 4, "nodes": 2, "vllm": vllm}})
    expected = Placement(gpus=4, nodes=2, engine=Share(**vllm))
    assert placement(config, card(None, 80)) == expected
    assert placement(config, card(None, 80), 8, 1) == replace(expected, gpus=8, nodes=1)
    assert placement(resolve("cpu"), card(None, 80)) == Placement(gpus=0)
    assert placement(resolve("cpu"), card(None, 24)) == Placement(gpus=0, engine=Share(memory=0.4, max_num_seqs=128))


def test_processes_without_gpus_share_the_jobs_memory():
    one, three = plan_of("smoke"), plan_of("smoke", overrides={"resources.processes": 3})
    assert three.job.gpu.memory == one.job.gpu.memory / 3 and three.job.place.world == three.job.shards == 3
    assert misfit(plan_of("smoke", overrides={"resources.processes": 8})) is not None

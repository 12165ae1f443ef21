"""The config: defaults, overrides, and errors that say what is wrong, where, and what was probably meant."""

from __future__ import annotations

import copy
import json

import pytest
from jsonschema import Draft202012Validator

from sdpg.config import (
    ConfigError,
    available_scales,
    evaluation_config,
    from_snakemake,
    lm_eval_config,
    parse_overrides,
    resolve,
    run_config,
)
from sdpg.config.command import check_once
from sdpg.config.settings import SCHEMA, schema_text
from sdpg.provenance.verify import _present
from sdpg.rollout import engines
from sdpg.tasks.sources import KINDS
from tests.scale import message


@pytest.mark.parametrize("scale", available_scales())
def test_every_scale_resolves_and_is_named_like_its_file(scale):
    config = resolve(scale)
    assert config.name == scale
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(config.dump())
    for method in config.methods:
        run_config(config, method, config.seeds[0])


def test_the_defaults_come_from_the_schema_and_are_valid_themselves(scale_file):
    schema = json.loads(SCHEMA.read_text())
    assert SCHEMA.read_text() == schema_text()  # `sdpg docs` writes it
    Draft202012Validator.check_schema(schema)
    config = resolve(scale_file())
    for key, rule in schema["$defs"]["Train"]["properties"].items():
        if "default" in rule:
            assert getattr(config.train, key) == rule["default"]
            Draft202012Validator(rule).validate(rule["default"])
    assert config.seeds == [0]
    assert config.task.dump() == {
        **{"template": "chain", "verifier": "chain", "stop": [], "chat_template": False},
        **{"system": None, "teacher_system": None, "chat_date": "2024-07-26"},
        **{"chat_template_kwargs": {}, "teacher_chat_template_kwargs": None},
    }


def test_null_takes_an_inherited_kind_away(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, extends: smoke, data: {train: {chain: null, reverse: {count: 8, seed: 1}}}}"
    )
    train = resolve(tmp_path / "mine.yaml").data.train
    assert train.kind == "reverse"
    assert train.dump() == {"reverse": {"digits": [4, 5, 6], "count": 8, "seed": 1}}
    with pytest.raises(ConfigError, match="data.train: got nothing, expected exactly one of chain"):
        resolve("smoke", {"data.train.chain": None})


def test_every_block_of_the_schema_refuses_unknown_keys_and_says_what_each_key_means():
    def walk(node, path):
        if not isinstance(node, dict):
            return
        if "properties" in node:
            assert node.get("additionalProperties") is False, path
            for key, inner in node["properties"].items():
                assert "description" in inner or "$ref" in inner, f"{path}.{key} has no description"
        for key, inner in node.items():
            walk(inner, f"{path}.{key}")

    walk(json.loads(SCHEMA.read_text()), "schema")


def test_the_short_forms_of_model_and_methods(scale_file):
    config = resolve(scale_file())
    assert config.model.dump() == {"pretrained": "some/dir"}
    assert config.methods == {"grpo": {}}
    assert resolve(scale_file("methods: {grpo: }", "methods: [grpo, opcd]")).methods == {"grpo": {}, "opcd": {}}


def test_a_default_that_goes_with_another_key_waits_for_it(scale_file):
    config = resolve(scale_file())
    assert config.data.train.dump()["split"] == "train"
    assert config.data.train.dump()["columns"] == {"question": "question", "answer": "answer", "solution": "solution"}
    assert set(config.data.evaluation["held-out"].dump()) == {"chain"}


def test_overrides_set_merge_and_select():
    config = resolve("cpu", {"train.steps": 7, "train": {"warmup_steps": 3}, "methods": ["sdpg-ufkl", "opcd"], "seeds": [4]})
    assert (config.train.steps, config.train.warmup_steps, config.seeds) == (7, 3, [4])
    assert config.train.group_size == resolve("cpu").train.group_size
    assert config.methods == {"sdpg-ufkl": resolve("cpu").methods["sdpg-ufkl"], "opcd": {}}
    assert resolve("cpu", {"methods.grpo.kl_coef": 0.5}).methods["grpo"] == {"kl_coef": 0.5}
    assert resolve("cpu", {"evaluation.lm_eval": None}).evaluation.lm_eval is None


def test_overrides_as_text():
    items = ["train.lr=1e-6", "seeds=[0, 1]", "name=a", "task.chat_template=true", "evaluation.lm_eval=null"]
    parsed = {"train.lr": 1e-6, "seeds": [0, 1], "name": "a", "task.chat_template": True, "evaluation.lm_eval": None}
    assert parse_overrides(items) == parsed
    for broken in ("train.steps", "=3", "a=[1,"):
        with pytest.raises(ConfigError, match="override"):
            parse_overrides([broken])


def test_overrides_as_snakemake_hands_them_over():
    options = {"scale": "lm", "seeds": ["0", "1"], "train": {"steps": "20"}, "set": "train.lr=1e-5 evaluation.pass_k='[1, 2]'"}
    expected = {"seeds": [0, 1], "train": {"steps": 20}, "train.lr": 1e-5, "evaluation.pass_k": [1, 2]}
    assert from_snakemake(options) == ("lm", expected)
    assert from_snakemake({}) == ("cpu", {})


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "+1e-6", "1.e-6", ".1e-5", "1.0e-6", "0.000001"])
def test_yaml_reads_every_way_to_write_a_small_number(scale_file, text):
    assert resolve(scale_file("steps: 5", f"steps: 5, lr: {text}")).train.lr == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("overrides", "key", "nearest"),
    [
        ({"sedes": [1]}, "sedes", "seeds"),
        ({"train.step": 3}, "train.step", "train.steps"),
        ({"train.learning_rate": 3}, "train.learning_rate", "train."),
        ({"steps": 3}, "steps", "train.steps"),
        ({"evaluation.lm_eval.repeat": 3}, "evaluation.lm_eval.repeat", "evaluation.lm_eval.repeats"),
        ({"model.warm_start.hidden": 3}, "model.warm_start.hidden", "model.warm_start.hidden_size"),
        ({"data.train.chain.cuont": 3}, "data.train.chain.cuont", "data.train.chain.count"),
        ({"data.evaluation.chain.chian": {}}, "data.evaluation.chain.chian", "data.evaluation.chain.chain"),
        ({"methods.sdpg-ufkl.beta_bas": 1.0}, "methods.sdpg-ufkl.beta_bas", "methods.sdpg-ufkl.beta_base"),
        ({"methods.grpo.kl_coeff": 1.0}, "methods.grpo.kl_coeff", "methods.grpo.kl_coef"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(overrides, key, nearest):
    text = message("cpu", overrides)
    assert f"config key '{key}' is unknown" in text
    assert nearest in text.split("nearest valid key: ")[1]
    assert "config/scales/cpu.yaml" in text


def test_a_misspelt_required_key_is_reported_as_misspelt_not_as_missing(scale_file):
    path = scale_file("steps: 5", "stpes: 5")
    assert message(path).startswith("config key 'train.stpes' is unknown; nearest valid key: 'train.steps'")
    assert path in message(path)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"train.steps": "many"}, "train.steps: got 'many', expected integer >= 1"),
        ({"train.steps": 0}, "train.steps: got 0, expected integer >= 1"),
        ({"train.steps": 2.5}, "train.steps: got 2.5, expected integer >= 1"),
        ({"train.steps": True}, "train.steps: got True, expected integer >= 1"),
        ({"train.lr": "fast"}, "train.lr: got 'fast', expected number > 0"),
        ({"train.lr": 0}, "train.lr: got 0, expected number > 0"),
        ({"train.betas": [0.9]}, "train.betas: got [0.9], expected list of number >= 0 and < 1, exactly 2"),
        ({"train.betas": [0.9, 1.5]}, "train.betas.1: got 1.5, expected number >= 0 and < 1"),
        ({"train.engine": "vlm"}, f"train.engine: got 'vlm', expected one of {', '.join(engines.names())}"),
        ({"seeds": []}, "seeds: got [], expected list of integer >= 0, at least 1, none twice"),
        ({"seeds": [0, 0]}, "seeds: got [0, 0], expected list of integer >= 0, at least 1, none twice"),
        ({"seeds": 3}, "seeds: got 3, expected list of integer >= 0, at least 1, none twice"),
        ({"task.stop": ["ab"]}, "task.stop.0: got 'ab', expected string, one character"),
        (
            {"model.pretrained": "x"},
            "model: got warm_start, pretrained, expected exactly one of warm_start, pretrained, package",
        ),
        ({"data.train.path": "x"}, f"data.train: got chain, path, expected exactly one of {', '.join(KINDS)}"),
        ({"data.train.limit": 3}, "data.train.limit goes with data.train.dataset or path, which is missing"),
        ({"methods": {}}, None),
        ({"methods": []}, "methods: got {}, expected mapping of keys to values, not empty"),
        ({"name": "a/b"}, "name: got 'a/b', expected letters, digits"),
        ({"methods.grpo.kl_coef": "big"}, "methods.grpo.kl_coef: got 'big', expected number >= 0"),
        ({"methods.sdpg-ufkl.T_warm": 2.5}, "methods.sdpg-ufkl.T_warm: got 2.5, expected integer >= 0"),
        ({"methods.grpo.algorithm": "grop"}, "methods.grpo.algorithm: got 'grop'; did you mean 'grpo'?"),
        ({"seeds.first": 1}, "override 'seeds.first': seeds is [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], which has no keys below it"),
        ({"task.template": "chian"}, "task.template: got 'chian', which is not in sdpg/tasks/templates; did you mean 'chain'?"),
        ({"evaluation.pass_k": [1, 16]}, "evaluation.pass_k: got 16, but evaluation.samples is 4; pass@k needs k <= samples"),
        ({"train.steps": 1000.5}, "train.steps: got 1000.5, expected integer >= 1"),
        ({"train.steps": 10**30}, "got 1000000000000000000000000000000, expected integer >= 1 and <= 1000000000"),
        ({"seeds": [1.5]}, "seeds.0: got 1.5, expected integer >= 0"),
        ({"train.lr": float("inf")}, "train.lr: got inf, expected a finite number > 0"),
        ({"train.lr": float("nan")}, "train.lr: got nan, expected a finite number > 0"),
        *(
            ({"train.keep": value}, f"train.keep: got {value!r}, expected all, last or a whole number of at least 1")
            for value in (0, -1, 1.5, "foo", "", True, None, [2])
        ),
        ({"train.lora_rank": -1}, "train.lora_rank"),
        ({"train.lora_rank": 10**6}, "train.lora_rank"),
        ({"resources.processes": 0}, "resources.processes"),
        ({"resources.vllm.memory": 1.0}, "resources.vllm.memory"),
        ({"resources.gpus": 2, "resources.processes": 3}, "processes is 3, expected gpus=2"),
        ({"resources.gpus": 4, "resources.vllm.tensor_parallel": 3}, "expected a divisor of the 4 processes of a node"),
        ({"train.reward": [1, 1]}, "train.reward: got [1, 1], expected two different numbers"),
        ({"train.overlong_buffer": 64}, "train.overlong_buffer is 64, expected less than max_response_tokens=64"),
        ({"train.updates_per_batch": 3}, "train.prompts_per_step is 16, expected a multiple of updates_per_batch=3"),
        ({"train.updates_per_batch": 2}, "methods.sdpg-ufkl: train.updates_per_batch is 2, but sdpg is on-policy"),
        ({"model.warm_start.student_range": [0.5, 0.4]}, "got [0.5, 0.4], expected [low, high] with low < high"),
        ({"model.warm_start.head_dim": 33}, "model.warm_start.head_dim: got 33, expected integer >= 2"),
        ({"methods.sdpg-ufkl.beta_base": -1}, "methods.sdpg-ufkl.beta_base: got -1, expected number >= 0"),
        ({"methods.grpo.clip_low": -3}, "methods.grpo.clip_low: got -3, expected number >= 0 and < 1"),
        ({"methods.grpo.clip_low": 2}, "methods.grpo.clip_low: got 2, expected number >= 0 and < 1"),
        ({"methods.grpo.tis_cap": -3}, "methods.grpo.tis_cap: got -3, expected number > 0 or null"),
        ({"methods.sdpg-ufkl.T_warm": -1}, "methods.sdpg-ufkl.T_warm: got -1, expected integer >= 0"),
        ({"methods.sdpg-ufkl.anchor": "xkl"}, "got 'xkl', expected one of ufkl, urkl, fkl, rkl"),
        ({"methods.grpo.ratio": "seq"}, "methods.grpo.ratio: got 'seq', expected one of token, sequence"),
        ({"methods.sdpo.ema_rate": 0}, "methods.sdpo.ema_rate: got 0, expected number > 0 and <= 1"),
        ({"matrix": ["cpu", "cpu-chian"]}, "matrix: scale 'cpu-chian' is unknown; did you mean 'cpu-chain'?"),
        ({"methods.grpo.train": {"lr": -1}}, "methods.grpo.train.lr: got -1, expected number > 0"),
        ({"methods.gropo": {}}, "methods.gropo: there is no config/methods/gropo.yaml; did you mean 'grpo'?"),
    ],
)
def test_a_wrong_value_says_what_was_got_and_what_is_expected(overrides, expected):
    if expected is None:  # merging nothing into a block changes nothing
        assert resolve("cpu", overrides) == resolve("cpu")
    else:
        assert expected in message("cpu", overrides)


def test_a_missing_key_says_what_it_is_for(scale_file):
    assert message(scale_file("steps: 5, ", "")).startswith("config key 'train.steps' is missing: Training steps")
    assert "exactly one of the keys" in message(path := scale_file("model: some/dir\n", ""))
    assert "; its keys: warm_start, pretrained, package (in " in message(path)
    assert "; it needs steps, max_prompt_tokens, max_response_tokens (in " in message(
        scale_file("train: {steps: 5, max_prompt_tokens: 32, max_response_tokens: 16}\n", "")
    )


def test_broken_files(scale_file, tmp_path):
    assert "not valid YAML" in message(scale_file("steps: 5", "steps: 5, steps: 6"))
    assert "appears twice" in message(scale_file("steps: 5", "steps: 5, steps: 6"))
    assert "not valid YAML" in message(scale_file("{grpo: }", "{grpo: "))
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert "expected a mapping" in message(str(tmp_path / "list.yaml"))
    assert "does not exist" in message(str(tmp_path / "none.yaml"))
    assert "did you mean 'smoke'" in message("smokee")
    assert "choose one of" in message("zzzzz")


def test_run_config_holds_what_a_run_depends_on_and_nothing_else():
    config = resolve("cpu")
    run = run_config(config, "sdpg-urkl", 2)
    assert set(run.dump()) == {"scale", "seed", "method", "algorithm", "model", "task", "data", "train"}
    assert (run.scale, run.seed, run.method) == ("cpu", 2, "sdpg-urkl")
    assert run.algorithm["algorithm"] == "sdpg"
    assert run.algorithm["anchor"] == "urkl"
    other = resolve("cpu", {"seeds": [2, 9], "methods.grpo.kl_coef": 0.5, "evaluation.samples": 16, "resources.threads": 2})
    assert run_config(other, "sdpg-urkl", 2) == run
    assert run_config(other, "grpo", 2) != run_config(config, "grpo", 2)
    with pytest.raises(ConfigError, match="did you mean 'sdpg-urkl'"):
        run_config(config, "sdpg-urk", 0)


def test_evaluation_config_is_blind_to_methods_seeds_and_learning():
    config = evaluation_config(resolve("cpu"))
    assert evaluation_config(resolve("cpu", {"train.warmup_steps": 5, "seeds": [7], "methods": ["grpo"]})) == config
    assert evaluation_config(resolve("cpu", {"evaluation.samples": 16})) != config
    assert evaluation_config(resolve("cpu", {"train.max_response_tokens": 9})) != config


@pytest.mark.parametrize(
    ("more", "seeds", "bases", "apart"),
    [
        ({}, [3, 4, 5], [0, 1], False),
        ({"evaluation.lm_eval.seeds": 1}, [3], [1], True),
        ({"evaluation.lm_eval.seeds": 3}, [3, 4, 5], [0, 1], True),
        ({"resources.evaluate_at_once": True}, [3, 4, 5], [0, 1], True),
        ({"resources.evaluate_at_once": True, "evaluation.lm_eval": None}, [], [], False),
    ],
)
def test_lm_eval_is_for_the_first_seeds_and_their_base_models(more, seeds, bases, apart):
    config = resolve("smoke", {"seeds": [3, 4, 5], "model.warm_start.seeds": [0, 1]} | more)
    assert (config.lm_eval_seeds, config.lm_eval_bases, config.lm_eval_apart) == (seeds, bases, apart)


def test_lm_eval_apart_decides_nothing_of_the_sweep_and_its_seeds_nothing_of_lm_eval():
    scale = {"seeds": [0, 1, 2], "evaluation.engine": "in-process"}
    together = resolve("smoke", scale)
    assert "seeds" not in evaluation_config(together)["evaluation"]["lm_eval"]
    without = resolve("smoke", scale | {"evaluation.lm_eval": None})
    one, two, more = (
        resolve("smoke", scale | {"evaluation.lm_eval.seeds": seeds, "evaluation.lm_eval.limit": limit})
        for seeds, limit in ((1, 8), (2, 8), (2, 9))
    )
    assert evaluation_config(one) == evaluation_config(two) == evaluation_config(more) == evaluation_config(without)
    assert lm_eval_config(one) == lm_eval_config(two) != lm_eval_config(more)
    sampled = resolve("smoke", scale | {"evaluation.lm_eval.seeds": 2, "evaluation.lm_eval.limit": 9, "evaluation.samples": 16})
    assert lm_eval_config(sampled) == lm_eval_config(more)
    assert json.loads(json.dumps(_present("lm_eval", {}, one))) == json.loads(json.dumps(lm_eval_config(one)))


def test_a_sweep_that_extends_a_scale_may_have_fewer_seeds_than_its_lm_eval():
    swept = resolve("cpu-sweep", {"seeds": [0], "evaluation.lm_eval.seeds": 3})
    assert swept.sweep and swept.evaluation.lm_eval.seeds == 3  # nothing of it is evaluated


def test_resolving_twice_gives_equal_and_separate_dicts():
    first, second = resolve("cpu"), resolve("cpu")
    before = copy.deepcopy(second)
    first.train.betas.append(0)
    run_config(second, "grpo", 0).dump()["train"]["betas"].append(0)
    assert second == before == resolve("cpu")


def test_a_scale_file_may_extend_another_and_say_only_what_differs(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: cpu\nname: mine\ntrain: {lr: 1e-3}\nmethods: {sdft: {}, rlsd: {lam: 0.3}}\n")
    ours, cpu = resolve(path), resolve("cpu")
    assert ours.train.dump() == cpu.train.dump() | {"lr": 1e-3}
    assert list(ours.methods) == [*cpu.methods, "sdft"] and ours.methods["rlsd"] == {"lam": 0.3}
    assert ours.model == cpu.model and ours.name == "mine"


def test_scale_files_that_extend_each_other_in_a_circle_are_refused(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {tmp_path / other}.yaml\nname: {name}\n")
    with pytest.raises(ConfigError, match="in turn"):
        resolve(tmp_path / "a.yaml")


def test_an_unknown_forgetting_task_names_the_nearest():
    with pytest.raises(ConfigError, match="forgetting: got 'revers'; did you mean 'reverse'"):
        resolve("cpu", {"evaluation.lm_eval.forgetting": "revers"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"evaluation.temperature": 0}, "evaluation.samples is 8, but temperature is 0: all responses .* set samples to 1"),
        ({"evaluation.temperature": -0.1}, "evaluation.temperature: got -0.1, expected number >= 0"),
        (
            {"evaluation.temperature": 0.005},
            "evaluation.temperature is 0.005, but the engine vllm samples at temperatures from 0.01 to 2.0 only",
        ),
        ({"evaluation.temperature": 2.5}, "evaluation.temperature is 2.5, but the engine vllm"),
        ({"evaluation.temperature": 0.005, "evaluation.engine": "in-process"}, "the engine vllm"),  # lm-eval's
        ({"evaluation.temperature": 1e-9, "evaluation.engine": "in-process", "evaluation.lm_eval": None}, "in-process samples"),
        ({"train.temperature": 0}, "train.temperature: got 0, expected number >= 0.01"),
        ({"train.temperature": 3, "train.engine": "vllm"}, "train.temperature is 3.0, but the engine vllm"),
        ({"methods": {"grpo": {"train": {"temperature": 3, "engine": "vllm"}}}}, "methods.grpo.train.temperature is 3"),
    ],
)
def test_temperatures_that_an_engine_changes_or_refuses_are_refused_with_the_config(given, said, scale_file):
    with pytest.raises(ConfigError, match=said) as error:
        resolve(scale_file(), given)
    assert "\n" not in str(error.value)


def test_greedy_evaluation_and_an_engines_own_range_are_allowed(scale_file):
    greedy = {"evaluation.temperature": 0, "evaluation.samples": 1, "evaluation.pass_k": [1]}
    assert resolve(scale_file(), greedy).evaluation.temperature == 0
    cold = {"evaluation.temperature": 0.005, "evaluation.engine": "in-process", "evaluation.lm_eval": None}
    assert resolve(scale_file(), cold).evaluation.temperature == 0.005
    assert resolve(scale_file(), {"evaluation.temperature": 0.01}).evaluation.temperature == 0.01


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "scale=lm", "--config", "quick=true"], "--config: is given twice"),
        (["--config", "scale=lm", "-n", "-C", "quick=true"], "--config: is given twice"),
        (["--config=scale=lm", "--config", "quick=true"], "--config: is given twice"),
        (["--config", "set=train.steps=2", "set=train.lr=1"], "--config set: is given twice.*several settings"),
        (["--config=seeds=[0]", "scale=lm", "seeds=[1]"], "--config seeds: is given twice"),
    ],
)
def test_what_snakemake_would_take_the_last_of_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        check_once(["snakemake", "train", *words])
    check_once(["snakemake", "train", "-n", "--config", "scale=lm", "quick=true", "set=train.steps=2 train.lr=1", "-j", "1"])

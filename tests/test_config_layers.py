"""Layers of the config: base models, tuned values, sweeps, and where a value comes from."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from sdpg.config import (
    Config,
    ConfigError,
    available_scales,
    base_config,
    base_index,
    base_seeds,
    method_config,
    methods,
    resolve,
    run_config,
)
from sdpg.config.checks import dotted_keys
from sdpg.config.diff import difference
from sdpg.config.files import TUNED
from sdpg.config.layers import explain, render
from tests.scale import message

# --- base models, tuned values, sweeps ---------------------------------------------------------------------------------


def test_seeds_take_the_base_models_in_turn():
    config = resolve("cpu", {"model.warm_start.seeds": [3, 8]})
    models = [run_config(config, "grpo", seed).model["warm_start"] for seed in (0, 1, 2)]
    assert [model["seed"] for model in models] == [3, 8, 3]
    assert not any("seeds" in model for model in models)
    assert base_config(config, 1)["model"]["warm_start"] == models[1]
    assert base_seeds(resolve("lm")) == [0] and base_index(resolve("lm"), 5) == 0


def test_another_base_model_leaves_the_runs_of_the_first_alone():
    one, two = (resolve("cpu", {"model.warm_start.seeds": seeds}) for seeds in ([0], [0, 1]))
    assert run_config(one, "grpo", 0) == run_config(two, "grpo", 0)
    assert run_config(one, "grpo", 1) != run_config(two, "grpo", 1)


@pytest.fixture
def tuned_file(tmp_path, monkeypatch):
    """A function that writes config/tuned/mine.yaml somewhere else."""
    monkeypatch.setattr(methods, "TUNED", tmp_path)
    monkeypatch.setattr(methods, "shown", lambda path: path.name)
    return lambda text: (tmp_path / "mine.yaml").write_text(text)


def test_tuned_values_lie_beneath_the_methods_file_and_the_scale(tuned_file):
    tuned_file("methods:\n  rpg: {train: {lr: 1e-4}, beta_base: 1.0, alpha: 0.5}\n  grpo: {kl_coef: 0.5}\n")
    config = resolve("cpu", {"tuned": "mine", "methods": {"rpg": {"train": {"warmup_steps": 3}}, "grpo": {"kl_coef": 0.1}}})
    run = run_config(config, "rpg", 0)
    assert run.algorithm == {"algorithm": "sdpg", "anchor": "urkl", "beta_base": 0.0, "alpha": 0.5}  # its file: beta 0
    assert (run.train.lr, run.train.warmup_steps) == (1e-4, 3)
    assert run_config(config, "grpo", 0).algorithm["kl_coef"] == 0.1
    assert run_config(resolve("cpu", {"tuned": None}), "rpg", 0).train.lr == config.train.lr


def test_an_override_that_tuned_values_would_hide_is_refused(tuned_file):
    tuned_file("methods: {grpo: {train: {lr: 1e-4}}}\n")
    for override in ({"train.lr": 0.5}, {"train": {"lr": 0.5}}):
        assert "methods.grpo.train.lr, or add tuned=null" in message("cpu", {"tuned": "mine", **override})
    resolve("cpu", {"tuned": "mine", "train.lr_multiplier": 3.0})
    assert "did you mean 'mine'" in message("cpu", {"tuned": "min"})


def test_a_tuned_value_that_does_not_fit_its_method_is_an_error(tuned_file):
    tuned_file("methods: {grpo: {kl_cof: 1e-4}}\n")
    assert "nearest valid key: methods.grpo.kl_coef" in message("cpu", {"tuned": "mine"})


def test_a_method_may_run_under_another_name(scale_file):
    path = scale_file("{grpo: }", "{grpo: , hot: {like: grpo, train: {lr: 0.5}, kl_coef: 0.0}}")
    run = run_config(resolve(path), "hot", 0)
    assert (run.algorithm, run.train.lr) == ({"algorithm": "grpo", "kl_coef": 0.0}, 0.5)
    assert "methods.hot.like: there is no config/methods/grop.yaml; did you mean 'grpo'" in message(
        scale_file("{grpo: }", "{hot: {like: grop}}")
    )


def test_a_list_of_methods_may_carry_settings(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: cpu\nname: mine\nmethods: [grpo, sdpg-ufkl: {gate: false}]\n")
    cpu = resolve("cpu").methods
    assert resolve(path).methods == {"grpo": {}, "sdpg-ufkl": {**cpu["sdpg-ufkl"], "gate": False}}


SWEEP = """
data.validation: {watched: {chain: {operations: [2], count: 3, seed: 1}}}
sweep:
  trials:
    grpo: [{train: {lr: 1e-4}}, {train: {lr: 2e-4}, kl_coef: 0.1}]
    opcd: [{train: {lr: 1e-4}}, {train: {lr: 3e-4}}]
  inherit: {grpo-double: grpo}
"""


def test_a_sweep_is_one_method_for_each_trial(scale_file):
    config = resolve(scale_file("{grpo: }\n", "{grpo: {clip_low: 0.1}}\n" + SWEEP))
    assert list(config.methods) == ["grpo.0", "grpo.1", "opcd.0", "opcd.1"]
    run = run_config(config, "grpo.1", 0)
    assert run.algorithm == {"algorithm": "grpo", "clip_low": 0.1, "kl_coef": 0.1}  # on top of the scale's own
    assert run.train.lr == 2e-4


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (", {train: {lr: 3e-4}}]", "]", "same number of trials, got grpo 2, opcd 1"),
        ("kl_coef: 0.1", "kl_cof: 0.1", "nearest valid key: methods.grpo.1.kl_coef"),
        ("opcd: [", "sdft: [", ""),
        (
            "{lr: 1e-4}}, {train: {lr: 2e-4}",
            "{lr: 1e-4}, algorithm: opcd}, {train: {lr: 2e-4}",
            "set by config/methods/grpo.yaml",
        ),
        ("grpo-double: grpo", "grpo-double: grp", "sweep.inherit.grpo-double: got 'grp'; did you mean 'grpo'"),
        ("  trials:", "  trails:", "config key 'sweep.trails' is unknown; nearest valid key: 'sweep.trials'"),
        ("data.validation: {watched", "data.evaluation: {watched", "trials are scored on data.validation, which is empty"),
        ("{train: {lr: 1e-4}}, {train: {lr: 2e-4}", "5, {train: {lr: 2e-4}", "sweep.trials.grpo: got [5, {"),
        ("grpo-double: grpo", "grpo: opcd", "sweep.inherit.grpo: grpo has trials of its own"),
        ("grpo-double: grpo", "grop: grpo", "sweep.inherit.grop: grop is no method; did you mean 'grpo'"),
        ("sweep:\n", "sweep:\n  one_rate: true\n", "sweep.trials: got grpo, opcd, expected one method"),
    ],
)
def test_a_wrong_sweep_says_what_is_wrong(scale_file, old, new, expected):
    assert old in SWEEP
    path = scale_file("{grpo: }\n", "{grpo: {}}\n" + SWEEP.replace(old, new))
    if expected:
        assert expected in message(path)
    else:
        resolve(path)


def test_the_sweep_of_cpu_looks_at_no_base_model_and_no_problem_that_cpu_reports():
    sweep, cpu = resolve("cpu-sweep"), resolve("cpu")
    assert sweep.sweep.one_rate and list(sweep.sweep.trials) == ["grpo"]
    assert {"grpo", *sweep.sweep.inherit} == set(cpu.methods) and set(sweep.sweep.inherit.values()) == {"grpo"}
    assert not set(sweep.model.warm_start.seeds) & set(cpu.model.warm_start.seeds) and not set(sweep.seeds) & set(cpu.seeds)
    assert sweep.data == cpu.data
    assert sweep.train.dump() | {"checkpoint_every": 0} == cpu.train.dump() | {"checkpoint_every": 0}


def test_what_cpu_runs_with_is_what_its_sweep_chose():
    """config/tuned/cpu.yaml is the outcome of config/tuned/cpu.csv: the rate with the best mean score, inside the grid."""
    sweep, cpu = resolve("cpu-sweep"), resolve("cpu")
    evidence = pd.read_csv(TUNED / "cpu.csv")
    rates = [trial["train"]["lr"] for trial in sweep.sweep.trials["grpo"]]
    assert len(evidence) == len(rates) * len(sweep.seeds)
    best = rates[int(evidence.groupby("trial")["score"].mean().idxmax())]
    assert min(rates) < best < max(rates)
    assert {run_config(cpu, method, 0).train.lr for method in cpu.methods} == {best}


@pytest.mark.parametrize(
    ("scale", "changed"), [("cpu-biased", {"model.warm_start.jump_hinted"}), ("cpu-stressed", {"train.lr_multiplier"})]
)
def test_a_cell_of_the_matrix_changes_what_it_says_alone(scale, changed):
    rows = difference(resolve("cpu").dump(), resolve(scale).dump(), ignore=("name", "matrix"))
    judged = {key for key, _, _ in rows if key.startswith("evaluation.")}  # without lm-eval
    assert {key for key, _, _ in rows} == changed | judged
    assert resolve(scale).evaluation.dump() == resolve("cpu").evaluation.dump() | {"lm_eval": None}


def test_the_cell_with_another_environment_trains_in_the_same_way():
    cpu, chain = resolve("cpu"), resolve("cpu-chain")
    assert chain.methods == cpu.methods and chain.seeds == cpu.seeds and chain.bases == cpu.bases
    assert chain.train.dump() | {"max_response_tokens": 0} == cpu.train.dump() | {"max_response_tokens": 0}
    assert {run_config(chain, method, 0).train.lr for method in chain.methods} == {run_config(cpu, "grpo", 0).train.lr}


# --- where a value comes from -------------------------------------------------------------------------------------------


def test_a_setting_is_explained_layer_by_layer():
    layers = explain("train.lr", "cpu-stressed", {"train.lr_multiplier": 3.0}, method="sdpg-urkl")
    assert [origin for origin, _ in layers] == ["default", "config/scales/cpu.yaml", "config/tuned/cpu.yaml"]
    run = run_config(resolve("cpu-stressed"), "sdpg-urkl", 0)
    assert layers[0][1] == 1e-6 and layers[1][1] == 3e-4 and layers[2][1] == run.train.lr
    assert explain("train.lr_multiplier", "cpu-stressed")[-1] == ("config/scales/cpu-stressed.yaml", 2.0)
    assert explain("train.steps", "cpu", {"train": {"steps": 7}})[-1] == ("override train", 7)
    assert explain("data.train.chain.count", "cpu")[-1] == ("config/scales/cpu.yaml", 8192)
    assert explain("model.warm_start.jump_hinted", "cpu-biased")[-1] == ("config/scales/cpu-biased.yaml", 0.1)


@pytest.mark.parametrize("key", ["beta_base", "T", "T_warm", "anchor", "alpha", "gate"])
@pytest.mark.parametrize("scale", ["cpu", "paper-qwen3-4b"])
def test_a_hyper_parameter_is_explained_and_the_last_layer_is_what_runs(key, scale):
    config = resolve(scale)
    layers = explain(key, scale, method="sdpg-urkl")
    assert layers[0][0].startswith("default")
    assert layers[-1][1] == method_config(config, "sdpg-urkl")[key]


def test_an_explanation_says_the_meaning_the_range_and_what_is_in_force():
    text = render("train.lr", "cpu-stressed", method="sdpg-urkl")
    assert text.startswith("train.lr = 0.0003 of sdpg-urkl at scale cpu-stressed\n")
    assert "Learning rate after warm-up." in text and "Takes: number > 0" in text
    assert text.count("<- in force") == 1 and "train.lr_multiplier = 2: 0.0006" in text
    assert "a field of 'sdpg'" in render("beta_base", "cpu", method="sdpg-urkl")
    whole = yaml.safe_load(render("data.train", "lm").partition("<- in force")[2])
    assert whole == {"data.train": resolve("lm").dump()["data"]["train"]}  # a long value is cut in its line, and stands below
    with pytest.raises(ConfigError, match="config key 'train.lrr' is unknown; nearest valid key: 'train.lr'"):
        explain("train.lrr", "cpu")
    with pytest.raises(ConfigError, match="a method's own setting goes with --method"):
        explain("beta_base", "cpu")


@pytest.mark.parametrize("scale", available_scales())
def test_what_is_explained_as_in_force_is_what_the_config_has(scale):
    config = resolve(scale)
    keys = [key for key in dotted_keys(Config) if not key.startswith(("methods", "matrix"))]
    for key in keys:
        value = config.dump()
        for part in key.split("."):
            value = value.get(part, ...) if isinstance(value, dict) else ...
        if value is not ...:
            assert explain(key, scale)[-1][1] == value, key
    for method in config.methods:
        for key, value in method_config(config, method).items():
            if key not in ("algorithm", "train", "like"):
                assert explain(key, scale, method=method)[-1][1] == value, (method, key)


@pytest.mark.parametrize("methods", [["grpo", {"rlsd": 5}], [["grpo"]], [None], [{"grpo": ["lr"]}]])
def test_a_list_of_methods_that_is_none_is_refused(methods):
    assert "expected names, or NAME: settings" in message("smoke", {"methods": methods})


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ("[{train: {lr: 1e-4}}, {train: {lr: 2e-4}, kl_coef: 0.1}]", "kl_coef': 0.1}, expected train.lr alone"),
        ("[{kl_coef: 0.1}, {kl_coef: 0.2}, {kl_coef: 0.3}]", "got {'kl_coef': 0.1}, expected train.lr alone"),
        ("[{train: {lr: 1e-4, steps: 3}}]", "expected train.lr alone"),
        ("[{train: {lr: 1e-4}}, {train: {lr: 2e-4}}]", "got 0.0001, 0.0002, expected three or more different"),
        (
            "[{train: {lr: 1e-4}}, {train: {lr: 2e-4}}, {train: {lr: 0.0001}}]",
            "expected three or more different learning rates",
        ),
    ],
)
def test_one_rate_takes_trials_of_learning_rates_alone(scale_file, trials, expected):
    sweep = f"""
data.validation: {{watched: {{chain: {{operations: [2], count: 3, seed: 1}}}}}}
sweep: {{one_rate: true, trials: {{grpo: {trials}}}}}
"""
    assert expected in message(scale_file("{grpo: }\n", "{grpo: {}}\n" + sweep))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "evaluation: {lm_eval: {seeds: 2}}\n",
            "evaluation.lm_eval.seeds: got 2, but the scale has 1 (`seeds`), expected at most 1, or null for all",
        ),
        ("evaluation: {lm_eval: {seeds: 0}}\n", "evaluation.lm_eval.seeds: got 0, expected integer >= 1 or null"),
        *(
            (
                f"resources: {{evaluate_at_once: true, {more}}}\nevaluation: {{lm_eval: null}}\n",
                "evaluate_at_once goes with one process",
            )
            for more in ("processes: 2", "gpus: 1", "gpus: 1, processes: 1", "nodes: 2")
        ),
        ("train.stop_collapsed: 0.3\n", "train.stop_collapsed: looks at data.validation, which is empty"),
    ],
)
def test_jobs_that_cannot_do_what_they_are_asked(scale_file, more, expected):
    assert expected in message(scale_file("{grpo: }\n", "{grpo: {}}\n" + more))


def test_scale_cpu_has_one_seed_for_each_base_model_and_is_matched():
    config = resolve("cpu")
    assert sorted(base_index(config, seed) for seed in config.seeds) == list(range(10)) == config.bases
    swept = resolve("cpu-sweep")
    assert not set(swept.model.warm_start.seeds) & set(config.model.warm_start.seeds)
    runs = [run_config(config, method, 0).train for method in config.methods]
    assert len({run.lr for run in runs}) == 1
    differ = {
        method
        for method, run in zip(config.methods, runs, strict=True)
        if run != config.train.model_copy(update={"lr": run.lr})
    }
    assert differ <= {"grpo-equal-compute"}


def test_only_methods_that_run_are_asked_for_tuned_values():
    tuned_rate = resolve("cpu").methods
    assert "opsd" not in tuned_rate and resolve("cpu", {"methods": ["opsd"], "train.lr": 1e-4}).train.lr == 1e-4
    assert "override methods.sdpg-ufkl.train.lr" in message("cpu", {"methods": ["sdpg-ufkl"], "train.lr": 1e-4})
    variant = {"methods": [{"mine": {"like": "sdpg-ufkl"}}], "train.lr": 1e-4}
    assert "override methods.mine.train.lr" in message("cpu", variant)


def test_names_with_dots_are_whole_names_in_a_scale_that_extends_another(scale_file, tmp_path):
    """They were taken for keys below keys."""
    child = tmp_path / "child.yaml"
    own = {
        "methods": {"grpo.fast": {"like": "grpo"}},
        "data": {"evaluation": {"aime.24": {"chain": {"operations": [2], "count": 3, "seed": 0}}}},
    }
    child.write_text(yaml.safe_dump({"extends": scale_file(), "name": "child", **own}))
    config = resolve(str(child))
    assert list(config.methods) == ["grpo", "grpo.fast"] and list(config.data.evaluation) == ["held-out", "aime.24"]
    assert resolve(str(child), {"data": {"evaluation": {"x.y": own["data"]["evaluation"]["aime.24"]}}}).data.evaluation["x.y"]

"""The block `sensitivity`: the methods that it adds, and what is wrong with it."""

from __future__ import annotations

import pytest

from sdpg.config import resolve, run_config
from sdpg.config.methods import tuned
from sdpg.config.variants import own_methods, settings_of, variants
from tests.scale import message

RATE = {"setting": "train.lr", "methods": ["grpo", "rpg"], "values": [1e-4]}


def cpu(*axes, **more):
    return {"methods": ["sdpg-urkl", "rpg", "grpo"], "tuned": None, "sensitivity": list(axes), **more}


def test_each_value_is_one_more_method_that_differs_in_it_alone():
    beta = {"setting": "beta_base", "methods": ["sdpg-urkl"], "values": [3, 0.1]}
    config = resolve("cpu", cpu(RATE, beta, **{"methods.sdpg-urkl.beta_base": 1.0}))
    added = ["grpo.train.lr-0.0001", "rpg.train.lr-0.0001", "sdpg-urkl.beta_base-3", "sdpg-urkl.beta_base-0.1"]
    assert variants(config) == added and list(config.methods) == [*own_methods(config), *added]
    for name, setting in zip(added, ("train.lr", "train.lr", "beta_base", "beta_base"), strict=True):
        own, other = (run_config(config, method, 0).dump() for method in (name.split(".")[0], name))
        changed = {"method", "algorithm" if setting == "beta_base" else "train"}
        assert {key for key in own if own[key] != other[key]} == changed
        values = other["train"] if setting == "train.lr" else other["algorithm"]
        assert values[setting.rpartition(".")[2]] == float(name.partition(setting)[2][1:])
    assert [(of.value, of.own) for of in settings_of(config)] == [
        *((1e-4, False), (3e-4, True)),
        *((0.1, False), (1.0, True), (3.0, False)),
    ]
    at = settings_of(config)[2].names
    assert at == {"sdpg-urkl": "sdpg-urkl.beta_base-0.1", "rpg": "rpg", "grpo": "grpo"}


def test_overrides_of_a_method_hold_at_every_value():
    config = resolve("cpu", cpu(RATE, **{"methods.grpo.kl_coef": 0.5, "methods.grpo.train.warmup_steps": 3}))
    run = run_config(config, "grpo.train.lr-0.0001", 0)
    assert (run.algorithm["kl_coef"], run.train.warmup_steps, run.train.lr) == (0.5, 3, 1e-4)


def test_the_scale_varies_the_common_rate_by_half_and_twice_on_its_base_models():
    config = resolve("cpu-sensitivity")
    (common,) = {tuned(config)[method]["train"]["lr"] for method in own_methods(config)}
    rates = [of.value for of in settings_of(config) if of.setting == "train.lr"]
    assert rates == pytest.approx([common / 2, common, 2 * common])
    assert [of.value for of in settings_of(config) if of.setting == "beta_base"] == [0.1, 0.3, 1.0, 3.0]
    assert len(config.bases) == len(config.seeds) == 5  # one seed on each
    main = resolve("cpu")
    for method in own_methods(config):  # the runs at the common setting are the main scale's own
        runs = [run_config(of, method, 0).dump() | {"scale": ""} for of in (config, main)]
        assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"methods": ["grpo", "rgp"]}, "sensitivity.0.methods: 'rgp' is not among `methods`; did you mean 'rpg'?"),
        ({"methods": []}, "sensitivity.0.methods: got [], expected list"),
        ({"methods": ["grpo", "grpo"]}, "sensitivity.0.methods: got ['grpo', 'grpo'], expected none twice"),
        ({"values": [1e-4, 1e-4]}, "sensitivity.0.values: got [0.0001, 0.0001], expected none twice"),
        ({"values": [3e-4]}, "sensitivity.0.values: 0.0003 is what grpo has in any case; leave it out"),
        ({"values": ["fast"]}, "sensitivity.0.values.0: got 'fast', expected number"),
        ({"values": [20]}, "methods.grpo.train.lr-20.train.lr: got 20.0, expected number > 0 and <= 10"),
        ({"setting": "train.rate"}, "sensitivity.0.setting: got 'train.rate', which grpo does not have; nearest: 'train.lr'"),
        ({"setting": "beta_base"}, "sensitivity.0.setting: got 'beta_base', which grpo does not have"),
        ({"setting": "train.packed"}, "sensitivity.0.setting: train.packed of grpo is True, expected a number"),
        ({"setting": "train.steps", "values": [9]}, "sensitivity.0.setting: train.steps is one for all runs"),
        ({"seting": "x"}, "'sensitivity.0.seting' is unknown"),
    ],
)
def test_what_is_wrong_with_an_axis_is_said_in_one_line(change, expected):
    assert expected in message("cpu", cpu(RATE | change))


def test_axes_must_agree_with_each_other_and_with_the_scale():
    assert "sensitivity.1.setting: train.lr is there twice" in message("cpu", cpu(RATE, RATE | {"methods": ["sdpg-urkl"]}))
    apart = cpu(RATE, **{"methods.rpg.train.lr": 5e-4})
    assert "train.lr is 0.0003 of grpo and 0.0005 of rpg, expected one value of all" in message("cpu", apart)
    assert "sensitivity: the runs of a sweep are not evaluated" in message("cpu-sweep", {"sensitivity": [RATE]})
    assert "sensitivity: got 'all', expected list" in message("cpu", {"sensitivity": "all"})

"""`quick=true`: the same methods and sets in two steps, and nothing of it elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sdpg.config import ConfigError, available_presets, available_scales, resolve
from sdpg.config.layers import explain
from sdpg.config.methods import method_config
from sdpg.config.parts import run_config
from sdpg.experiment.workflow import Scale
from tests.scale import message

EVERY = [*available_scales(), *available_presets()]


@pytest.mark.parametrize("scale", EVERY)
def test_every_scale_has_a_quick_form(scale):
    quick, full = resolve(scale, {"quick": True}), resolve(scale)
    assert quick.name == f"{full.name}-quick" and not quick.matrix
    assert quick.train.steps == 2 and len(quick.seeds) == 1
    for part in ("evaluation", "validation"):
        sets = getattr(quick.data, part)
        assert list(sets) == list(getattr(full.data, part))
        for source in (*sets.values(), quick.data.train):
            options = source.dump()[source.kind]
            assert (options["count"] if isinstance(options, dict) else source.limit) == 4
    if full.sweep is None:
        assert list(quick.methods) == list(full.methods)
    assert (quick.model, quick.task, quick.resources) == (full.model, full.task, full.resources)
    for method in quick.methods:
        train = run_config(quick, method, 0).train
        assert train.steps == 2 and train.prompts_per_step == 4 and train.group_size <= 16
        assert train.max_response_tokens <= 256


def test_methods_keep_what_makes_them():
    quick, full = resolve("gsm8k", {"quick": True}), resolve("gsm8k")
    for method in full.methods:
        want = method_config(full, method) | {key: 1 for key in ("T_warm", "T_decay") if full.methods[method].get(key)}
        got = method_config(quick, method)
        assert {k: v for k, v in got.items() if k not in ("T", "train")} == {
            k: v for k, v in want.items() if k not in ("T", "train")
        }


@pytest.mark.parametrize(("given", "left"), [("2", 1), ("null", None)])
def test_lm_eval_runs_on_no_more_seeds_than_there_are(scale_file, given, left):
    path = scale_file("{grpo: }\n", f"{{grpo: {{}}}}\nseeds: [0, 1]\nevaluation: {{lm_eval: {{seeds: {given}}}}}\n")
    asked = resolve(path, {"quick": True}).evaluation.lm_eval
    assert (asked.seeds, asked.repeats, asked.limit) == (left, 1, 4)


def test_what_a_method_trains_with_is_shrunk_too(scale_file):
    own = "{steps: 900, group_size: 64, prompts_per_step: 99, max_response_tokens: 5000, updates_per_batch: 8, lr: 1e-3}"
    path = scale_file("methods: {grpo: }", f"methods: {{grpo: {{train: {own}}}, opsd: {{train: {{group_size: 1}}}}}}")
    quick = resolve(path, {"quick": True})
    train = run_config(quick, "grpo", 0).train
    assert (train.steps, train.prompts_per_step, train.group_size, train.max_response_tokens) == (2, 4, 8, 256)
    assert (train.updates_per_batch, train.lr) == (2, 1e-3)
    assert run_config(quick, "opsd", 0).train.group_size == 1
    alone = Path(scale_file("train: {steps: 5,", "train: {steps: 5, group_size: 1,"))
    alone.write_text(alone.read_text().replace("methods: {grpo: }", "methods: {opsd: }"))
    assert resolve(alone, {"quick": True}).train.group_size == 1


def test_overrides_have_the_last_word():
    config = resolve("gsm8k", {"train.steps": 3, "quick": True, "data.train.limit": 9, "name": "mine"})
    assert (config.train.steps, config.data.train.limit, config.name) == (3, 9, "mine")
    assert resolve("cpu", {"quick": False}) == resolve("cpu")


@pytest.mark.parametrize("value", ["yes", 1, None, [True], {"a": 1}])
def test_anything_but_true_or_false_is_refused(value):
    text = message("cpu", {"quick": value})
    assert "override quick: got" in text and "expected true or false" in text


@pytest.mark.parametrize("key", ["train.steps", "data.train.limit", "data.train", "name", "seeds", "task.verifier", "matrix"])
@pytest.mark.parametrize("more", [{}, {"train.steps": 20}])
def test_what_it_changes_is_explained(key, more):
    config = resolve("gsm8k", {"quick": True, **more}).dump()
    origin, value = explain(key, "gsm8k", {"quick": True, **more})[-1]
    for part in key.split("."):
        config = config[part]
    assert value == config
    files = "config/scales/gsm8k.yaml"
    wanted = f"override {key}" if key in more else files if key == "task.verifier" else "quick=true"
    assert origin == wanted


def test_it_is_no_setting(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nextends: cpu\nquick: true\n")
    assert "config key 'quick' is none of a scale file" in message(str(own)) and "quick=true" in message(str(own))
    with pytest.raises(ConfigError, match="'quick' is no setting.*quick=true"):
        explain("quick", "cpu", {"quick": True})


def test_the_jobs_of_a_quick_workflow_are_quick():
    scale = Scale("gsm8k", {"quick": True})
    assert scale.root == "results/gsm8k-quick"
    assert "--set=quick=true" in scale.command("data")(None, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{grpo: }\n", "{grpo: {}}\nevaluation: {temperature: 0, samples: 1, pass_k: [1]}\n"),
        ("train: {steps: 5,", "train: {checkpoint_every: 5, keep: 25, steps: 50,"),
        ("{grpo: }\n", "{grpo: {train: {checkpoint_every: 5, keep: 25, steps: 50}}}\n"),
    ],
)
def test_what_stands_in_a_valid_scale_is_no_hindrance(scale_file, old, new):
    path = scale_file(old, new)
    quick, full = resolve(path, {"quick": True}), resolve(path)
    assert quick.evaluation.samples == (1 if full.evaluation.temperature == 0 else 2)
    assert run_config(quick, "grpo", 0).train.keep == "all"


@pytest.mark.parametrize(("tokens", "buffer", "left"), [(2048, 512, 128), (40, 39, 39), (300, 280, 128), (2048, 0, 0)])
def test_a_penalty_of_long_responses_stays_shorter_than_they_are(scale_file, tokens, buffer, left):
    path = scale_file("max_response_tokens: 16", f"max_response_tokens: {tokens}, overlong_buffer: {buffer}")
    assert resolve(path).train.overlong_buffer == buffer
    assert resolve(path, {"quick": True}).train.overlong_buffer == left


@pytest.mark.parametrize("key", ["train", "evaluation", "data", "evaluation.lm_eval", "data.evaluation", "data.validation"])
@pytest.mark.parametrize("value", [5, True, ["a"]])
def test_what_is_refused_without_it_is_refused_with_it_in_the_same_words(scale_file, tmp_path, key, value):
    child = tmp_path / "child.yaml"
    for part in reversed(key.split(".")):
        value = {part: value}
    child.write_text(yaml.safe_dump({"extends": scale_file(), "name": "child"} | value))
    assert message(str(child), {"quick": True}).replace(" or an override", "") == message(str(child))


def test_a_methods_own_penalty_fits_the_scales_responses(scale_file):
    path = scale_file(
        "{grpo: }", "{grpo: {train: {overlong_buffer: 15}}, rlsd: {train: {max_response_tokens: 900, overlong_buffer: 800}}}"
    )
    quick = resolve(path, {"quick": True})
    assert [run_config(quick, method, 0).train.overlong_buffer for method in ("grpo", "rlsd")] == [15, 128]
    large = scale_file(
        "max_response_tokens: 16}\nmethods: {grpo: }",
        "max_response_tokens: 100}\nmethods: {grpo: {train: {overlong_buffer: 99}}}",
    )
    assert run_config(resolve(large, {"quick": True}), "grpo", 0).train.overlong_buffer == 99
    few = scale_file(
        "max_response_tokens: 16}\nmethods: {grpo: }",
        "max_response_tokens: 600}\nmethods: {grpo: {train: {overlong_buffer: 500}}}",
    )
    assert run_config(resolve(few, {"quick": True}), "grpo", 0).train.overlong_buffer == 128

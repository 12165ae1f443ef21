"""Scale files that cannot be read, names that are taken, settings that do not go together: one line each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import baselines
from sdpg.artefacts import declared
from sdpg.artefacts.declare import AcrossSpec
from sdpg.config import ConfigError, from_snakemake, method_config, methods, parse_overrides, resolve, run_config
from sdpg.config.command import assignment
from sdpg.config.limits import ACROSS
from sdpg.experiment.compose import make_algorithm
from sdpg.experiment.workflow import Matrix, Scale
from sdpg.io import ROOT
from tests.conftest import MINIMAL
from tests.scale import message

LAUGHS = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" if i else "l0: &l0 [ha, ha]" for i in range(9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty, expected a mapping"),
        ("# nothing yet\n", "is empty, expected a mapping"),
        ("[cpu]", "expected a mapping of keys to values, got ['cpu']"),
        ("just words", "expected a mapping of keys to values, got 'just words'"),
        ("extends: [cpu]", "extends: got ['cpu'], expected the name of one scale"),
        ("extends: {cpu: }", "extends: got {'cpu': None}, expected the name of one scale"),
        ("extends: null", "extends: got None, expected the name of one scale"),
        ("extends: cpuu", "extends: scale 'cpuu' is unknown; did you mean 'cpu'?"),
        ("extends: " + "x" * 300, "is unknown; choose one of"),
        ("extends: " + "x" * 300 + ".yaml", "does not exist (looked in"),
        ('extends: "a\\0b.yaml"', "does not exist (looked in"),
        (MINIMAL + "? [a, b]\n: 3\n", "a list or a mapping cannot be a key"),
        (MINIMAL + "? {a: b}\n: 3\n", "a list or a mapping cannot be a key"),
        (MINIMAL + "name: again\n", "key 'name' appears twice"),
        (MINIMAL + "3: three\n", "config key '3' is unknown"),
        (MINIMAL + "a\nb: c\n", "not valid YAML"),
        (MINIMAL + "seeds: !!python/object/apply:os.getpid []\n", "could not determine a constructor"),
        (MINIMAL + "seeds: !!set {a, b}\n", "could not determine a constructor"),
        (MINIMAL + "seeds: !!int many\n", "not valid YAML"),
        (MINIMAL + "seeds: !!bool maybe\n", "not valid YAML"),
        (MINIMAL + "seeds: &a [*a]\n", "an alias refers to what contains it"),
        (MINIMAL + "seeds: &a {b: [*a]}\n", "an alias refers to what contains it"),
        (MINIMAL + LAUGHS, "counting what aliases stand for; at most 100000"),
        (MINIMAL + "seeds: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        (MINIMAL + "<<: 5\n", "not valid YAML"),
        (MINIMAL + "---\nname: other\n", "not valid YAML"),
        (MINIMAL + "train.lr: 1\ntrain.lr.warm: 3\n", "config key 'train.lr.warm': train.lr is 1, which has no keys below it"),
        (MINIMAL + 'seeds: "\\udc80"\n', "seeds: got '\\udc80'"),
    ],
)
def test_a_scale_file_that_is_none(tmp_path, text, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = message(path)
    assert expected in said and str(path) in said


def test_a_file_that_is_no_text_or_a_folder(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(MINIMAL.encode() + b"task: {stop: ['\xe9']}\n")
    assert f"{path}: byte {len(MINIMAL) + 16} is not UTF-8; save the file as UTF-8 text" in message(path)
    path.write_bytes("\ufeffname: a\n".encode("utf-16"))
    assert "is not UTF-8" in message(path)
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml' is a folder (looked in" in message(str(tmp_path / "folder.yaml"))
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())  # an editor's mark at the start is none of the content
    assert resolve(path).name == "mine"


def test_whole_floats_are_whole_numbers_everywhere(scale_file):
    path = scale_file("steps: 5,", "steps: 1000.0, keep: 40.0, checkpoint_every: 2e1, group_size: 4.0,")
    train = resolve(path, {"seeds": [1.0, 2]}).train
    assert [type(value) for value in (train.steps, train.keep, train.checkpoint_every, train.group_size)] == [int] * 4
    config = resolve(
        "cpu", {"seeds": [1.0], "methods": {"sdpg-ufkl": {"T_warm": 5.0, "train": {"steps": 30.0}}, "sdpo": {"top_k": 9.0}}}
    )
    assert config.seeds == [1] and type(config.seeds[0]) is int
    made = make_algorithm(config, "sdpg-ufkl")
    assert (made.T_warm, made.T) == (5, 30) and {type(made.T_warm), type(made.T)} == {int}
    assert type(method_config(config, "sdpo")["top_k"]) is int
    assert run_config(config, "sdpg-ufkl", 1) == run_config(
        resolve("cpu", {"methods": {"sdpg-ufkl": {"T_warm": 5, "train": {"steps": 30}}}}), "sdpg-ufkl", 1
    )


def test_an_override_of_one_method_leaves_another_with_the_same_alias_alone():
    changed = resolve("matched", {"methods.sdpg-ufkl.alpha": 0.5}).methods
    assert changed["sdpg-ufkl"]["alpha"] == 0.5
    assert changed["sdpg-urkl"] == resolve("matched").methods["sdpg-urkl"]


# --- names and folders ---------------------------------------------------------------------------------------------------


def committed() -> list[str]:
    """Return the folders of results that are part of the project."""
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    return sorted({path.split("/")[1] for path in listed}) or ["published", "reference"]


@pytest.mark.parametrize("name", [*committed(), "Published", "cpu-matrix", "other-matrix"])
def test_a_name_whose_folder_is_taken_is_refused(scale_file, name):
    said = message(scale_file("name: mine", f"name: {name}"))
    assert f"name: results/{name} is" in said and "take another name" in said
    assert "take another name" in message("smoke", {"name": name})


def test_every_artefact_of_several_scales_has_its_names_reserved():
    assert {name for name, item in declared().items() if isinstance(item.spec, AcrossSpec)} == set(ACROSS)


@pytest.fixture
def cell(tmp_path):
    """A function that writes a scale file which extends cpu -> its path."""

    def write(text: str, name: str = "cell") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"extends: cpu\n{text}\n")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (["cpu"], "matrix: got cpu alone, expected two scales or more"),
        (["cpu", "cpu"], "matrix: cpu and cpu are both named 'cpu'"),
        (["cpu-chain", "cpu-stressed"], "this scale, named 'cpu', has to be among them"),
        (["cpu", "cpu-sweep"], "matrix: cpu-sweep is a sweep"),
        (["cpu", "none.yaml"], "matrix: scale file 'none.yaml' does not exist"),
    ],
)
def test_a_matrix_that_is_none(matrix, expected):
    assert expected in message("cpu", {"matrix": matrix})


def test_two_cells_that_would_share_a_folder_are_refused(cell):
    assert "are both named 'cpu'" in message("cpu", {"matrix": ["cpu", cell("train.lr: 1e-4")]})
    assert resolve("cpu", {"matrix": ["cpu", cell("name: other")]}).matrix[0] == "cpu"


def test_a_scale_by_its_file_is_the_cell_of_its_name(cell):
    path = cell("name: other")
    Path(path).write_text(f"extends: cpu\nname: other\nmatrix: [cpu, {path}]\n")
    for source in ("config/scales/cpu.yaml", path):
        first = Scale(source, {})
        others = [Scale(other, {}, first=False) for other in first.other_cells]
        assert first.name not in {scale.name for scale in others} and len(others) == len(first.config.matrix) - 1
        assert {scale.prefix for scale in others} == {f"{scale.name}_" for scale in others}
        assert first in Matrix(first, others).cells


def test_a_scale_under_another_name_is_no_cell():
    assert resolve("cpu").matrix and resolve("cpu", {"name": "mine"}).matrix == []


# --- what does not go together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"train.group_size": 1}, "methods.sdpg-ufkl: train.group_size is 1, but sdpg compares the responses of a group"),
        ({"methods": {"grpo": {"train": {"group_size": 1}}}}, "methods.grpo: train.group_size is 1, but grpo compares"),
        ({"methods": ["sdpo"], "train.group_size": 1}, "methods.sdpo: train.group_size is 1, but sdpo compares"),
        ({"methods": ["opsd"], "train": {"group_size": 1, "dynamic_sampling": 2}}, "dynamic_sampling is 2, expected 0"),
        ({"methods": ["rlcsd"], "train.group_size": 1}, "methods.rlcsd: train.group_size is 1, but rlcsd compares"),
        ({"methods": {"rlcsd": {"wrong_hints": 0}}}, "methods.rlcsd.wrong_hints: got 0, expected integer >= 1"),
        ({"methods": {"opsa": {"strongest": -0.2}}}, "methods.opsa: strongest=-0.2 must not be above weakest=-0.5"),
        ({"methods": {"opsa": {"constant": 0.5}}}, "methods.opsa.constant: got 0.5, expected number >= -1000000000 and <="),
        ({"methods.opsd.b": 0}, "methods.opsd: gjsd needs 0 < b < 1, got 0"),
        ({"methods.sdpo.b": 1.0}, "methods.sdpo: gjsd needs 0 < b < 1, got 1"),
        ({"methods.grpo.algorithm": ["grpo"]}, "methods.grpo.algorithm: got ['grpo']"),
        ({"methods.grpo.algorithm": {"a": 1}}, "methods.grpo.algorithm: got {'a': 1}"),
        ({"methods.grpo.like": "../scales/cpu"}, "methods.grpo.like: there is no config/methods/../scales/cpu.yaml"),
        ({"methods.grpo.train": 5}, "methods.grpo.train: got 5, expected a mapping of settings"),
        ({"methods": ["grpo", "grpo"]}, "methods: grpo is listed twice"),
        ({"train.keep": 50}, "keep is 50, expected all, last or a multiple of checkpoint_every=40"),
        ({"train": {"lr": 5, "weight_decay": 0.3}, "tuned": None}, "weight_decay is 0.3, expected less than 1 / (lr x"),
        ({"train": {"prompts_per_step": 128, "updates_per_batch": 3}}, "prompts_per_step is 128, expected a multiple of"),
        ({"train": {"prompts_per_step": 5, "updates_per_batch": 2}}, "prompts_per_step is 5, expected a multiple of"),
        ({"train.max_response_tokens": 449}, "got 64 + 449, but the model has 512 positions"),
        ({"methods.grpo.train": {"max_prompt_tokens": 500}}, "got 500 + 64, but the model has 512 positions"),
        ({"data.evaluation.reverse": {"reverse": {"count": 3, "seed": 1}}}, "'reverse' is an evaluation set already"),
        ({"train.temperature": 1e-300}, "train.temperature: got 1e-300, expected number >= 0.01 and <= 100"),
        ({"train.lr": 1e-300}, "train.lr: got 1e-300, expected number >= 1e-12"),
        ({"train.lr": 1e30}, "train.lr: got 1e+30, expected number > 0 and <= 10"),
        ({"methods.grpo.tis_cap": 1e30}, "methods.grpo.tis_cap: got 1e+30, expected number > 0 and <= 1000000000"),
        ({"methods.sdpg-ufkl.alpha": 1.5}, "methods.sdpg-ufkl.alpha: got 1.5, expected number >= 0 and <= 1"),
        ({"methods.grpo.clip_low": 1}, "methods.grpo.clip_low: got 1, expected number >= 0 and < 1"),
        ({"train.reward": [0, 1e-9]}, "expected two different numbers"),
        ({"train.reward": [0, "1"]}, "train.reward.1: got '1', expected number"),
        ({"train.reward": [0, 1e300]}, "train.reward.1: got 1e+300, expected number >= -1000 and <= 1000"),
        ({"sweep": {"trials": {"grpo": []}}}, "sweep.trials.grpo: got [], expected list"),
        ({"name": "x" * 300}, "expected string of at most 100 characters"),
        ({"train..lr": 1}, "config key 'train.' is unknown"),
        ({"extends": "smoke"}, "config key 'extends' is unknown"),
    ],
)
def test_what_does_not_go_together(overrides, expected):
    assert expected in message("cpu", overrides)
    assert "config/scales/cpu.yaml" in message("cpu", overrides)


def test_a_method_without_groups_may_take_one_response():
    for method in ("opsd", "opcd", "sdft", "opsa"):
        assert resolve("cpu", {"methods": [method], "train.group_size": 1}).train.group_size == 1
    both = {"methods": {"opsd": {"train": {"group_size": 1}}}}
    assert run_config(resolve("cpu", both), "opsd", 0).train.group_size == 1
    assert all(isinstance(method.needs_group, bool) for method in baselines.REGISTRY.values())


def test_samples_alone_take_the_k_that_fit(scale_file):
    for samples, k in ((1, [1]), (4, [1, 4]), (7, [1, 4]), (8, [1, 4, 8]), (32, [1, 4, 8])):
        text = f"methods: {{grpo: }}\nevaluation: {{samples: {samples}}}"
        assert resolve(scale_file("methods: {grpo: }", text)).evaluation.pass_k == k
    assert resolve("cpu", {"evaluation.samples": 1}).evaluation.pass_k == [1]
    assert "pass_k: got 8, but evaluation.samples is 4" in message("cpu", {"evaluation.pass_k": [8]})


def test_a_models_own_positions_are_read(tmp_path, scale_file):
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "config.json"
    path = scale_file("some/dir", str(tmp_path / "model"))
    for text in ('{"max_position_embeddings": 47}', '{"n_positions": 47}', '{"text_config": {"max_position_embeddings": 47}}'):
        file.write_text(text)
        assert "got 32 + 16, but the model has 47 positions" in message(path)
    for text in (
        '{"max_position_embeddings": 48}',
        "{}",
        "[]",
        "not JSON",
        '{"max_position_embeddings": 40, "rope_scaling": {"factor": 2}}',
    ):
        file.write_text(text)
        assert resolve(path).train.max_prompt_tokens == 32


# --- methods whose own code refuses, or fails; tuned files -----------------------------------------------------------------


def test_a_method_whose_own_code_fails_is_named(monkeypatch):
    monkeypatch.setattr(baselines.REGISTRY["rlsd"], "needs", lambda self, k: {}[k])
    assert "methods.rlsd: baselines/rlsd.py raises KeyError: 1" in message("cpu", {"methods": ["rlsd"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("grpo: {kl_coef: 0.1}", "mine.yaml: got grpo, expected `methods`"),
        ("methods: [grpo]", "mine.yaml: got methods, expected `methods`"),
        ("methods: {grpo: 5}", "mine.yaml, methods.grpo: got 5, expected a mapping of settings"),
        ("methods: {grpo: {train: 5}}", "mine.yaml, methods.grpo: got {'train': 5}, expected a mapping of settings"),
        ("methods: {grop: {kl_coef: 0.1}}", "methods.grop: there is no such file in config/methods; did you mean 'grpo'"),
    ],
)
def test_a_tuned_file_that_is_none(tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(methods, "TUNED", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    assert expected in message("cpu", {"tuned": "mine"})


# --- overrides as text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [".inf", "1e30", "1" + "0" * 30, "2026-13-45", "1:30", "١", "[1", "{a: 1}", "&a [*a]", "!!int x", "null", '""']
)
@pytest.mark.parametrize("key", ["train.steps", "train.lr", "seeds", "methods.grpo.clip_high", "evaluation.samples", "train"])
def test_a_wrong_override_as_text_is_one_line(key, text):
    def said(of) -> str:
        with pytest.raises(ConfigError) as error:
            of()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert key.split(".")[-1] in said(lambda: resolve("smoke", parse_overrides([f"{key}={text}"])))
    assert key.split(".")[-1] in said(lambda: resolve("smoke", from_snakemake({"set": f"{key}='{text}'"})[1]))
    if "." not in key:
        assert key in said(lambda: resolve("smoke", from_snakemake({key: text})[1]))


def test_right_overrides_as_text():
    assert resolve("smoke", parse_overrides(["train.steps=1000.0", "seeds=[1.0]"])).train.steps == 1000
    assert resolve("smoke", from_snakemake({"set": "train.steps=1e3", "seeds": ["1.0"]})[1]).seeds == [1]
    for value in ("/tmp/😀.yaml", "a b", "ü", "[1", None, True, 1e-6, [1, {"a": "x"}]):
        assert parse_overrides([assignment("task.template", value)]) == {"task.template": value}


@pytest.mark.parametrize("text", ["a='", "train.steps", "=5"])
def test_a_broken_set_is_one_line(text):
    with pytest.raises(ConfigError, match="expected key=value"):
        from_snakemake({"set": text})

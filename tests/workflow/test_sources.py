"""Which files a stage depends on, as read from the source, and their fingerprints."""

from __future__ import annotations

import pytest

import baselines
from sdpg.artefacts import declared
from sdpg.config import resolve
from sdpg.config.methods import algorithm_files
from sdpg.experiment.workflow import STAGES, Scale, artefact_sources, evaluation_sources, training_sources
from sdpg.io import ROOT
from sdpg.provenance import sources
from sdpg.provenance.sources import PLUMBING, fingerprint, fingerprints, stage_sources
from sdpg.rollout.engines import engine_file, names
from sdpg.tasks.verifiers import verifier_file

VERIFIERS = {"verifiers/chain.py", "verifiers/reverse.py"}  # the task's, and that of the task that training leaves alone


def test_training_depends_on_the_core_on_its_engine_and_on_no_other_method():
    config = resolve("smoke")
    shared, own = training_sources(config, "grpo")
    assert {"sdpg/experiment/compose.py", "sdpg/core/trainer.py", "sdpg/tasks/__init__.py"} <= set(shared)
    assert not set(shared) & set(algorithm_files().values())
    assert not [file for file in shared if file.startswith(PLUMBING)]
    assert {engine_file(name) for name in names()} & set(shared) == {engine_file(config.train.engine)}
    assert verifier_file(config.task.verifier) in shared
    assert own[0] == "baselines/grpo.py"
    assert "baselines/opcd.py" not in own


def test_every_method_has_its_file():
    assert set(algorithm_files()) == set(baselines.REGISTRY)
    assert all((ROOT / file).is_file() for file in algorithm_files().values())


def test_imports_inside_functions_count_and_files_can_be_left_out():
    inside = "sdpg/evaluation/lm_eval_model.py"
    assert inside in stage_sources(STAGES["evaluate"])
    assert inside not in stage_sources(STAGES["evaluate"], without={inside})


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("data", {"sources/chain.py", "sources/reverse.py", *VERIFIERS}),
        ("base_model", {"sources/chain.py", "sources/reverse.py", *VERIFIERS, "engines/in_process.py"}),
        ("train", {*VERIFIERS, "engines/in_process.py"}),
        ("evaluate", {*VERIFIERS, "engines/vllm.py"}),
    ],
)
def test_a_stage_depends_on_the_sources_verifiers_and_engines_that_its_config_names(stage, expected):
    files = [param.removeprefix("code=").split()[0] for param in Scale("smoke", {}).code(stage)]
    found = {"/".join(file.split("/")[-2:]) for file in files if not file.endswith("__init__.py")}
    assert {file for file in found if file.startswith(("sources/", "verifiers/", "engines/"))} == expected


def test_lm_eval_adds_the_engine_that_it_needs():
    alone = resolve("smoke", {"evaluation": {"engine": "in-process", "lm_eval": None}})
    both = resolve("smoke", {"evaluation": {"engine": "in-process"}})
    assert engine_file("vllm") not in evaluation_sources(alone)
    assert {engine_file("vllm"), engine_file("in-process")} <= set(evaluation_sources(both))


def test_lm_eval_in_jobs_of_its_own_adds_nothing_to_the_sweep():
    common = {"engine": "in-process", "lm_eval": {"seeds": 1, "forgetting": "common-knowledge"}}
    apart, without = (resolve("smoke", {"evaluation": block}) for block in (common, common | {"lm_eval": None}))
    assert evaluation_sources(apart) == evaluation_sources(without)
    found = set(evaluation_sources(apart, "lm_eval"))
    assert {engine_file("vllm"), "sdpg/evaluation/tasks/common-knowledge.yaml"} <= found
    assert engine_file("in-process") not in found


@pytest.mark.parametrize("name", declared())
def test_an_artefact_depends_on_its_module_and_on_no_code_of_training(name):
    if name == "manifest":
        return  # it tells of all code
    found = artefact_sources(declared()[name])
    assert found[0] == declared()[name].file
    assert not [file for file in found if file.startswith(("sdpg/core", "sdpg/rollout", "baselines"))]


def fingerprint_of(folder, text: str, name: str = "x.py") -> str:
    (folder / name).write_text(text)
    fingerprint.cache_clear()
    sources._tree.cache_clear()
    return fingerprint(name)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    yield tmp_path
    for cache in (fingerprint, sources._tree, sources._imports):
        cache.cache_clear()


BEFORE = """def f(x, y=[]):
    return x + 1
"""


@pytest.mark.parametrize(
    "after",
    [
        "# A comment.\n" + BEFORE,
        '"""A docstring."""\n\n' + BEFORE,
        'def f(x, y=[]):\n    """Add one."""\n    return (x + 1)  # one\n',
        "def f(x,\n      y=[]):\n\n    return x+1",
    ],
)
def test_what_changes_no_result_changes_no_fingerprint(project, after):
    assert fingerprint_of(project, after) == fingerprint_of(project, BEFORE)


@pytest.mark.parametrize(
    "after",
    [
        BEFORE.replace("1", "2"),
        BEFORE.replace("1", "1.0"),
        BEFORE.replace("y=[]", "y=()"),
        BEFORE.replace("y=[]", "*, y=[]"),
        BEFORE.replace("+", "-"),
        BEFORE + "f(1)\n",
        BEFORE.replace("return x + 1", "'x'\n    return 'a docstring is a first string only'"),
    ],
)
def test_every_other_edit_changes_it(project, after):
    assert fingerprint_of(project, after) != fingerprint_of(project, BEFORE)


def test_files_that_are_not_python_count_byte_by_byte(project):
    first = fingerprint_of(project, "a: 1\n", "x.yaml")
    assert fingerprint_of(project, "a: 1  # said\n", "x.yaml") != first
    assert fingerprints(["x.yaml"]) == [f"x.yaml {fingerprint('x.yaml')}"]


def test_of_the_files_below_config_what_they_say_counts_and_not_how(project):
    (project / "config").mkdir()
    first = fingerprint_of(project, "a: &one\n  b: 1\nc: *one\n", "config/x.yaml")
    for same in ("# said\na: &one {b: 1}  # more\n\nc: *one\n", "a: {b: 1}\nc: {b: 1}\n"):
        assert fingerprint_of(project, same, "config/x.yaml") == first
    for other in ("a: {b: 1}\nc: {b: 2}\n", "a: {b: 1}\nc: {b: '1'}\n", "c: {b: 1}\na: {b: 1}\n", "a: [\n"):
        assert fingerprint_of(project, other, "config/x.yaml") != first


def test_a_broken_file_is_named(project):
    with pytest.raises(ValueError, match=r"x\.py, line 1: .*; correct it first"):
        fingerprint_of(project, "def f(:\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from sdpg.core import trainer", "sdpg/core/trainer.py"),
        ("import sdpg.core.trainer", "sdpg/core/trainer.py"),
        ("def f():\n    from sdpg.core.trainer import T", "sdpg/core/trainer.py"),
        ("from . import other", "sdpg/other.py"),
        ("from .core.trainer import T", "sdpg/core/trainer.py"),
        ("import torch, sdpg", "sdpg/__init__.py"),
    ],
)
def test_every_way_to_import_is_seen(tmp_path, monkeypatch, code, expected):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "sdpg" / "core").mkdir(parents=True)
    for file in ("sdpg/__init__.py", "sdpg/core/__init__.py", "sdpg/core/trainer.py", "sdpg/other.py"):
        (tmp_path / file).touch()
    (tmp_path / "sdpg" / "start.py").write_text(code)
    caches = (sources._tree, sources._imports)
    for cache in caches:
        cache.cache_clear()
    assert expected in stage_sources("sdpg/start.py")
    for cache in caches:
        cache.cache_clear()

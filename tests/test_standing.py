"""Is a reference stale? It is when what decides its numbers has changed, and not when anything else has."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from sdpg.artefacts import declared
from sdpg.config import base_config, outcome_part, resolve, run_config
from sdpg.experiment.workflow import Scale, artefact_sources, training_sources
from sdpg.io import ROOT
from sdpg.provenance import sources, verify
from sdpg.provenance.git import git_commit
from sdpg.provenance.made import Made, busy, made, read_made
from sdpg.provenance.sources import fingerprints
from sdpg.provenance.standing import Standing, references, standing

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MADE = Made(
    commits=[COMMIT],
    command="snakemake reproduce-all --config scale=smoke",
    overrides={},
    date="2026-01-02",
    minutes=2.5,
    processors=["A processor"],
    cores=2,
    runs=2,
    versions={"python": "3.11.7"},
    rules={},
)


def write_reference(folder: Path, method: str = "grpo") -> Path:
    """Write a reference of scale smoke as the present code and config would: two runs, their scores and claims, a figure."""
    scale = Scale("smoke", {})
    jobs, code, configs, files = {}, {}, {}, {}

    def job(name: str, stage: str, sources: list[str], config, outputs: list[str], inputs: list[str]) -> None:
        code[name], configs[name] = fingerprints(sources), json.loads(json.dumps(config))
        jobs[name] = {"stage": stage, "inputs": dict.fromkeys(inputs), "code": name, "config": name}
        files.update({output: {"size": 1, "sha256": "0" * 64, "job": name} for output in outputs})

    for name in scale.config.methods:
        shared, own = training_sources(scale.config, scale.algorithm(name))
        run = f"runs/{name}/seed0/metrics.jsonl"
        job(f"train/{name}-seed0", "train", shared + own, outcome_part(run_config(scale.config, name, 0).dump()), [run], [])
    runs = list(files)
    for name, outputs in {"scores": ["scores.csv"], "claims": ["claims.json"], "report": ["report.html"]}.items():
        item = declared()[name]
        job(name, name, artefact_sources(item), item.spec.uses(scale.config), outputs, runs)
    folder.mkdir(parents=True)
    header = {"scale": "smoke", "overrides": {}, "git_commit": COMMIT}
    manifest = header | {"files": files, "jobs": jobs, "code": code, "configs": configs}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "reference.json").write_text(json.dumps({"accuracy": "mean@4", "problems": {}, "made": MADE.model_dump()}))
    for name in ("scores.csv", "claims.json"):
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    return write_reference(tmp_path_factory.mktemp("reference") / "smoke")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's code in which files may be edited: what `standing` takes for the present code."""
    for name in ("sdpg", "baselines", "config", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    caches = (sources.fingerprint, sources._tree, sources._imports)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def with_base(reference: Path, folder: Path, **warm_start) -> Path:
    """Copy a reference, with the job of its base model; as an earlier version recorded both, with the limits of its checks."""
    shutil.copytree(reference, folder)
    manifest, scale = json.loads((folder / "manifest.json").read_text()), Scale("smoke", {})
    config = json.loads(json.dumps({"base": 0, **base_config(scale.config, 0)}))
    config["model"]["warm_start"] |= warm_start
    manifest["configs"]["base"], manifest["code"]["base"] = config, []
    manifest["jobs"]["base_model/base0"] = {"stage": "base_model", "inputs": {}, "code": "base", "config": "base"}
    manifest["files"]["model/base0.json"] = {"size": 1, "sha256": "0" * 64, "job": "base_model/base0"}
    for name, job in manifest["jobs"].items():
        if job["stage"] == "train":
            manifest["configs"][name]["model"] = config["model"]
            job["inputs"] = {"model/base0.json": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_other_limits_for_a_base_model_make_nothing_stale(reference, tmp_path):
    of = standing(with_base(reference, tmp_path / "smoke", teacher_min=0.95, student_range=[0.1, 0.2]))
    assert of.current and not of.details
    of = standing(with_base(reference, tmp_path / "other" / "smoke", teacher_min=0.95, hinted=0.9))
    assert of.since == "config of base model, train"
    assert {one.detail for one in of.details} == {"model.warm_start.hinted: was 0.9, is 0.3"}


@pytest.mark.parametrize(
    "key, value, again",
    [
        ("teacher_min", 0.95, False),
        ("student_range", [0.2, 0.3], False),
        ("hinted", 0.9, True),
        ("error_rate", 0.3, True),
        ("steps", 7, True),
    ],
)
def test_a_job_depends_on_what_makes_a_base_model_and_not_on_the_limits_of_its_checks(key, value, again):
    one, other = Scale("smoke", {}), Scale("smoke", {f"model.warm_start.{key}": value})
    for stage, job in (("base_model", {"base": "0"}), ("train", {"method": "grpo", "seed": "0"})):
        assert (one.part(stage)(job) != other.part(stage)(job)) is again


def test_a_reference_of_the_present_code_and_config_is_current(reference, project):
    of = standing(reference)
    assert of.current and not of.details
    assert of.line == "smoke: current: made at commit 012345678 on 2026-01-02, by the present code and config"


@pytest.mark.parametrize(
    "file, old, new, since",
    [
        ("baselines/grpo.py", "", "\nEDITED = True\n", "code of train (grpo)"),  # a loss
        ("sdpg/algorithms/sdpg.py", "", "\nEDITED = True\n", "code of train (sdpg-ufkl)"),
        ("sdpg/core/trainer.py", "", "\nEDITED = True\n", "code of train"),  # of every run
        ("config/claims.yaml", "alpha: 0.05", "alpha: 0.01", "code of claims"),  # the claims' rules
        ("sdpg/artefacts/claims/verdicts.py", "", "\nEDITED = True\n", "code of claims"),
        ("sdpg/analysis/collapse.py", "SHARE = 0.5", "SHARE = 0.4", "code of claims, scores"),
    ],
)
def test_an_edit_of_what_decides_its_numbers_makes_it_stale_and_is_named(reference, project, file, old, new, since):
    path = project / file
    text = path.read_text()
    path.write_text(text.replace(old, new, 1) if old else text + new)
    of = standing(reference)
    assert of.since == since
    assert of.line.startswith("smoke: stale: made at commit 012345678 on 2026-01-02; changed since: " + since)
    assert of.line.endswith("Make it again: make reproduce SCALE=smoke && make reference SCALE=smoke")


def test_an_edit_of_anything_else_does_not(reference, project):
    edits = {
        "baselines/grpo.py": "\n# an edited comment\n",
        "docs/metrics.md": "\nAn edited page.\n",
        "config/claims.yaml": "\n# an edited comment\n",
        "baselines/opsa.py": "\nEDITED = True\n",  # a method that the scale does not run
        "sdpg/experiment/planner.py": "\nEDITED = True\n",
        "sdpg/artefacts/report/__init__.py": "\nEDITED = True\n",  # no reference has the report
        "sdpg/__main__.py": "\nEDITED = True\n",
    }
    for file, edit in edits.items():
        with open(project / file, "a", encoding="utf-8") as text:
            text.write(edit)
    path = project / "sdpg" / "algorithms" / "sdpg.py"
    text = path.read_text()
    path.write_text(text.replace('"""', '"""Edited. ', 1))  # a docstring
    assert path.read_text() != text
    assert standing(reference).current


@pytest.mark.parametrize(
    "overrides, since",
    [
        ({"train.lr": 1e-5}, "config of train"),
        ({"methods.grpo": {"kl_coef": 0.5}}, "config of train (grpo)"),
        ({"evaluation.samples": 8}, "config of claims, scores"),
        ({"resources.threads": 2}, ""),  # changes no result
        ({"train.micro_batch_tokens": 512}, ""),
    ],
)
def test_a_change_of_the_scale_makes_it_stale_where_it_decides(reference, overrides, since):
    of = standing(reference, resolve("smoke", overrides))
    assert of.since == since and of.current == (not since)


def test_a_method_that_is_gone_and_a_scale_that_is_gone_are_said(reference, tmp_path):
    of = standing(reference, resolve("smoke", {"methods": ["grpo"]}))
    assert "train (sdpg-ufkl)" in of.since and any("sdpg-ufkl" in one.detail for one in of.details)
    shutil.copytree(reference, tmp_path / "smoke")
    path = tmp_path / "smoke" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": "no-such-scale"}))
    of = standing(tmp_path / "smoke")
    assert not of.current and "no-such-scale" in of.line and "\n" not in of.line


def test_a_reference_of_an_earlier_form_is_stale(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "smoke")
    (tmp_path / "smoke" / "reference.json").write_text('{"accuracy": "mean@4", "problems": {}}')
    assert read_made(tmp_path / "smoke") is None
    of = standing(tmp_path / "smoke")
    assert not of.current and of.line.startswith(
        "smoke: stale: made at commit 012345678; changed since: the form of a reference"
    )
    assert references(tmp_path) == [tmp_path / "smoke"]


def test_how_it_was_made_comes_from_manifest_runs_and_records(tmp_path):
    root = tmp_path / "results" / "mine"
    for seed, commit in enumerate((COMMIT, COMMIT, "f" * 40)):
        folder = root / "runs" / "grpo" / f"seed{seed}"
        folder.mkdir(parents=True)
        info = {"git_commit": commit, "versions": {"torch": "2.13.0"}, "hardware": {"processor": "A", "cores": 2, "gpu": None}}
        (folder / "run.json").write_text(json.dumps(info))
    database = tmp_path / "results" / ".snakemake.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE snakemake_metadata (target, log, rule, starttime, endtime, incomplete)")
        rows = [
            ("results/mine/runs/grpo/seed0/run.json", "grpo0", "mine_train_run", 1000.0, 1060.0, False),
            ("results/mine/runs/grpo/seed0/metrics.jsonl", "grpo0", "mine_train_run", 1000.0, 1059.9, False),  # the same job
            ("results/mine/runs/grpo/seed1/run.json", "grpo1", "mine_train_run", 1030.0, 1120.0, False),  # beside it
            ("results/mine/scores.csv", "scores", "mine_scores", 5000.0, 5030.0, False),  # after a pause
            ("results/mine/claims.md", "claims", "mine_claims", 9000.0, 9999.0, True),
            ("results/other/scores.csv", "scores", "scores", 0.5, 9e9, False),
        ]
        rows = [(target, f'["{log}"]', *rest) for target, log, *rest in rows]
        connection.executemany("INSERT INTO snakemake_metadata VALUES (?, ?, ?, ?, ?, ?)", rows)
    manifest = {"command": "snakemake reproduce-all", "overrides": {"seeds": [0]}, "git_commit": COMMIT}
    told = made(root, "mine", manifest, database)
    assert told.commits == [COMMIT, "f" * 40]
    assert (told.date, told.minutes, told.cores, told.processors, told.runs) == ("1970-01-01", 2.5, 2, ["A"], 3)
    assert told.rules["train_run"].model_dump() == {"count": 2, "median": 75.0, "seconds": 150.0}
    assert set(told.rules) == {"train_run", "scores"}
    copied = made(root, "mine", manifest, tmp_path / "none.db")
    assert (copied.minutes, copied.date, copied.rules, copied.commits) == (None, None, {}, told.commits)


def test_the_time_in_which_something_ran_has_no_pauses_and_counts_nothing_twice():
    assert busy([]) == 0
    assert busy([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4


def test_a_broken_record_is_one_line(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "smoke")
    content = json.loads((reference / "reference.json").read_text())
    content["made"]["cores"] = "many"
    (tmp_path / "smoke" / "reference.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"reference.json, made.cores: got 'many'"):
        read_made(tmp_path / "smoke")


@pytest.mark.parametrize("prefix", ["", "lm_"])
def test_the_rules_of_a_scale_keep_their_names_though_one_begins_with_the_scales(tmp_path, prefix):
    database = tmp_path / "results" / ".snakemake.db"
    database.parent.mkdir()
    rules = ["base_model", "evaluate_run", "lm_evaluate_base", "lm_evaluate_run"]
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE snakemake_metadata (target, log, rule, starttime, endtime, incomplete)")
        rows = [(f"results/lm/{rule}", f'["{rule}"]', prefix + rule, 1.0, 2.0, False) for rule in rules]
        connection.executemany("INSERT INTO snakemake_metadata VALUES (?, ?, ?, ?, ?, ?)", rows)
    told = made(tmp_path / "results" / "lm", "lm", {"command": "x", "overrides": {}, "git_commit": COMMIT}, database)
    assert sorted(told.rules) == rules and {of.count for of in told.rules.values()} == {1}


def test_what_makes_a_stale_reference_again_is_what_made_it(tmp_path):
    def line(scale, **made):
        return Standing(scale, [COMMIT], MADE.model_copy(update=made), {"code": ["train"]}, []).line

    assert line("cpu").endswith("Make it again: make reproduce SCALE=cpu && make reference SCALE=cpu")
    command = "snakemake reproduce-all --config scale=mine.yaml"
    assert line("mine", command=command).endswith(f"Make it again: {command}, then `sdpg reference` with the same --scale")
    assert command in line("cpu", command=command, overrides={"seeds": [0]})


def test_the_commit_is_one_whatever_tags_there_are(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    (tmp_path / "x").write_text("1")
    git("add", "x")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD").strip()
    git("tag", "-a", "v1.0", "-m", "v1.0")
    monkeypatch.setattr("sdpg.provenance.git.ROOT", tmp_path)
    assert git_commit() == head
    (tmp_path / "x").write_text("2")
    assert git_commit() == f"{head}-dirty"

"""A figure, table, summary, verifier, task source or engine is one new file: the examples of docs/adding.md, as written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow.conftest import ROOT, Project, copy_project

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^`(sdpg/\S+\.py)`:\n\n```python\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL))
SCALE = """
name: mine
extends: smoke
task: {verifier: last-character}
data:
  train: {chain: null, sums: {count: 64, seed: 1}}
  evaluation:
    sums: {sums: {digits: 4, count: 4, seed: 2}}
train: {engine: one-by-one, steps: 2}
evaluation: {engine: one-by-one, samples: 2, pass_k: [1], lm_eval: null}
methods: {sdpg-ufkl: {T_warm: 0, T_decay: 1}}
"""
MANIFEST = "manifest.json: every file's hash, and what made it"  # which lists all code, used or not
GENERATED = {"docs/artefacts.md", "config/schema.json"}


def contents(project: Project) -> dict[str, bytes]:
    """Return the content of every file of the project, but for results and what Python and Snakemake keep."""
    paths = [path for path in project.folder.rglob("*") if path.is_file()]
    named = {path.relative_to(project.folder).as_posix(): path for path in paths}
    kept = re.compile(r"(results/(?!published)|\.snakemake/)|.*__pycache__/")
    return {name: path.read_bytes() for name, path in named.items() if not kept.match(name)}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A copy of the project with the examples, in which everything of a scale that uses them has run."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    for name in ("docs", "results/reference"):  # adding to it makes no number of the pages another one
        shutil.copytree(ROOT / name, project.folder / name)
    shutil.copy(ROOT / "README.md", project.folder)
    project.before = contents(project)
    for file, code in EXAMPLES.items():
        assert not (project.folder / file).exists()
        (project.folder / file).write_text(code, encoding="utf-8")
    (project.folder / "mine.yaml").write_text(SCALE)
    project.plan = project.snakemake("-n", "reproduce-all", "--config", "scale=mine.yaml")
    project.snakemake("reproduce-all", "--config", "scale=mine.yaml")
    return project


@pytest.fixture(scope="module")
def results(project) -> Path:
    return project.folder / "results" / "mine"


def test_the_page_has_a_short_example_of_each():
    assert [str(Path(file).parent) for file in EXAMPLES] == [
        "sdpg/artefacts/figures",
        "sdpg/artefacts/tables",
        "sdpg/artefacts",
        "sdpg/tasks/verifiers",
        "sdpg/tasks/verifiers",
        "sdpg/tasks/sources",
        "sdpg/rollout/engines",
    ]
    assert all(len(list(filter(str.strip, code.splitlines()))) <= 20 for code in EXAMPLES.values())


@pytest.mark.parametrize(
    ("message", "files"),
    [
        ("figure rewards", ["figures/rewards.pdf", "figures/rewards.png", "figures/rewards.csv"]),
        ("table rewards", ["tables/rewards.md", "tables/rewards.tex", "tables/rewards.csv"]),
        ("rewards.csv", ["rewards.csv"]),
    ],
)
def test_an_artefact_is_planned_made_shown_and_recorded(project, results, message, files):
    assert f": [mine] {message}\n" in project.plan
    page, manifest = (results / "report.html").read_text(), json.loads((results / "manifest.json").read_text())
    for file in files:
        assert (results / file).stat().st_size > 0
        assert f'href="{file}"' in page
        assert file in manifest["files"]


def test_the_report_shows_figure_and_table(results):
    page = (results / "report.html").read_text()
    assert '<figure id="figure-rewards">' in page
    assert "<figcaption>The mean reward of the responses of each training step: a line for every run" in page
    assert '<section id="table-rewards"' in page
    assert '<p class="caption">Mean over the seeds of the mean reward of a step.</p>' in page


def test_verifier_source_and_engine_were_used(project, results):
    for method in ("sdpg-ufkl", "grpo"):
        record = json.loads((results / "runs" / method / "seed0" / "run.json").read_text())
        config = record["config"]
        assert config["task"]["verifier"] == "last-character"
        assert config["train"]["engine"] == "one-by-one"
        assert config["data"]["train"] == {"sums": {"digits": 3, "count": 64, "seed": 1}}
        code = {line.split()[0] for line in record["code"]}
        assert {"sdpg/rollout/engines/one_by_one.py", "sdpg/tasks/verifiers/last_character.py"} <= code
    problems = pd.read_parquet(results / "data" / "train.parquet")
    assert set(problems["source"]) == {"sums"}
    answers = problems.set_index("id")["answer"]
    assert answers.str.fullmatch(r"\d").all()
    known = pd.read_parquet(results / "data" / "eval" / "sums.parquet").set_index("id")["answer"]
    judged = pd.read_parquet(results / "eval" / "grpo" / "seed0" / "sums.parquet")
    right = judged["text"].str[-1:] == judged["problem_id"].map(known)
    assert (judged["correct"] == (right & (judged["finish_reason"] == "stop"))).all()


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("sdpg/tasks/sources/sums.py", "problems to train on"),
        ("sdpg/tasks/verifiers/last_character.py", "train grpo"),
        ("sdpg/rollout/engines/one_by_one.py", "train grpo"),
        ("sdpg/artefacts/tables/rewards.py", "table rewards"),
        ("sdpg/rollout/engines/vllm.py", None),
        ("sdpg/tasks/verifiers/same_value.py", None),
        ("sdpg/tasks/sources/reverse.py", None),
    ],
)
def test_an_edit_of_the_file_runs_again_what_used_it(project, file, first):
    with project.edited(file):
        planned = project.planned("reproduce-all", "--config", "scale=mine.yaml") - {MANIFEST}
    assert bool(planned) == (first is not None)
    assert not first or any(message.startswith(first) for message in planned)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("task={verifier: last-charakter}", "expected one of .*last-character"),
        ("train={engine: one-by-two}", "expected one of .*one-by-one"),
        ("evaluation={engine: one-by-two}", "expected one of .*one-by-one"),
        ("data={evaluation: {sums: {sumz: {count: 1, seed: 1}}}}", "nearest valid key: 'data.evaluation.sums.sums'"),
        ("data={train: {sums: {digit: 3}}}", "nearest valid key: 'data.train.sums.digits'"),
    ],
)
def test_a_misspelt_name_is_an_error_that_offers_the_new_one(project, setting, expected):
    output = project.snakemake("-n", "--config", "scale=mine.yaml", setting, ok=False)
    assert re.search(expected, output), output


def test_the_judging_process_runs_the_new_verifier(project):
    code = "from sdpg.tasks.verifiers import make_verifier; from sdpg.types import Problem; v = make_verifier('same-value')\n"
    code += "print([v(Problem('p', '', '1/2', '', ''), text).correct for text in ('so\\n2/4', '3', '((', '')])"
    assert project.python(code).strip() == "[True, False, False, False]"


def test_the_documentation_takes_them_up_and_no_other_file_changed(project):
    done = project.sdpg("docs")
    assert done.returncode == 0, done.stderr
    page = (project.folder / "docs" / "artefacts.md").read_text()
    for name in ("figures/rewards", "tables/rewards", "rewards"):
        assert f"| [`{name}`](../sdpg/artefacts/{name}.py) |" in page
    schema = (project.folder / "config" / "schema.json").read_text()
    assert all(f'"{name}"' in schema for name in ("last-character", "same-value", "sums", "one-by-one"))
    after = contents(project)
    changed = {name for name in project.before if after.get(name) != project.before[name]}
    assert changed == GENERATED
    assert after.keys() - project.before.keys() == {*EXAMPLES, "mine.yaml"}

"""Licence, citation, image, issue forms and the workflows of hosts: they agree with each other and with what is here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=ROOT / ".venv-docs" / "bin")


def targets(text: str) -> set[str]:
    return set(re.findall(r"^\s*make ([a-z-]+)", text, flags=re.MULTILINE))


def test_the_licence_is_the_whole_apache_licence_and_all_say_so():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.findall(r"^   (\d)\. [A-Z]", text, flags=re.MULTILINE) == [str(n) for n in range(1, 10)]
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text and "APPENDIX" in text
    assert PROJECT["project"]["license"] == CITATION["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]


def test_the_citation_names_this_version_and_the_paper():
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)  # what the format requires
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert str(CITATION["version"]) == PROJECT["project"]["version"]
    (paper,) = CITATION["references"]
    assert {"authors", "title", "type"} <= set(paper)
    identifier = paper["identifiers"][0]["value"].removeprefix("arXiv:")
    assert paper["url"].endswith(f"/{identifier}")
    published = (ROOT / "results" / "published" / "README.md").read_text(encoding="utf-8")
    assert identifier in published
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert ", ".join(names) in " ".join(published.split())


def test_the_image_copies_what_is_there_and_what_its_environment_needs():
    assert re.search(r"^FROM \S+:\S+", DOCKERFILE, flags=re.MULTILINE)
    before, setup, after = DOCKERFILE.partition("RUN make setup")
    assert setup and "COPY . ." in after
    copied = [line.split()[1:-1] for line in before.splitlines() if line.startswith("COPY ")]
    copied = {name for names in copied for name in names}
    assert all((ROOT / name).exists() for name in copied)
    needed = {"Makefile", "pyproject.toml", "requirements", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    needed |= {f"{package}/__init__.py" for package in PROJECT["tool"]["setuptools"]["packages"]}
    assert copied == needed
    command = json.loads(DOCKERFILE.rpartition("CMD ")[2])
    assert command == ["make", "reproduce"]
    assert 11 <= int(re.search(r"ARG PYTHON=3\.(\d+)", DOCKERFILE)[1]) < 14


@pytest.mark.parametrize(("flavour", "compilers"), [("cpu", set()), ("cuda", {"gcc", "g++", "libc6-dev"})])
def test_the_image_for_gpus_has_what_triton_compiles_with(tmp_path, flavour, compilers):
    """The instruction is run, with stand-ins for the commands that change a system."""
    steps = DOCKERFILE.replace("\\\n", " ").splitlines()
    (install,) = [step.removeprefix("RUN ") for step in steps if step.startswith("RUN apt-get")]
    assert steps.index("ARG FLAVOUR=cpu") < steps.index("RUN " + install)  # else it is empty there
    for name in ("apt-get", "rm"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls.txt\n')
        (tmp_path / name).chmod(0o755)
    subprocess.run(["/bin/sh", "-c", install], env={"PATH": str(tmp_path), "FLAVOUR": flavour}, check=True)
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    installed = {word for call in calls for word in call.partition(" install ")[2].split() if not word.startswith("--")}
    assert installed == {"git", "make"} | compilers
    assert calls[-1].startswith("rm ")


@pytest.mark.skipif(not HADOLINT, reason="no hadolint (`make docs` installs one)")
def test_the_dockerfile_has_no_finding_of_its_linter():
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_the_image_is_built_where_docker_runs(tmp_path):
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker daemon on this machine")
    name = f"sdpg-test-{tmp_path.name}"
    subprocess.run(["docker", "build", "--tag", name, ROOT], check=True)
    try:
        command = ["docker", "run", "--rm", name, "sdpg", "explain", "train.lr", "--scale", "smoke"]
        assert "train.lr" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=False, capture_output=True)


def test_the_hosts_workflow_runs_what_ci_runs_and_keeps_the_site():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert job["steps"][-1]["with"]["path"] == "site"
    assert "REPOSITORY_URL" in job["env"] and "!ENV [REPOSITORY_URL" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
    assert (3, 11) <= tuple(map(int, python.split("."))) < (3, 14)
    assert targets((ROOT / ".ci" / "run").read_text(encoding="utf-8")) == {"docs", "test", "lint"}


def test_make_targets_that_pages_name_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for name in ("CONTRIBUTING.md", "docs/index.md", "docs/scales.md", "docs/faq.md", ".ci/run", "Dockerfile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = targets(text) | set(re.findall(r"`make ([a-z-]+)", text))
        assert named <= there, f"{name}: {named - there}"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_the_format_asks_for(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "body", "labels", "title", "assignees"}
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert fields and len({field["id"] for field in fields}) == len(fields)
    for part in form["body"]:
        assert part["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert ("value" if part["type"] == "markdown" else "label") in part["attributes"]
    assert any(field.get("validations", {}).get("required") for field in fields)
    for page in re.findall(r"docs/[\w-]+\.md|sdpg/[\w/]+\.py", path.read_text(encoding="utf-8")):
        assert (ROOT / page).is_file()


def test_there_are_forms_for_a_bug_a_method_and_a_reproduction():
    assert [path.stem for path in FORMS] == ["bug", "method", "reproduction"]


def test_the_catalogue_file_has_the_documented_keys():
    (usage,) = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8")).values()
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda", "report"}
    assert all(isinstance(value, bool) for value in deployment.values())
    rules = [path.read_text(encoding="utf-8") for path in [ROOT / "Snakefile", *(ROOT / "workflows").rglob("*.smk")]]
    assert deployment["conda"] == any(re.search(r"^\s+conda:", text, flags=re.MULTILINE) for text in rules)
    assert deployment["report"] == any(text.startswith("report:") or "\nreport:" in text for text in rules)


def test_the_readme_of_the_config_names_all_of_it_and_its_links_lead_somewhere():
    folder = ROOT / "config"
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert all((folder / link).exists() for link in links)
    assert {path.name for path in folder.iterdir() if path.name != "README.md"} <= set(links)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!https?:)[^)#]+)", (ROOT / "CONTRIBUTING.md").read_text()))))
def test_every_link_of_contributing_leads_somewhere(link):
    assert (ROOT / link).exists()

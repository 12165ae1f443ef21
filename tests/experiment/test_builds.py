"""vLLM's CUDA build where no GPU is used: refused before anything runs. The build is faked; this environment has the other."""

import subprocess
import sys

import pytest

from sdpg.config import resolve
from sdpg.experiment import builds, evaluate, launch
from sdpg.experiment.workflow import Scale
from sdpg.io import ROOT


@pytest.fixture
def cuda_build(monkeypatch):
    monkeypatch.setattr(builds, "is_cpu_build", lambda: False)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize(
    ("scale", "overrides", "used", "instead"),
    [
        ("smoke", {}, "evaluation.engine, evaluation.lm_eval use it", "evaluation.engine=in-process evaluation.lm_eval=null"),
        ("smoke", {"evaluation.lm_eval": None}, "evaluation.engine uses it", "evaluation.engine=in-process"),
        ("cpu", {}, "evaluation.lm_eval uses it", "evaluation.lm_eval=null"),  # lm-eval alone goes through vLLM
        (
            "paper-qwen3-1.7b",
            {"resources.gpus": 0, "evaluation.engine": "in-process", "evaluation.lm_eval": None, "train.engine": "in-process"},
            "data.solutions.local.engine uses it",
            "data.solutions.local.engine=in-process",
        ),
    ],
)
def test_it_is_refused_with_the_settings_to_change(cuda_build, scale, overrides, used, instead):
    with pytest.raises(ValueError) as error:
        builds.check_build(resolve(scale, overrides))
    said = str(error.value)
    assert said.startswith("resources.gpus=0, but the vLLM that is installed is the CUDA build, which needs a GPU, and " + used)
    assert f"set resources.gpus=1, or {instead}, or install" in said and "\n" not in said


@pytest.mark.parametrize(
    ("scale", "overrides"),
    [
        ("smoke", {"resources.gpus": 1}),
        ("smoke", {"evaluation.engine": "in-process", "evaluation.lm_eval": None}),
        ("cpu-sweep", {}),  # evaluates nothing
        ("gsm8k", {}),
    ],
)
def test_a_scale_with_a_gpu_or_without_vllm_is_not(cuda_build, scale, overrides):
    builds.check_build(resolve(scale, overrides))


def test_neither_is_the_cpu_build_nor_where_there_is_none(monkeypatch):
    def absent():
        raise RuntimeError("vLLM is not installed")

    for build in (lambda: True, absent):
        monkeypatch.setattr(builds, "is_cpu_build", build)
        builds.check_build(resolve("smoke"))


def test_planning_training_and_evaluating_ask(cuda_build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "_listen", lambda: None)
    config = resolve("smoke")
    for begin in (
        Scale("smoke", {}).check,
        lambda: launch.train(config, "grpo", 0, 1, []),
        lambda: evaluate.evaluate(config, "grpo", 0, 1, lm_eval=False, words=[]),
    ):
        with pytest.raises(ValueError, match="is the CUDA build, which needs a GPU"):
            begin()
    assert not list(tmp_path.iterdir())


def test_it_is_one_line_of_the_command(tmp_path):
    """With a package `vllm` on the path, as the CUDA build has it."""
    folder = tmp_path / "vllm-0.32.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    body = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; from sdpg.__main__ import main; main()"
    command = [sys.executable, "-c", body, "train", "--scale", "smoke", "--method", "grpo", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: resources.gpus=0, but the vLLM that is installed is the CUDA build")

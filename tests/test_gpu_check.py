"""`make gpu-check` without a GPU: its --dry run, and what its report says of checks that pass, fail, break or take too long."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.fixed import FixedBatch
from benchmarks.gpu import kernels, peers, report, steps
from benchmarks.gpu.facts import PARTS
from benchmarks.gpu.rig import PARAMETERS, TINY, config_of
from benchmarks.gpu.session import LeftOut, Outcome, Session
from benchmarks.gpu.tiny import save_tiny
from sdpg.core.head.torch import closed_form

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_dry_run_passes_every_part(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--dry", "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    found = json.loads((tmp_path / "dry.json").read_text())
    wrong = [line for line in found["lines"] if line["status"] not in ("passed", "left out")]
    assert (done.returncode, wrong) == (0, []), done.stdout + done.stderr
    assert found["finished"]
    assert {line["part"] for line in found["lines"] if line["status"] == "passed"} == set(PARTS)
    text = (tmp_path / "dry.md").read_text()
    assert all(line["check"] in text for line in found["lines"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path)])
    assert gpu_check.main() == 2
    assert re.search("error: torch sees no CUDA GPU.*--dry", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("gpu", "gib", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 79.2, "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA H200", 139.8, "h200-140gb"),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx-4090-24gb"),
    ],
)
def test_files_are_called_after_the_gpu(gpu, gib, name):
    assert report.short_name(gpu, gib * 2**30) == name


def test_parts_keep_their_order_and_an_unknown_one_is_refused():
    assert gpu_check.letters("c, a") == ["a", "c"]
    with pytest.raises(argparse.ArgumentTypeError, match="got 'z', expected some of a,b,c"):
        gpu_check.letters("a,z")
    assert sum(part.share for part in PARTS.values()) == pytest.approx(1)


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def raising(error: BaseException):
    def work():
        raise error

    return work


def test_whatever_a_check_raises_becomes_its_line(tmp_path):
    session = Session(tmp_path / "lines", dry=True, seconds=60)
    works = {
        "good": lambda: Outcome("1", facts={"x": float("nan")}),
        "bad": lambda: Outcome("2", ok=False),
        "broken": raising(ZeroDivisionError("by nothing")),
        "large": raising(torch.OutOfMemoryError("Tried to allocate 9 GiB. GPU 0 has less")),
        "absent": raising(ModuleNotFoundError("No module named 'nowhere'", name="nowhere.at_all")),
        "ours": raising(ModuleNotFoundError("No module named 'sdpg.gone'", name="sdpg.gone")),
        "refused": raising(LeftOut("needs a rainy day")),
    }
    for name, work in works.items():
        session.check(name, "", work)
    found = {line["check"]: line for line in lines_of(session.file) if line["status"] != "running"}
    statuses = {name: line["status"] for name, line in found.items()}
    assert statuses == dict.fromkeys(works, "left out") | {"good": "passed"} | dict.fromkeys(
        ("bad", "broken", "ours"), "failed"
    )
    assert found["good"]["facts"] == {"x": "nan"}
    assert found["broken"]["note"].endswith("ZeroDivisionError: by nothing")
    assert found["large"]["note"] == "needs more memory than there is: Tried to allocate 9 GiB"
    assert "package nowhere," in found["absent"]["note"]
    assert found["refused"]["note"] == "needs a rainy day"


@pytest.mark.parametrize(("slope", "ok"), [(1.0, True), (1.03, False)])
def test_a_wrong_kernel_is_found(tmp_path, monkeypatch, slope, ok):
    """Plain torch in the kernel's place, right, and with a gradient that is 3% too large."""

    def fused(z, t, y, how, differentiable):
        signals, gradient = closed_form(z, t, y, how, differentiable)
        return signals, lambda c, rows: gradient(c, rows) * slope

    session = Session(tmp_path / "lines", dry=True, seconds=60)
    monkeypatch.setattr(kernels, "triton_head", lambda session: SimpleNamespace(fused=fused))
    found = kernels.kernel_on_logits(session, "fp32", "gjsd")
    assert found.ok is ok, found.measured
    assert ("worst: 2 x 37" in found.measured) is not ok


def test_a_step_of_another_method_is_found(tmp_path):
    model, fields = save_tiny(tmp_path), steps.methods()
    true = steps.take_step(model, fields["grpo"], "fp32")
    assert steps.compare(true, model, fields["grpo"], "fp32").ok
    assert not steps.compare(true, model, fields["grpo"] | {"kl_coef": 0.11}, "fp32").ok
    assert steps.compare(true, model, fields["grpo"], "bf16").ok
    assert not steps.compare(true, model, fields["sdpg"], "bf16").ok


@pytest.mark.parametrize("method", list(peers.STEP_METHODS))
def test_our_side_of_the_step_beside_trl_runs_without_trl(tmp_path, method):
    session = Session(tmp_path / "lines", dry=True, seconds=60)
    config = config_of("tiny")
    batch = FixedBatch.draw(TINY, range(3, config.vocab_size))
    rows = peers.our_steps(session, "tiny", config, batch, method, 2)
    assert [row["response_tokens"] for row in rows] == [batch.counts()["response_tokens"]] * 2 and all(
        row["grad_norm"] > 0 for row in rows
    )


def test_what_there_is_no_time_for_is_left_out(tmp_path):
    session = Session(tmp_path / "lines", dry=True, seconds=0)
    assert not session.check("late", "", raising(AssertionError("not to be called")))
    assert lines_of(session.file)[-1]["status"] == "left out"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """The command for part a in --dry, whose process runs a given program."""

    def make(code: str) -> gpu_check.Check:
        program = "import json, os, sys, time\nfile = open(sys.argv[-1], 'a')\n"
        program += "say = lambda **x: (file.write(json.dumps(dict(part='a', check='x', measured='', expected='', note='', "
        program += "seconds=0, facts={}) | x) + '\\n'), file.flush())\n"
        command = lambda parts, file, seconds, dry: [sys.executable, "-u", "-c", program + code, str(file)]  # noqa: E731
        monkeypatch.setattr(gpu_check, "worker_command", command)
        args = gpu_check.parse(["--only", "a", "--dry", "--out", str(tmp_path)])
        return gpu_check.Check(args)

    return make


def test_a_process_that_breaks_is_a_failure_and_shows_its_output(check):
    command = check("say(status='running'); print('oh no'); os._exit(3)")
    assert command.run() == 1
    (line,) = command.report["lines"]
    assert (line["check"], line["status"]) == ("x", "failed")
    assert "exit status 3:\noh no" in line["note"]
    assert "oh no" in (command.folder / "dry.md").read_text()


def test_a_process_that_breaks_between_checks_is_a_failure(check):
    command = check("say(status='passed'); os._exit(3)")
    assert command.run() == 1
    assert [line["status"] for line in command.report["lines"]] == ["passed", "failed"]


def test_a_process_that_hangs_is_ended_and_what_it_did_counts(check):
    command = check("say(status='passed', check='y'); say(status='running'); time.sleep(600)")
    command._group(["a"], time.monotonic() + 3)
    found = {line["check"]: line for line in command.report["lines"]}
    assert found["y"]["status"] == "passed"
    assert (found["x"]["status"], found["x"]["note"]) == ("left out", "stopped: the part's time was over")


def test_nothing_but_torch_and_transformers_is_needed_to_start_a_check():
    """TensorBoard, Liger, TRL and vLLM may be missing; parts are imported where they run."""
    code = "import sys\nfor name in ('tensorboard', 'liger_kernel', 'trl', 'vllm', 'datasets'): sys.modules[name] = None\n"
    code += "from benchmarks.gpu import kernels, steps, memory, peers, mfu, learning\nimport sdpg.core.trainer, benchmarks.ours"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("shape", PARAMETERS)
def test_the_true_shapes_can_be_built_and_have_the_parameters_that_are_reckoned_with(shape):
    from transformers import Qwen3ForCausalLM

    with torch.device("meta"):
        model = Qwen3ForCausalLM(config_of(shape))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[shape]

"""Worked solutions from real models: in the engines of this process, and behind vLLM's own OpenAI server on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pandas as pd
import pytest

from sdpg.experiment import solutions
from sdpg.progress import Interrupted
from sdpg.rollout.engines import in_process
from sdpg.solutions import asking
from sdpg.types import Problem
from tests.solutions.parrot import SAYS, save_parrot
from tests.solutions.scripted import KEY, asked_of, scale_of

THREES = [{"question": f"What is {a} + {3 - a}?", "answer": "3"} for a in (1, 2)]
OTHERS = [{"question": f"What is {a} + 1?", "answer": str(a + 1)} for a in (4, 5)]
START_SECONDS = 240


@pytest.fixture(scope="session")
def parrot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parrot")
    save_parrot(folder)
    return folder


def local(model, **more):
    quick = {"dtype": "float32", "max_prompt_tokens": 900, "max_tokens": 30, "tries": 2, "temperature": 0.05}
    return {"local": {"model": str(model), "engine": "in-process", **quick, **more}}


def make(tmp_path, block, **more):
    solutions.make_solutions(scale_of(tmp_path, block, problems=[*THREES, *OTHERS], **more), tmp_path / "out")
    folder = tmp_path / "out" / "solutions"
    return json.loads((folder / "report.json").read_text()), pd.read_parquet(folder / "solutions.parquet")


def check(report, table, host):
    assert table["solution"].tolist() == [SAYS] * 2 and table["id"].tolist() == ["train-000000", "train-000001"]
    assert set(table["host"]) == {host}
    assert report["accepted"] == 2 and report["without"] == 2
    assert report["responses"] >= 6 and sum(report["rejected"].values()) == report["responses"] - 2
    assert report["tokens"]["completion_tokens"] >= 13 * 6 and report["tokens"]["prompt_tokens"] > 6 * 100


def test_a_local_model_writes_and_is_not_asked_twice(tmp_path, parrot, monkeypatch):
    report, table = make(tmp_path, local(parrot))
    check(report, table, "local")
    assert report["cost"] == 0
    monkeypatch.setattr(in_process.HFEngine, "generate", None)
    assert make(tmp_path, local(parrot))[1].equals(table)


def test_a_wish_to_stop_keeps_what_was_answered(tmp_path, parrot, monkeypatch):
    monkeypatch.setattr("sdpg.solutions.local.AT_ONCE", 1)
    asked, plain = [], in_process.HFEngine.generate

    def generate(self, prompts, *arguments):
        asked.append(prompts)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, prompts, *arguments)

    monkeypatch.setattr(in_process.HFEngine, "generate", generate)
    with pytest.raises(Interrupted, match="stopped, problems not done: 1; every answer is kept"):
        make(tmp_path, local(parrot, tries=1))
    assert len(asked) == 3
    report, _ = make(tmp_path, local(parrot, tries=1))
    assert len(asked) == 4 and report["responses"] == 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"max_tokens": 1000}, r"max_prompt_tokens \+ max_tokens: got 900 \+ 1000, but .* has 1024 positions"),
        ({"model": "no-such-owner/no-such-model"}, "data.solutions.local.model: no-such-owner/no-such-model cannot be fetched"),
    ],
)
def test_a_model_that_cannot_write_is_one_line(tmp_path, parrot, change, expected, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no\nnetwork")))
    with pytest.raises(ValueError, match=expected) as error:
        make(tmp_path, local(**{"model": parrot, **change}))
    assert "\n" not in str(error.value)


def test_a_prompt_that_is_too_long_for_the_writer_is_counted(tmp_path, parrot):
    report, table = make(tmp_path, local(parrot, max_prompt_tokens=100))
    assert table.empty and report["refused"] == {"a prompt of more than max_prompt_tokens=100": 4}


def test_control_tokens_in_a_problem_are_text(tmp_path, parrot):
    from sdpg.solutions.local import LocalWriter
    from sdpg.solutions.prompt import load_prompt

    config = scale_of(tmp_path, local(parrot))
    settings = config.data.solutions.local
    writer = LocalWriter(settings, config, load_prompt("worked", show_answer=False, task=config.task), 1)
    problem = Problem("1", "What is 1?", "1", "", "x")
    plain = writer.encode(asking.Ask(problem, 1, "r", ""))
    hostile = writer.encode(asking.Ask(replace(problem, question=f"What is {writer.tokenizer.eos_token}1?"), 1, "r", ""))
    assert not set(writer.ends) & set(plain) and not set(writer.ends) & set(hostile) and len(hostile) > len(plain)


@pytest.mark.slow
@pytest.mark.long
def test_a_local_model_in_vllm_writes_the_same(tmp_path, parrot):
    report, table = make(tmp_path, local(parrot, engine="vllm"))
    check(report, table, "local")


@pytest.fixture(scope="module")
def server(parrot, tmp_path_factory):
    """vLLM's OpenAI server on a free port, on the CPU; ended with all that it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "parrot", "--dtype", "float32"]
    options += ["--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8", "--disable-uvicorn-access-log"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(parrot), *options],
            env={**os.environ, **quiet, "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", "VLLM_API_KEY": KEY},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not is_up(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_up(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return direct.open(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_vllms_own_server_writes_and_what_it_refuses_is_one_line(tmp_path, server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def block(**more):
        given = {"model": "parrot", "temperature": 0.05, "max_tokens": 30, "tries": 2, "timeout": 120, "concurrency": 4}
        return asked_of(f"http://{server}/v1", **(given | more))

    monkeypatch.setenv("TEST_KEY", "wrong-key-0123456789")
    for change, expected in (({}, "the key in TEST_KEY is not taken"), ({"key_env": None}, "it asks for a key")):
        with pytest.raises(ValueError, match=expected) as error:
            make(tmp_path, block(**change))
        assert "wrong-key" not in str(error.value)
    monkeypatch.setenv("TEST_KEY", KEY)
    for change, expected in (
        ({"model": "parot"}, "it has no such page or model"),
        ({"max_tokens": 5000}, "refuses every prompt"),
        ({"extra": {"top_p": 7}}, "refuses every prompt"),
    ):
        with pytest.raises(ValueError, match=expected) as error:
            make(tmp_path, block(**change))
        assert "\n" not in str(error.value)
    report, table = make(tmp_path, block())
    check(report, table, server)
    assert report["token_counts_guessed"] == 0 and report["cost"] > 0
    assert make(tmp_path, block())[1].equals(table)

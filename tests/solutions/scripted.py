"""An endpoint that does what a test says, and scales whose solutions it writes."""

from __future__ import annotations

import json
import re
import string
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen3Config

from sdpg.config import resolve
from sdpg.experiment import solutions
from sdpg.tasks.tokenizer import character_tokenizer

KEY = "sk-very-secret-0123456789"


class Reply:
    """What the endpoint answers. drop: close the connection instead; after: seconds to wait first; drip: seconds for a byte."""

    drip = 0.0

    def __init__(
        self, content: Any = b"", status: int = 200, *, headers: dict | None = None, drop: bool = False, after: float = 0
    ):
        self.body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.status, self.headers, self.drop, self.after = status, headers or {}, drop, after


def says(text: str | None, *, finish: str = "stop", usage: Any = (50, 20), model: str = "served-1", after: float = 0) -> Reply:
    """Return a chat completion."""
    value = {"model": model, "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
    if usage is not None:
        value["usage"] = (
            dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) if isinstance(usage, tuple) else usage
        )
    return Reply(value, after=after)


def fault(status: int, message: str = "no", code: str = "", **headers: str) -> Reply:
    """Return an error in the form of such endpoints."""
    return Reply(
        {"error": {"message": message, "code": code}}, status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def solved(question: str) -> Reply:
    """Return a right solution of `What is A + B?`."""
    a, b = map(int, re.search(r"(\d+) \+ (\d+)", question).groups())
    return says(f"Add {a} and {b}.\n\\boxed{{{a + b}}}")


class Endpoint:
    """A running one. script(number of the request from 0, question) -> Reply. asked: the questions; bodies, headers, times: of
    each request; most: requests at the same time.
    """

    def __init__(self, script: Callable[[int, str], Reply]):
        self.script, self.lock = script, threading.Lock()
        self.asked: list[str] = []
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.now = self.most = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        question = re.search(r"What is .*?\?", body["messages"][0]["content"])[0]
        with self.lock:
            number = len(self.asked)
            self.asked.append(question)
            self.bodies.append(body)
            self.headers.append({k.lower(): v for k, v in handler.headers.items()})
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        assert handler.path == "/v1/chat/completions"
        reply = self.script(number, question)
        time.sleep(reply.after)
        with self.lock:
            self.now -= 1
        try:
            if reply.drop:
                handler.connection.shutdown(2)
                return
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(reply.body)))
            handler.end_headers()
            for i in range(len(reply.body) if reply.drip else 0):
                handler.wfile.write(reply.body[i : i + 1])
                time.sleep(reply.drip)
            handler.wfile.write(b"" if reply.drip else reply.body)
        except OSError:  # the other side is gone
            pass


@contextmanager
def endpoint(script: Callable[[int, str], Reply] = lambda number, question: solved(question)) -> Iterator[Endpoint]:
    """Yield a running endpoint."""
    running = Endpoint(script)
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()


def rows(count: int) -> list[dict[str, str]]:
    """Return problems."""
    return [{"question": f"What is {i + 2} + {2 * i + 1}?", "answer": str(3 * i + 3)} for i in range(count)]


def write_scale(folder: Path, solutions: dict, *, problems: list[dict] | int = 4, **more: Any) -> Path:
    """Write a scale of these problems, its model's tokenizer and its solutions' block -> its file."""
    model = folder / "model"
    if not model.is_dir():
        tokenizer = character_tokenizer(string.printable)
        tokenizer.model_max_length = 8192
        tokenizer.save_pretrained(model)
        Qwen3Config(max_position_embeddings=8192).save_pretrained(model)
        save_file({"weight": torch.zeros(1)}, model / "model.safetensors")
    problems = rows(problems) if isinstance(problems, int) else problems
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    (folder / "test.jsonl").write_text(json.dumps({"question": "What is the time?", "answer": "5"}) + "\n")
    scale = {
        "name": "mine",
        "model": str(model),
        "task": {"template": "boxed", "verifier": "math-verify"},
        "data": {
            "train": {"path": str(folder / "train.jsonl")},
            "evaluation": {"test": {"path": str(folder / "test.jsonl")}},
            "solutions": solutions,
            "missing_solutions": "drop",
        },
        "train": {"steps": 2, "max_prompt_tokens": 2000, "max_response_tokens": 100},
        "evaluation": {"lm_eval": None},
        "methods": {"sdpg-ufkl": {}},
    }
    for key, value in more.items():
        scale[key] = {**scale[key], **value} if isinstance(value, dict) else value
    path = folder / "mine.yaml"
    path.write_text(json.dumps(scale))
    return path


def asked_of(server: Endpoint | str, **more: Any) -> dict:
    """Return a block `solutions` that asks an endpoint, quickly."""
    url = server if isinstance(server, str) else server.url
    quick = {"requests_per_minute": 100_000, "concurrency": 1, "timeout": 5, "max_tokens": 100, "tries": 3}
    prices = {"input_price": 1, "output_price": 2, "max_cost": 10}
    return {"endpoint": {"base_url": url, "model": "m-1", "key_env": "TEST_KEY", **prices, **quick, **more}}


def scale_of(folder: Path, solutions: dict, **more: Any):
    """Return the same as a resolved config."""
    return resolve(write_scale(folder, solutions, **more))


def make(tmp_path, block, **more):
    """Run the rule -> (what it prints, report, table)."""
    said = solutions.make_solutions(scale_of(tmp_path, block, **more), tmp_path / "out")
    folder = tmp_path / "out" / "solutions"
    return said, json.loads((folder / "report.json").read_text()), pd.read_parquet(folder / "solutions.parquet")


def refusal(tmp_path, block, **more) -> str:
    with pytest.raises(ValueError) as error:
        make(tmp_path, block, **more)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value) and KEY[-4:] not in str(error.value)
    return str(error.value)

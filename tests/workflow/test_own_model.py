"""A user's own model and data need only a scale file: both made here, then trained and evaluated by the scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from tests.bpe import bpe_tokenizer

ROOT = Path(__file__).parents[2]


def make_model(folder: Path, texts: list[str]) -> None:
    """A random Llama with a byte-level BPE tokenizer: neither the architecture nor the tokenizer of the project's own model."""
    tokenizer = bpe_tokenizer(texts, size=320)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def script(name: str, scale: Path, folder: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sdpg", name, "--scale", str(scale), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture
def scale(tmp_path):
    questions = [f"What is {a} + {b}?" for a in range(5) for b in range(5)]
    make_model(tmp_path / "model", questions)
    rows = [{"problem": q, "final": str(i % 5), "why": f"Count: {i % 5}."} for i, q in enumerate(questions)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:20]))
    pd.DataFrame([{"question": r["problem"], "answer": r["final"]} for r in rows[20:]]).to_parquet(tmp_path / "test.parquet")
    config = {
        "name": "mine",
        "seeds": [0],
        "model": str(tmp_path / "model"),
        "task": {"template": "plain", "verifier": "exact", "stop": ["\n"]},
        "data": {
            "train": {
                "path": str(tmp_path / "train.jsonl"),
                "columns": {"question": "problem", "answer": "final", "solution": "why"},
            },
            "evaluation": {"test": {"path": str(tmp_path / "test.parquet")}},
        },
        "train": {
            "steps": 2,
            "prompts_per_step": 2,
            "group_size": 2,
            "max_prompt_tokens": 128,
            "max_response_tokens": 8,
            "checkpoint_every": 1,
            "validate_every": 1,
        },
        "evaluation": {"engine": "in-process", "samples": 2, "pass_k": [1, 2], "lm_eval": None},
        "methods": {"sdpg-urkl": {"gate": False, "T_warm": 0, "T_decay": 0}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_own_model_and_data_from_data_to_evaluation(scale, tmp_path):
    run = ["--method", "sdpg-urkl", "--seed", "0"]
    for name, *more in (["data"], ["base-model"], ["train", *run], ["evaluate", *run]):
        done = script(name, scale, tmp_path, *more)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
    results = tmp_path / "results" / "mine"
    rows = [json.loads(line) for line in (results / "runs/sdpg-urkl/seed0/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["loss_distillation"] > 0 and max(row["logprob_gap_max"] for row in rows) < 1e-3
    frame = pd.read_parquet(results / "eval/sdpg-urkl/seed0/test.parquet")
    assert len(frame) == 3 * 5 * 2 and sorted(frame["step"].unique()) == [0, 1, 2]
    record = json.loads((results / "runs/sdpg-urkl/seed0/run.json").read_text())
    assert record["algorithm"]["T"] == 2 and record["config"]["task"]["template"] == "plain"
    assert any(line.startswith("sdpg/algorithms/sdpg.py ") for line in record["code"])
    assert not any(line.startswith("baselines/grpo.py ") for line in record["code"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "script_name", "message"),
    [
        ({"model": "no/such/model"}, "base-model", "no/such/model"),
        ({"model": "/no/such/model"}, "data", "'/no/such/model' does not exist"),
        ({"methods": {"sdpg-urk": {}}}, "data", "sdpg-urk"),
        ({"train": {"stepz": 3}}, "data", "train.steps"),
        ({"evaluation": {"samples": 2, "pass_k": [4]}}, "data", "pass_k"),
        ({"data": {"train": {"path": "none.jsonl"}, "evaluation": {"t": {"path": "none.jsonl"}}}}, "data", "none.jsonl"),
    ],
)
def test_a_mistake_is_one_clear_line_and_leaves_nothing(scale, tmp_path, change, script_name, message):
    scale.write_text(yaml.safe_dump(yaml.safe_load(scale.read_text()) | change))
    done = script(script_name, scale, tmp_path)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and lines[-1].startswith("error: ") and message in lines[-1]
    assert "Traceback" not in done.stderr
    left = [path for path in (tmp_path / "results").rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []  # but for locks, which are empty files when nobody has them

"""`sdpg show`: what a model wrote, with its prompts and verdicts, safely on a terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdpg import cli
from sdpg.__main__ import app
from sdpg.analysis.generations import read_generations, verdict, visible
from sdpg.core.checkpoint import save_policy
from sdpg.tasks.chain import chain_problems
from sdpg.tasks.data import save_problems
from sdpg.tasks.tokenizer import character_tokenizer
from tests.scale import evaluated

ROOT = Path(__file__).parents[2]
SCALE = evaluated("shown", "first", "second", samples=2)
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202eright\u202c \x00\r\x9b31m\u200b é 数 <b>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a scale, and its run's checkpoints and evaluations."""
    import torch

    folder = tmp_path_factory.mktemp("shown")
    root = folder / "results" / "shown"
    (folder / "shown.yaml").write_text(yaml.safe_dump(SCALE))
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    save_policy(model, tokenizer, root / "runs/grpo/seed0/checkpoints", 0, dtype=torch.float32, keep="all")
    problems = chain_problems([2], 9, seed=1)
    save_problems(root / "data/train.parquet", chain_problems([3], 4, seed=2))
    rows = []
    for step in (0, 20):
        for i, problem in enumerate(problems):
            facts = {"step": step, "problem_id": problem.id, "process": 1.0, "tokens": 7, "entropy": 0.1, "unjudged": ""}
            rows.append(facts | {"sample": 0, "correct": True, "finish_reason": "stop", "text": f"right {i} at {step}"})
            text = HOSTILE if i == 7 else "wrong"
            rows.append(facts | {"sample": 1, "correct": False, "finish_reason": "length", "text": text, "process": 0.0})
    for name in ("first", "second"):
        save_problems(root / f"data/eval/{name}.parquet", problems)
        path = root / f"eval/grpo/seed0/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(path)
    return folder


WORDS = ["show", "--scale", "shown.yaml", "--method", "grpo", "--seed", "0"]


@pytest.fixture
def show(folder, monkeypatch, capsys):
    """A function that calls the command in the folder -> its exit code, what it prints, and what it says on stderr."""
    monkeypatch.chdir(folder)

    def call(*options: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.run(lambda: app([*WORDS, *options], standalone_mode=False))
        return end.value.code or 0, *capsys.readouterr()

    return call


def test_a_problem_with_prompts_responses_and_verdicts(show):
    code, said, error = show("--problem", "7")
    assert code == 0, error
    problem = chain_problems([2], 9, seed=1)[7]
    assert said.startswith(f"shown, grpo seed 0, first: problem {problem.id} (number 7 of 9, from 0)\nreference answer: ")
    parts = said.split("\n--- ")
    assert problem.question in parts[1] and parts[1].startswith("prompt: ")
    assert parts[2].startswith("teacher's prompt: ") and problem.solution in parts[2]
    assert "=== step 20: 1 of 2 responses are right (checkpoints: 0, 20)" in parts[2]
    assert parts[3] == "sample 0: right, every step too; 7 tokens, stop\nright 7 at 20\n"
    assert parts[4].startswith("sample 1: wrong: cut off at the token limit; 7 tokens, length\n") and len(parts) == 5


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_hostile_text_does_nothing_to_a_terminal(folder, encoding):
    command = [sys.executable, "-m", "sdpg", *WORDS, "--problem", "7"]
    clean = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=folder, capture_output=True, env=clean)
    said = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert not set(said) & set("\x1b\x07\x00\r\x9b\u202e\u202c\u200b")
    assert r"\x1b[2J\x1b]0;owned\x07 \u202eright\u202c \x00\x0d\x9b31m\u200b" in said
    assert ("é 数 <b>" if encoding == "utf-8" else r"\xe9 \u6570 <b>") in said


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (["--step", "0"], "right 7 at 0", "at 20"),
        (["--right"], "right 7 at 20", "sample 1"),
        (["--wrong"], "sample 1", "sample 0"),
        (["--sample", "1"], "sample 1", "sample 0"),
        (["--sample", "1", "--right"], "\nsample 1 is not right\n", "--- sample"),
        (["--sample", "0", "--wrong"], "\nsample 0 is not wrong\n", "--- sample"),
        (["--set", "second"], "seed 0, second: problem", "first"),
        (["--set", "train.steps=20", "--set", "second"], "seed 0, second: problem", "first"),
    ],
)
def test_what_is_shown_can_be_chosen(show, options, there, absent):
    code, said, error = show("--problem", "7", *options)
    assert code == 0 and there in said and absent not in said, error


def test_an_id_is_a_name_too_and_results_may_lie_elsewhere(show, folder, tmp_path):
    problem = chain_problems([2], 9, seed=1)[3]
    shutil.copytree(folder / "results/shown", tmp_path / "copy")
    _, said, _ = show("--problem", problem.id, "--results", str(tmp_path / "copy"))
    assert "(number 3 of 9, from 0)" in said and "right 3 at 20" in said


@pytest.mark.parametrize("damage", [lambda b: b"no parquet", lambda b: b"", lambda b: b[: len(b) // 2]])
def test_a_damaged_file_says_what_to_do(show, folder, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(folder / "results/shown", copy)
    file = copy / "eval/grpo/seed0/first.parquet"
    file.write_bytes(damage(file.read_bytes()))
    code, _, error = show("--problem", "7", "--results", str(copy))
    assert code == 2 and error.count("\n") == 1 and "first.parquet could not be read" in error and "delete it" in error


def test_of_training_the_prompts_are_shown(show):
    _, said, _ = show("--problem", "2", "--train")
    problem = chain_problems([3], 4, seed=2)[2]
    assert problem.question in said and problem.solution in said and "responses of training are not kept" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--problem", "9"],
            "--problem: got '9', which is not in results/shown/data/eval/first.parquet: it has the numbers 0 to 8",
        ),
        (["--problem", "x"], "--problem: got 'x'"),
        (["--problem", "7", "--step", "10"], "--step: got 10, expected a checkpoint: 0, 20"),
        (["--problem", "7", "--sample", "2"], "--sample: got 2, expected 0 to 1"),
        (
            ["--problem", "7", "--set", "frist"],
            "--set: got 'frist', which is no evaluation set of scale shown; did you mean 'first'",
        ),
        (
            ["--problem", "7", "--set", "first", "--set", "second"],
            "--set: got 'first' and 'second', expected one evaluation set",
        ),
        (["--problem", "7", "--seed", "1"], "results/shown/runs/grpo/seed1/checkpoints/checkpoints.json is missing"),
        (["--problem", "7", "--method", "nope"], "method 'nope' is not in scale shown"),
    ],
)
def test_bad_input_is_one_line(show, options, message):
    code, _, said = show(*options)
    assert code == 2 and said.count("\n") == 1 and message in said, said


def test_hidden_characters_are_shown_and_others_left_alone():
    assert visible("a\tb\n$\\frac{1}{2}$ é 数 👍") == "a\tb\n$\\frac{1}{2}$ é 数 👍"
    assert visible("\u2028\ud800\U000e0041") == r"\u2028\ud800\U000e0041"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((True, None, "stop", ""), "right"),
        ((True, 0.0, "stop", ""), "right, not every step"),
        ((False, None, "stop", ""), "wrong"),
        ((False, None, "stop", "too \x1blong"), r"wrong, since it could not be judged: too \x1blong"),
    ],
)
def test_a_verdict_in_words(row, words):
    columns = ["correct", "process", "finish_reason", "unjudged"]
    assert verdict(next(pd.DataFrame([row], columns=columns).itertuples())) == words


def test_files_without_reasons_can_be_read_and_broken_ones_are_named(tmp_path):
    rows = {"step": [1], "problem_id": ["a"], "sample": [0], "correct": [True], "process": [None], "tokens": [1]}
    frame = pd.DataFrame(rows | {"finish_reason": ["stop"], "text": ["x"]})
    frame.to_parquet(tmp_path / "old.parquet")
    assert read_generations(tmp_path / "old.parquet")["unjudged"].tolist() == [""]
    frame.drop(columns="text").to_parquet(tmp_path / "old.parquet")
    with pytest.raises(ValueError, match="old.parquet lacks the columns text"):
        read_generations(tmp_path / "old.parquet")

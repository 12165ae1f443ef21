"""The scales of the paper's own size: what their headers promise, and the whole chain on real problems with a tiny model."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sdpg.artefacts.claims.spec import read_claims
from sdpg.config import resolve
from sdpg.config.files import SCALES
from sdpg.config.methods import method_config
from sdpg.experiment.machine import card, placement
from sdpg.experiment.plan_text import render
from sdpg.experiment.planner import make_plan
from sdpg.io import ROOT, read_json
from tests.bpe import bpe_tokenizer

STAND_INS = ROOT.parent / "shared" / "data"
COSTS = re.compile(
    r"^# Costs by `sdpg plan --scale (\S+) --gpus (\d+) --gpu-memory (\d+)`: (\d+) runs, (\S+) GPU-hours, (\S+) GB of disk",
    re.M,
)
HEADERS = {path.stem: COSTS.search(path.read_text(encoding="utf-8")) for path in sorted(SCALES.glob("*.yaml"))}
PRICED = [name for name, found in HEADERS.items() if found]


def test_the_large_scales_say_what_they_cost():
    large = {name for name in HEADERS if resolve(name).resources.gpus}
    assert set(PRICED) == large and len(large) == 9


@pytest.mark.parametrize("name", PRICED)
def test_a_header_says_what_the_planner_says(name):
    scale, gpus, memory, runs, hours, disk = HEADERS[name].groups()
    config = resolve(name)
    gpu = card(None, float(memory))
    text = render(make_plan(config, gpu=gpu, place=placement(config, gpu, gpus=int(gpus))))
    assert scale == name and f"All {runs} runs, evaluated: {hours} GPU-hours" in text
    assert f"Disk: {disk} GB" in text and f"{name} fits" in text


def test_arms_of_gsm8k_differ_in_their_loss_alone():
    config = resolve("gsm8k")
    assert not any("train" in block for block in config.methods.values())
    first, second = resolve("gsm8k-80gb"), resolve("gsm8k-qwen3")
    assert config.methods == first.methods == second.methods and config.data == first.data == second.data


@pytest.mark.parametrize("name", ["cpu", "gsm8k", "qwen3-1.7b-matched"])
def test_a_matched_scale_has_the_arms_of_every_primary_claim(name):
    primary = [claim for claim in read_claims()[1] if claim["role"] == "primary"]
    assert len(primary) == 10
    assert {method for claim in primary for method in claim["methods"]} <= set(resolve(name).methods)


@pytest.mark.parametrize("name", ["cpu", "lm", "gsm8k", "qwen3-1.7b-matched", "qwen3-4b-matched"])
def test_rpg_is_sdpg_without_distillation(name):
    """But for beta and its schedule. With the anchor UFKL it would be GRPO again, and SDPG - RPG would say nothing."""
    config = resolve(name)
    rpg, sdpg = (
        {key: value for key, value in method_config(config, method).items() if key not in ("beta_base", "T_warm", "T_decay")}
        for method in ("rpg", "sdpg-urkl")
    )
    assert rpg == sdpg and method_config(config, "rpg")["beta_base"] == 0 and rpg["anchor"] == "urkl"


@pytest.mark.skipif(not STAND_INS.is_dir(), reason="needs copies of the public data sets in ../shared/data")
def test_real_problems_go_from_data_to_report(tmp_path):
    """`quick=true` with a random model of two layers: the rules, methods and sets of the scale, and nothing of a user's own."""
    torch.manual_seed(0)
    questions = list(pd.read_json(STAND_INS / "gsm8k/train.jsonl", lines=True).question[:200])
    tokenizer = bpe_tokenizer(questions, size=512)
    tokenizer.save_pretrained(tmp_path / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "head_dim": 32}
    ends = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": None, "max_position_embeddings": 2048}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(tmp_path / "model")
    changed = [
        f"data.mirror={STAND_INS}",
        "model=model",
        "task.chat_template=false",
        "train.max_prompt_tokens=1500",
        "train.max_response_tokens=24",
        "train.engine=in-process",
        "train.precision=fp32",
        "evaluation.engine=in-process",
        "evaluation.dtype=float32",
        "data.evaluation.aime24.dataset=aime24",
        "data.evaluation.aime24.limit=4",
        "resources.gpus=0",
        "resources.threads=1",
        "resources.mem_mb=4000",
        "methods=[grpo,sdpg-ufkl]",
    ]
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "reproduce-all", "--cores", "2"]
    options = ["--config", "scale=gsm8k", "quick=true", f"set={' '.join(changed)}"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "results/gsm8k-quick"
    problems = pd.read_parquet(results / "data/train.parquet")
    assert (
        len(problems) == 4 and problems.solution.str.len().min() > 20 and set(problems.source) == {"gsm8k/train@740312add88f"}
    )
    for task in ("gsm8k", "aime24"):
        assert (
            len(pd.read_parquet(results / f"eval/sdpg-ufkl/seed0/{task}.parquet")) == 2 * 4 * 2
        )  # checkpoints, problems, samples
    assert {"report.html", "samples.html", "claims.md", "manifest.json"} <= {path.name for path in results.iterdir()}
    assert read_json(results / "data/report.json")["train"]["rows"] == 4

"""Finished results with a manifest, without Snakemake."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sdpg.analysis.results import Results
from sdpg.artefacts import lookup
from sdpg.artefacts.manifest import NAME, artefacts
from sdpg.config import resolve
from sdpg.io import sha256
from tests.analysis.fake_results import write_claims, write_problems, write_results
from tests.making import make

SCALE = """
name: fake
seeds: [0, 1]
model: nowhere
methods: [sdpg-ufkl, grpo]
data: {train: {path: x.jsonl}, evaluation: {chain: {path: x.jsonl}, chain-long: {path: x.jsonl}}}
train: {steps: 4, max_prompt_tokens: 8, max_response_tokens: 8}
evaluation: {samples: 8, pass_k: [1, 4, 8], lm_eval: {repeats: 4, limit: 64, forgetting: reverse}}
"""


def write_manifest(results: Results, config) -> None:
    """List every file as made by one job, from the problems of one set."""
    listed = {path.as_posix() for path in artefacts(results.root)}
    files = {
        name: {"size": (results.root / name).stat().st_size, "sha256": sha256(results.root / name), "job": "scores"}
        for name in sorted(listed)
    }
    part = json.loads(json.dumps(lookup("scores").spec.uses(config)))
    problems = "data/eval/chain.parquet"
    job = {"stage": "scores", "inputs": {problems: files[problems]["sha256"]}, "code": "c", "config": "k"}
    content = {"scale": "fake", "overrides": {}, "command": "snakemake x", "git_commit": "abc", "files": files}
    content |= {"jobs": {"scores": job}, "code": {"c": []}, "configs": {"k": part}}
    (results.root / NAME).write_text(json.dumps(content))


@pytest.fixture
def finished(tmp_path):
    """(results, config, the scale's file): two methods, two seeds, two checkpoints each, with manifest."""
    scale = tmp_path / "fake.yaml"
    scale.write_text(SCALE)
    config = resolve(scale)
    made = write_results(
        tmp_path / "results" / "fake", methods=("sdpg-ufkl", "grpo"), seeds=(0, 1), steps=4, every=2, problems=6
    )
    results = replace(made, scale="fake")
    make("scores", results)
    write_problems(results)
    write_claims(results)
    (results.root / "data" / "report.json").write_text('{"train": {"problems": 5, "licence": "MIT"}, "evaluation": {}}')
    (results.root / "model" / "base0").mkdir(parents=True)
    (results.root / "model" / "base0" / "model.safetensors").write_text("base")
    (results.root / "model" / "base0.json").write_text("{}")
    for method, seed in results.runs:
        run = results.run_dir(method, seed)
        entries = []
        for step in (0, 4):
            folder = run / "checkpoints" / f"step{step:06d}"
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_text(f"weights {step}")
            (folder / "config.json").write_text("{}")
            hashes = {"model.safetensors": sha256(folder / "model.safetensors")}
            entries.append({"step": step, "path": folder.name, "sha256": hashes})
        (run / "checkpoints" / "checkpoints.json").write_text(json.dumps({"checkpoints": entries}))
        for name in ("tensorboard", "wandb"):
            (run / name).mkdir()
            (run / name / "events.of-this-machine").write_text("x")
    write_manifest(results, config)
    (results.root / "left_over.csv").touch()
    (results.root / "logs").mkdir()
    (results.root / "logs" / "train.log").write_text("a log")
    return results, config, scale

"""Makes artefacts of fake results as `sdpg make` does: under a config that is resolved from a scale's file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from sdpg import artefacts
from sdpg.analysis.results import Results
from sdpg.artefacts import Job, files_of
from sdpg.config import METHODS, resolve


def config_of(results: Results, **more: Any):
    """Return the resolved config of a scale whose results are these. more: keys of its file, on top.

    A method that the project does not have is one like GRPO.
    """
    scale = {
        "name": results.name,
        "family": results.family,
        "seeds": list(results.seeds),
        "model": "nowhere",
        "data": {"train": {"path": "x.jsonl"}, "evaluation": {task: {"path": "x.jsonl"} for task in results.tasks}},
        "train": {"steps": results.steps or 1, "max_prompt_tokens": 8, "max_response_tokens": 8},
        "evaluation": {
            "samples": results.samples,
            "pass_k": list(results.pass_k),
            "lm_eval": results.lm_eval,
            "engine": results.engine,
        },
        "methods": {name: {} if _is_known(name) else {"like": "grpo"} for name in results.methods},
    }
    if "sweep" in more:  # it is scored on these
        scale["data"]["validation"] = {"watched": {"path": "v.jsonl"}}
    return resolve_text(yaml.safe_dump(scale | more))


def resolve_text(text: str):
    """Return the resolved config of a scale's file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.yaml"
        path.write_text(text, encoding="utf-8")
        return resolve(path)


def job_of(results: Results, **more: Any) -> Job:
    """Return what an artefact of these results is made from; more: as in `config_of`."""
    config = config_of(results, **more)
    return Job(results, config, files_of(config, results.root.as_posix()), results.name, {})


def make(name: str, results: Results, folder: Path | None = None, **more: Any) -> list[Path]:
    """Make an artefact and return its files, which are moved to `folder` if it is given; more: as in `config_of`."""
    paths = artefacts.make(name, job_of(results, **more))
    if folder is None:
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.move(path, folder / path.name)) for path in paths]


def _is_known(method: str) -> bool:
    return (METHODS / f"{method}.yaml").is_file()

"""Evaluating a run in its training job (`resources.evaluate_at_once`): the engine's start and its imports are paid once.

The rules stay as they are. Training leaves the responses in results/<scale>/.work/at_once, with what they depend on; the job of
`evaluate_run` then puts them in their place, without loading anything, if that is still what it would sample.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sdpg import locks
from sdpg.config import Config, evaluation_config
from sdpg.experiment.evaluate import code_of
from sdpg.experiment.workflow import RESULTS
from sdpg.io import make_folder, naming, read_json, sha256, write_json

MADE_WITH = "made_with.json"


def evaluate_at_once(config: Config, method: str, seed: int, threads: int) -> None:
    """Sample every checkpoint of a finished run, and leave the files for `put_in_place`. Raises as `evaluate_run` does."""
    from sdpg.evaluation.run import evaluate_run

    root, left = RESULTS / config.name, _left(config, method, seed)
    with locks.hold(locks.of(config.name, f"evaluate-{method}-seed{seed}")):
        shutil.rmtree(left, ignore_errors=True)
        make_folder(left)
        evaluate_run(
            root / "runs" / method / f"seed{seed}",
            config,
            seed=seed,
            data_dir=root / "data",
            out_dir=left,
            work_dir=root / ".work" / "eval" / method / f"seed{seed}",
            code=code_of(config),
            threads=threads,
            title=f"{method} seed {seed}",
        )
        write_json(left / MADE_WITH, _depends_on(config, method, seed))


def put_in_place(config: Config, method: str, seed: int) -> bool:
    """Move what `evaluate_at_once` left to results/<scale>/eval -> whether there was something that still holds."""
    left, place = _left(config, method, seed), RESULTS / config.name / "eval" / method / f"seed{seed}"
    sets = [left / f"{name}.parquet" for name in config.data.evaluation]
    if not all(path.is_file() for path in [*sets, left / MADE_WITH]):
        return False
    if read_json(left / MADE_WITH) != json.loads(json.dumps(_depends_on(config, method, seed))):
        return False
    make_folder(place)
    with naming(place):
        for path in sets:
            path.replace(place / path.name)
    shutil.rmtree(left, ignore_errors=True)
    return True


def _left(config: Config, method: str, seed: int) -> Path:
    return RESULTS / config.name / ".work" / "at_once" / method / f"seed{seed}"


def _depends_on(config: Config, method: str, seed: int) -> dict[str, Any]:
    """Return what decides the responses: config, code, problems, and the run's checkpoints (by the hashes in their list)."""
    root = RESULTS / config.name
    read = [root / "runs" / method / f"seed{seed}" / "checkpoints" / "checkpoints.json"]
    read += [root / "data" / "eval" / f"{name}.parquet" for name in config.data.evaluation]
    return {
        "config": evaluation_config(config),
        "seed": seed,
        "code": code_of(config),
        "inputs": {path.name: sha256(path) for path in read},
    }

"""The composition root of training: the only place where methods, core, engines and tasks meet."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

import baselines
from sdpg.config import Config, base_index, method_config, outcome_part, run_config
from sdpg.core import distributed
from sdpg.core.publish import KEPT, publish, put_back
from sdpg.core.record import run_record, versions
from sdpg.core.trackers import FILE, Tracking
from sdpg.core.trainer import Trainer
from sdpg.experiment.inputs import model_files
from sdpg.experiment.workflow import training_sources
from sdpg.io import read_json, sha256, write_json
from sdpg.progress import Interrupted
from sdpg.provenance.sources import fingerprints
from sdpg.rollout.engines import make_engine
from sdpg.rollout.placement import own_gpu, share
from sdpg.tasks.data import load_problems
from sdpg.tasks.task import make_task


def train_run(config: Config, method: str, seed: int, *, threads: int, results: Path = Path("results")) -> Path:
    """Train `method` with `seed` under a resolved config -> the folder of the finished run. Raises ValueError, OSError."""
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()  # of loading and saving: the run has its own
    root = results / config.name
    run = run_config(config, method, seed)
    base = _base(config, seed, results)
    if not (base / "config.json").is_file():
        raise ValueError(
            f"no base model at {base.absolute()}; `sdpg base-model --scale {config.name} --base {base_index(config, seed)}` "
            "makes it (or snakemake, by itself)"
        )
    tokenizer = AutoTokenizer.from_pretrained(base)
    train_file = root / "data" / "train.parquet"
    validation = {name: load_problems(root / "data" / "validation" / f"{name}.parquet") for name in run.data.validation}
    max_len = run.train.max_prompt_tokens + run.train.max_response_tokens
    world = distributed.start()  # before vLLM, which starts a process group where there is none
    given = share(own_gpu(), launched=world.size > 1, **config.resources.vllm.dump())
    engine = make_engine(
        run.train.engine, base, dtype=run.train.dtype, max_len=max_len, threads=threads, seed=seed, share=given
    )
    engine.sleep()  # until the first push, so that the models load into free memory
    algorithm = make_algorithm(config, method)
    identity = identity_of(config, method, seed, results)
    work = root / ".work" / method / f"seed{seed}"
    trainer = Trainer(
        run.train,
        algorithm,
        base=base,
        tokenizer=tokenizer,
        task=make_task(run.task, tokenizer),
        engine=engine,
        problems=load_problems(train_file),
        seed=seed,
        validation=validation,
        work=work,
        identity=identity | {"config": outcome_part(identity["config"])},
        title=f"{method} seed {seed}",
        processes_per_engine=getattr(engine, "processes", 1),
        tracking=Tracking(tuple(config.track), f"sdpg-{config.name}", method, f"{method}-seed{seed}", run.dump()),
    )
    try:
        outcome = trainer.run()
    except Interrupted:
        _leave(engine)
        raise
    finished = _folder(config, method, seed, results)
    if world.first:
        fields = dataclasses.asdict(algorithm)
        record = run_record(identity, algorithm=fields, threads=threads, processes=world.size, outcome=outcome)
        write_json(work / "run.json", record)
        (work / FILE).unlink(missing_ok=True)  # nothing goes on from here
        publish(work, finished)
    _leave(engine)
    return finished


def _leave(engine) -> None:
    """End the engine and leave the other processes, all at once. vLLM ends the run's process group with its own."""
    distributed.barrier()
    engine.close()
    distributed.finish()


def identity_of(config: Config, method: str, seed: int, results: Path = Path("results")) -> dict[str, Any]:
    """Return `run_identity` of one run: it reads the base model, its tokenizer included, and the problems."""
    data = results / config.name / "data"
    read = {path.name: path for path in [*model_files(_base(config, seed, results)), data / "train.parquet"]}
    read |= {f"validation/{name}": data / "validation" / f"{name}.parquet" for name in config.data.validation}
    return run_identity(config, run_config(config, method, seed).dump(), read)


def is_finished(config: Config, method: str, seed: int, results: Path = Path("results")) -> bool:
    """Return whether this very run lies finished in its place."""
    return _is_of(_folder(config, method, seed, results) / "run.json", config, method, seed, results)


def was_finished(config: Config, method: str, seed: int, results: Path = Path("results")) -> bool:
    """Return whether an earlier job finished this very run and failed after that; its files are put back then."""
    run = _folder(config, method, seed, results)
    return _is_of(run / KEPT / "run.json", config, method, seed, results) and put_back(run)


def _is_of(record: Path, config: Config, method: str, seed: int, results: Path) -> bool:
    """Return whether a run.json is there, and of this very run."""
    if not record.is_file():
        return False
    identity = json.loads(json.dumps(identity_of(config, method, seed, results)))
    return identity.items() <= read_json(record).items()


def _folder(config: Config, method: str, seed: int, results: Path) -> Path:
    return results / config.name / "runs" / method / f"seed{seed}"


def _base(config: Config, seed: int, results: Path) -> Path:
    return results / config.name / "model" / f"base{base_index(config, seed)}"


def run_identity(config: Config, resolved: dict[str, Any], inputs: dict[str, Path]) -> dict[str, Any]:
    """Return what decides a run's outcome: its config, the hashes of its code and of the files that it reads, and versions."""
    shared, own = training_sources(config, resolved["algorithm"]["algorithm"])
    hashes = {name: sha256(path) for name, path in inputs.items()}
    return {"config": resolved, "code": fingerprints([*shared, *own]), "inputs": hashes, "versions": versions()}


def make_algorithm(config: Config, method: str):
    """Build a method under a config, with every hyper-parameter that its layers give it."""
    fields = method_config(config, method)
    return baselines.make(fields.pop("algorithm"), **{key: value for key, value in fields.items() if key != "train"})

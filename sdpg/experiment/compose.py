"""The composition root of training: the only place where methods, core, engines and tasks meet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

import baselines
from sdpg.config import Config, base_index, method_config, outcome_part, run_config
from sdpg.core import distributed
from sdpg.core.checkpoint import publish
from sdpg.core.record import run_record, versions
from sdpg.core.trainer import Trainer
from sdpg.experiment.workflow import training_sources
from sdpg.io import sha256, write_json
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
    base = root / "model" / f"base{base_index(config, seed)}"
    if not (base / "config.json").is_file():
        raise ValueError(
            f"no base model at {base.absolute()}; in the project's folder: `snakemake --forcerun base_model`, or "
            "`sdpg base-model`"
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
    read = {path.name: path for path in [*sorted(base.glob("*.safetensors")), *base.glob("tokenizer.json"), train_file]}
    read |= {f"validation/{name}": root / "data" / "validation" / f"{name}.parquet" for name in validation}
    identity = run_identity(config, run.dump(), read)
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
    )
    outcome = trainer.run()
    finished = root / "runs" / method / f"seed{seed}"
    if world.first:
        fields = dataclasses.asdict(algorithm)
        record = run_record(identity, algorithm=fields, threads=threads, processes=world.size, outcome=outcome)
        write_json(work / "run.json", record)
        publish(work, finished)
    engine.close()
    distributed.finish()
    return finished


def run_identity(config: Config, resolved: dict[str, Any], inputs: dict[str, Path]) -> dict[str, Any]:
    """Return what decides a run's outcome: its config, the hashes of its code and of the files that it reads, and versions."""
    shared, own = training_sources(config, resolved["algorithm"]["algorithm"])
    hashes = {name: sha256(path) for name, path in inputs.items()}
    return {"config": resolved, "code": fingerprints([*shared, *own]), "inputs": hashes, "versions": versions()}


def make_algorithm(config: Config, method: str):
    """Build a method under a config, with every hyper-parameter that its layers give it."""
    fields = method_config(config, method)
    return baselines.make(fields.pop("algorithm"), **{key: value for key, value in fields.items() if key != "train"})

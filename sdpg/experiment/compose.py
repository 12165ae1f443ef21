"""The composition root of training: the only place where methods, core, engines and tasks meet."""

import dataclasses
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer

import baselines
from sdpg.config import base_index, run_config
from sdpg.core.checkpoint import publish
from sdpg.core.collector import Collector
from sdpg.core.record import run_record
from sdpg.core.train_config import TrainConfig
from sdpg.core.trainer import Trainer
from sdpg.experiment.workflow import training_sources
from sdpg.io import sha256, write_json
from sdpg.provenance.sources import fingerprints
from sdpg.rollout import make_engine
from sdpg.tasks import load_problems, make_task


def train_run(config: dict, method: str, seed: int, *, threads: int, results: Path = Path("results")) -> Path:
    """Train `method` with `seed` under a resolved config -> the folder of the finished run. Errors: ValueError, OSError."""
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()  # of loading and saving: the run has its own
    root = results / config["name"]
    resolved = run_config(config, method, seed)
    train = TrainConfig(**resolved["train"])
    algorithm = make_algorithm(resolved["algorithm"], train.steps)
    base = root / "model" / f"base{base_index(config, seed)}"
    if not (base / "config.json").is_file():
        raise ValueError(
            f"no base model at {base.absolute()}; in the project's folder: `snakemake --forcerun base_model`, or "
            "`sdpg base-model`"
        )
    tokenizer = AutoTokenizer.from_pretrained(base)
    task = make_task(resolved["task"], tokenizer)
    problems = load_problems(root / "data" / "train.parquet")
    validation = {
        name: load_problems(root / "data" / "validation" / f"{name}.parquet") for name in resolved["data"]["validation"]
    }
    max_len = train.max_prompt_tokens + train.max_response_tokens
    engine = make_engine(train.engine, base, dtype=train.dtype, max_len=max_len, threads=threads, seed=seed)

    def make_collector(max_positions: int, rank: int, world: int) -> Collector:
        return Collector(
            problems, task, engine, train.collector(), seed=seed, max_positions=max_positions, rank=rank, world=world
        )

    identity = run_identity(config, resolved, [*sorted(base.glob("*.safetensors")), root / "data" / "train.parquet"])
    work = root / ".work" / method / f"seed{seed}"
    trainer = Trainer(
        train,
        algorithm,
        base=base,
        tokenizer=tokenizer,
        make_collector=make_collector,
        validation=validation,
        work=work,
        identity=identity,
        title=f"{method} seed {seed}",
    )
    trainer.run()
    engine.close()
    run = root / "runs" / method / f"seed{seed}"
    if trainer.rank == 0:
        fields = dataclasses.asdict(algorithm)
        write_json(work / "run.json", run_record(identity, algorithm=fields, threads=threads, processes=trainer.world))
        publish(work, run)
    return run


def run_identity(config, resolved: dict, inputs: list[Path]) -> dict:
    """Return what decides a run's outcome: its config, the hashes of the code that it uses, and of the files that it reads."""
    shared, own = training_sources(config, resolved["algorithm"]["algorithm"])
    hashes = {path.name: sha256(path) for path in inputs}
    return {"config": resolved, "code": fingerprints([*shared, *own]), "inputs": hashes}


def make_algorithm(block: dict, steps: int):
    """Build the method of a config's `algorithm` block; a schedule's T is the number of training steps unless it is given."""
    fields = {key: value for key, value in block.items() if key != "algorithm"}
    cls = baselines.REGISTRY.get(block["algorithm"])
    if cls is not None and "T" in {f.name for f in dataclasses.fields(cls)}:
        fields.setdefault("T", steps)
    return baselines.make(block["algorithm"], **fields)

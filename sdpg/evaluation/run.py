"""Evaluate one run: the checkpoint sweep, and lm-eval on its last checkpoint with the same engine."""

from __future__ import annotations

from pathlib import Path

from sdpg.config.settings import Config
from sdpg.evaluation.checkpoints import load_checkpoints
from sdpg.evaluation.estimators import check_pass_k
from sdpg.evaluation.lm_eval_bridge import forgetting_set, lm_evaluate_engine, write_results
from sdpg.evaluation.sampling import sweep, write_frame
from sdpg.evaluation.setup import load_sets, make_sampling, start_engine
from sdpg.rollout.engines import lm_eval_engine


def evaluate_run(
    run_dir: str | Path,
    config: Config,
    *,
    seed: int,
    data_dir: str | Path,
    out_dir: str | Path,
    threads: int = 1,
    lm_eval: bool = False,
    title: str = "evaluation",
) -> list[Path]:
    """Sweep over a run's checkpoints and write out_dir/<set>.parquet, and with `lm_eval` also out_dir/lm_eval.json.

    run_dir: holds checkpoints/; data_dir: holds eval/<set>.parquet (and forgetting/<name>.parquet); config: resolved. One
    engine serves it all. Everything is checked before the engine starts, and every file is written whole at the end. Raises
    ValueError: k > n, a missing or corrupt checkpoint (which file), a missing data set, a prompt too long (which problem), an
    engine that did not take the weights (EngineMismatch). -> the paths written
    """
    evaluation, out_dir = config.evaluation, Path(out_dir)
    check_pass_k(evaluation.samples, evaluation.pass_k)
    if lm_eval and evaluation.lm_eval is None:
        raise ValueError("lm-eval was asked for, but evaluation.lm_eval is null in this scale; leave out --lm-eval")
    checkpoints = load_checkpoints(run_dir)
    task, sets = load_sets(config, checkpoints[0].path, data_dir)
    forgetting = forgetting_set(config, task, data_dir) if lm_eval else None
    engine = start_engine(evaluation.engine, checkpoints[0].path, config, threads, seed)
    try:
        frames = sweep(
            engine,
            checkpoints,
            sets,
            task,
            sampling=make_sampling(config, task),
            samples=evaluation.samples,
            seed=seed,
            dtype=evaluation.dtype,
            title=title,
        )
        if lm_eval and (able := lm_eval_engine(evaluation.engine)) != evaluation.engine:
            engine.close()
            engine = start_engine(able, checkpoints[-1].path, config, threads, seed)
        results = lm_evaluate_engine(engine, config, task, sets, forgetting, seed=seed) if lm_eval else None
    finally:
        engine.close()
        task.close()
    paths = [out_dir / f"{name}.parquet" for name in frames]
    for path, frame in zip(paths, frames.values(), strict=True):
        write_frame(path, frame)
    return paths if results is None else [*paths, write_results(out_dir, results)]

"""Evaluate one run: the checkpoint sweep, and lm-eval on its last checkpoint, by one process or several.

Every part is written as soon as it is complete (`sdpg.evaluation.parts`), and left out where it is there already; the last step
puts the files together. So a killed evaluation goes on, and several processes need nothing of each other.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sdpg.config.settings import Config
from sdpg.evaluation.checkpoints import load_checkpoints, verify_checkpoints
from sdpg.evaluation.estimators import check_pass_k
from sdpg.evaluation.lm_eval_bridge import check_weights, forgetting_set, lm_evaluate_engine
from sdpg.evaluation.parts import CLAIMS, EvaluationSet, Part, claim, digest_of, make_parts, read_part
from sdpg.evaluation.sampling import CHECKED_RESPONSES, Sampler, write_frame
from sdpg.evaluation.setup import load_sets, make_sampling, start_engine
from sdpg.io import make_folder, read_json, write_json
from sdpg.progress import Progress
from sdpg.rollout.engines import lm_eval_engine


def evaluate_run(
    run_dir: str | Path,
    config: Config,
    *,
    seed: int,
    data_dir: str | Path,
    out_dir: str | Path,
    work_dir: str | Path,
    threads: int = 1,
    lm_eval: bool = False,
    title: str = "evaluation",
    code: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Sweep over a run's checkpoints in this process and write out_dir/<set>.parquet, and with `lm_eval` also
    out_dir/lm_eval.json -> the paths written. Arguments and errors: as `Evaluation`.
    """
    how = {"data_dir": data_dir, "work_dir": work_dir, "threads": threads, "lm_eval": lm_eval, "code": code}
    with Evaluation(run_dir, config, seed=seed, **how) as evaluation:
        evaluation.verify()
        with evaluation.progress(title) as progress:
            evaluation.sample(tell=progress.update)
        return evaluation.finish(out_dir)


class Evaluation:
    """An evaluation of a run, all of it checked, before anything is sampled."""

    def __init__(
        self,
        run_dir: str | Path,
        config: Config,
        *,
        seed: int,
        data_dir: str | Path,
        work_dir: str | Path,
        threads: int = 1,
        lm_eval: bool = False,
        code: Mapping[str, Any] | None = None,
    ):
        """run_dir: holds checkpoints/; data_dir: holds eval/<set>.parquet (and forgetting/<name>.parquet); config: resolved;
        work_dir: takes the parts; code: what stands for the code and versions that sample, as JSON data.

        Raises ValueError: k > n, a missing checkpoint (which file), a missing data set, a prompt too long (which problem).
        """
        check_pass_k(config.evaluation.samples, config.evaluation.pass_k)
        if lm_eval and config.evaluation.lm_eval is None:
            raise ValueError("lm-eval was asked for, but evaluation.lm_eval is null in this scale; leave out --lm-eval")
        self.config, self.seed, self.threads, self.work = config, seed, threads, Path(work_dir)
        self.checkpoints = load_checkpoints(run_dir, verify=False)
        self.task, self.sets = load_sets(config, self.checkpoints[0].path, data_dir)
        self.forgetting = forgetting_set(config, self.task, data_dir) if lm_eval else None
        settings = config.evaluation.model_dump(exclude={"pass_k", "lm_eval"})
        response = config.train.max_response_tokens
        identity = {"seed": seed, "task": config.task.dump(), "evaluation": settings, "response": response, "code": code}
        self.parts = make_parts(self.checkpoints, self.sets, self.work, samples=config.evaluation.samples, identity=identity)
        self.lm_eval: Path | None = None
        if lm_eval:
            whole = isinstance(self.forgetting, EvaluationSet)
            identity |= {"lm_eval": config.evaluation.lm_eval.dump()}
            digest = digest_of(identity, self.checkpoints[-1], [*self.sets, *([self.forgetting] if whole else [])])
            self.lm_eval = self.work / f"lm_eval-{digest}.json"

    @property
    def missing(self) -> list[Part]:
        """The parts that are still to be sampled."""
        return [part for part in self.parts if not part.path.is_file()]

    @property
    def pieces(self) -> int:
        """How many processes there is work for."""
        return len(self.missing) + (self.lm_eval is not None and not self.lm_eval.is_file())

    def verify(self) -> None:
        """Compare the checkpoints that are still to be sampled with their hashes. Raises ValueError naming a corrupt file."""
        steps = {part.checkpoint for part in self.missing} | ({self.checkpoints[-1]} if self.pieces else set())
        verify_checkpoints(sorted(steps, key=lambda checkpoint: checkpoint.step), self.threads)
        make_folder(self.work)
        shutil.rmtree(self.work / CLAIMS, ignore_errors=True)
        (self.work / CLAIMS).mkdir()

    def progress(self, title: str) -> Progress:
        """Return what counts problems, those of parts that are there already as done."""
        total = sum(len(part.set.problems) for part in self.parts)
        return Progress(total, title, "problem", done=total - sum(len(part.set.problems) for part in self.missing))

    def sample(self, place: int = 0, count: int = 1, tell: Callable[[int, str], Any] = lambda problems, facts: None) -> None:
        """Sample what is missing, as number `place` of `count` processes. tell: takes problems done, and what they came to.

        Each begins at its own place among the parts and goes round, and leaves out what another has taken. Raises
        EngineMismatch for an engine that did not take the weights, and OSError.
        """
        missing = self.missing
        begin = len(missing) * place // count
        sampler: Sampler | None = None
        try:
            for part in [*missing[begin:], *missing[:begin]]:
                if not claim(part.path):
                    continue
                sampler = sampler or self._start()
                started = time.perf_counter()
                frame = sampler.sample(part)
                write_frame(part.path, frame)
                rate = frame["tokens"].sum() / (time.perf_counter() - started)
                name = f"step {part.checkpoint.step}, {part.set.name}"
                tell(len(part.set.problems), f"{name}: accuracy {frame['correct'].mean():.3f}, {rate:,.0f} tokens/s")
            if self.lm_eval and not self.lm_eval.is_file() and claim(self.lm_eval):
                sampler = self._lm_evaluate(sampler)
        finally:
            if sampler:
                sampler.engine.close()

    def _start(self) -> Sampler:
        config, start = self.config, self.checkpoints[0].path
        engine = start_engine(config.evaluation.engine, start, config, self.threads, self.seed, reference=True)
        how = {"sampling": make_sampling(config, self.task), "samples": config.evaluation.samples, "seed": self.seed}
        return Sampler(engine, start, self.task, **how, dtype=config.evaluation.dtype)

    def _lm_evaluate(self, sampler: Sampler | None) -> Sampler | None:
        """Run lm-eval on the last checkpoint -> the sampler, None if its engine had to make room for another."""
        config, last = self.config, self.checkpoints[-1]
        if (able := lm_eval_engine(config.evaluation.engine)) == config.evaluation.engine:
            sampler = sampler or self._start()
            few = slice(CHECKED_RESPONSES)
            sampler.hold(last, EvaluationSet(self.sets[0].name, self.sets[0].problems[few], self.sets[0].prompts[few]))
            self._write_lm_eval(sampler.engine)
            return sampler
        if sampler:
            sampler.engine.close()
        engine = start_engine(able, last.path, config, self.threads, self.seed, reference=True)
        try:
            check_weights(engine, last.path, config, self.task, self.sets[0])
            self._write_lm_eval(engine)
        finally:
            engine.close()
        return None

    def _write_lm_eval(self, engine) -> None:
        engine.llm.reset_prefix_cache()  # the same start whatever was sampled before
        results = lm_evaluate_engine(engine, self.config, self.task, self.sets, self.forgetting, seed=self.seed)
        write_json(self.lm_eval, results)

    def finish(self, out_dir: str | Path) -> list[Path]:
        """Put the parts together in out_dir, each file written whole, and remove them -> the paths. Raises ValueError."""
        out_dir, samples = Path(out_dir), self.config.evaluation.samples
        paths = []
        for whole in self.sets:
            frames = [read_part(part, samples) for part in self.parts if part.set.name == whole.name]
            paths.append(out_dir / f"{whole.name}.parquet")
            write_frame(paths[-1], pd.concat(frames, ignore_index=True))
        if self.lm_eval:
            paths.append(out_dir / "lm_eval.json")
            write_json(paths[-1], read_json(self.lm_eval))
        shutil.rmtree(self.work)
        return paths

    def __enter__(self) -> Evaluation:
        return self

    def __exit__(self, *exc) -> None:
        self.task.close()  # ends the verifier's processes

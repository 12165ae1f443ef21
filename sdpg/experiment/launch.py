"""Starting a training run as its scale says: one process, one for each GPU (as torchrun does), or a Slurm job's nodes.

`sdpg train` comes here. It takes the job's GPUs, and then is the run itself, or starts its processes, each of which comes here
again with torchrun's environment. Under `torchrun` or `srun torchrun` it is one of the processes from the start.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdpg import locks, slurm
from sdpg.cli import ALONE, STOPPED
from sdpg.config import Config
from sdpg.config.resources import Resources
from sdpg.core.trackers import check_trackers
from sdpg.experiment.builds import check_build
from sdpg.experiment.gpus import Device, kept, taken
from sdpg.io import naming
from sdpg.progress import Interrupted
from sdpg.slurm import ON_EACH_NODE

PORT = 29400  # of the rendezvous on the first node, plus the numbers of Slurm's job and step, modulo 1000
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent dies
OURS = "sdpg-"  # what the names begin with that torchrun's agent has here for the processes it starts
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def train(config: Config, method: str, seed: int, threads: int, words: Sequence[str]) -> int:
    """Run or start one training run -> exit code. words: the command line of `sdpg`, which its processes are started with.

    Raises ValueError, before anything is loaded, for GPUs, nodes or trackers that are not there, or a run that does not fit;
    and where a job of Slurm would be queued again in vain.
    """
    check_trackers(config.track)
    states = Path("results") / config.name / ".work" / method / f"seed{seed}" / "state"
    with slurm.getting_on(lambda: set(states.glob("step*/state.json")), "step", "resources.runtime.train"):
        return _train(config, method, seed, threads, words)


def _train(config: Config, method: str, seed: int, threads: int, words: Sequence[str]) -> int:
    resources = config.resources
    if "RANK" in os.environ:
        with kept():
            return _run(config, method, seed, threads)
    if resources.nodes > 1 and ON_EACH_NODE not in os.environ:
        return _over_nodes(resources, words)
    check_build(config)
    with taken(resources.gpus) as devices:
        if devices:
            check_memory(config, method, devices[0])
        if not config.model.warm_start:
            from sdpg.experiment.disk import check_disk

            check_disk(config, method, seed)
        if resources.local_processes == 1 and resources.nodes == 1:
            return _run(config, method, seed, threads)
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(max(1, threads // resources.local_processes))
        return _start_processes(resources, words)


def _run(config: Config, method: str, seed: int, threads: int) -> int:
    for number in (signal.SIGTERM, signal.SIGUSR1):  # until the trainer listens
        signal.signal(number, _leave)
    insist(Interrupted, signal.SIGTERM)
    if "RANK" in os.environ and sys.platform == "linux":  # saves its state, too, when what started it is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from sdpg.startup import quick_imports

    with quick_imports():  # of torch: only once the command line is known to be right
        from sdpg.core import distributed
        from sdpg.experiment.compose import is_finished, train_run, was_finished

    world = distributed.start()  # all of them hold the run's folder: one that outlives the first keeps others away
    lock = locks.of(config.name, f"train-{method}-seed{seed}")
    with locks.hold(lock, first=world.first, tell=lambda value: distributed.gather(value)[0]) as held:
        if held.waited and distributed.gather(world.first and is_finished(config, method, seed))[0]:
            if world.first:
                print(f"{method} seed {seed}: the other process has finished this very run", file=sys.stderr, flush=True)
            return 0
        if distributed.gather(world.first and was_finished(config, method, seed))[0]:
            if world.first:
                print(f"{method} seed {seed}: trained before, by a job that failed after that", file=sys.stderr, flush=True)
            return 0
        with naming(Path("results") / config.name):
            train_run(config, method, seed, threads=max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    return 0


def settle(config: Config, method: str, seed: int) -> None:
    """Say that the whole job of a run has ended well; its processes leave that to what started them."""
    if ON_EACH_NODE in os.environ or os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(OURS):
        return
    from sdpg.core import publish

    publish.settle(Path("results") / config.name / "runs" / method / f"seed{seed}")


def _leave(number, frame) -> None:
    raise Interrupted("stopped before training went on; run the same command again")


def insist(wish: type[BaseException], number: int) -> None:
    """Send signal `number` again whenever its exception, `wish`, came up where Python drops it: in a finaliser, while modules
    are imported.
    """

    def hook(unraisable) -> None:
        if issubclass(unraisable.exc_type, wish):
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        else:
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = hook


def check_memory(config: Config, method: str, device: Device) -> None:
    """Raise ValueError if the plan of the run does not fit this GPU. Says so where nothing can be planned, and goes on."""
    from sdpg.experiment.architecture import architecture
    from sdpg.experiment.machine import card, placement
    from sdpg.experiment.planner import make_plan, refuse_what_does_not_fit

    try:
        architecture(config)
        if device.memory is None:
            raise ValueError(f"the driver does not say how much GPU {device.name} has")
    except ValueError as error:
        print(f"memory is not planned: {error}", file=sys.stderr, flush=True)
        return
    gpu = card(None, device.memory)
    plan = make_plan(config, gpu=gpu, place=placement(config, gpu), methods=[method])
    refuse_what_does_not_fit(plan)


def over_nodes(resources: Resources, words: Sequence[str]) -> list[str]:
    """Return the command that starts `sdpg` once on each node of the Slurm job, where it then starts its processes."""
    each = [
        "--ntasks-per-node=1",
        f"--cpus-per-task={resources.threads}",
        f"--nodes={resources.nodes}",
        f"--ntasks={resources.nodes}",
        "--kill-on-bad-exit=1",
    ]
    gpus = [f"--gpus-per-task={resources.gpus}"] if resources.gpus else []
    return ["srun", *each, *gpus, sys.executable, "-u", "-m", "sdpg", *words]


def _over_nodes(resources: Resources, words: Sequence[str]) -> int:
    got = slurm.nodes()
    if got < resources.nodes:
        raise ValueError(
            f"resources.nodes={resources.nodes}, but this is {f'a Slurm job of {got} nodes' if got > 1 else 'one node'}; run "
            f"it in an allocation: salloc --nodes={resources.nodes} ..., or torchrun --nnodes={resources.nodes} ... -m sdpg "
            + shlex.join(words[:1])
        )
    command = over_nodes(resources, words)
    with subprocess.Popen(command, env=os.environ | {ON_EACH_NODE: "1"}) as step, forwarding(step.send_signal):
        code = step.wait()
    if code == STOPPED:  # the nodes have said so
        raise SystemExit(STOPPED)
    return code


def _start_processes(resources: Resources, words: Sequence[str]) -> int:
    """Start this node's processes with torchrun's agent -> exit code. They are told of signals, and given time to save."""
    import psutil
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes say themselves what is wrong
    config = LaunchConfig(
        min_nodes=resources.nodes,
        max_nodes=resources.nodes,
        nproc_per_node=resources.local_processes,
        run_id=f"{OURS}{os.environ.get('SLURM_JOB_ID', os.getpid())}-{os.environ.get('SLURM_STEP_ID', 0)}",
        rdzv_backend="c10d",
        rdzv_endpoint=_endpoint(resources.nodes),
        max_restarts=0,
        signals_to_handle="SIGHUP",
    )

    def tell(number: int) -> None:
        for child in psutil.Process().children():
            child.send_signal(number)

    try:
        with forwarding(tell):
            elastic_launch(config, entrypoint=sys.executable)("-u", "-m", "sdpg", *words)
    except ChildFailedError as error:
        return exit_code({rank: failure.exitcode for rank, failure in error.failures.items()})
    return 0


def exit_code(codes: dict[int, int]) -> int:
    """Return what the processes' exit codes come to, and say which process died of a signal. Some may have lost the others."""
    if STOPPED in codes.values():
        raise SystemExit(STOPPED)
    own = {rank: code for rank, code in codes.items() if code not in (ALONE, -signal.SIGTERM)}
    for rank, code in own.items():
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            print(f"error: process {rank} was ended by {name}{hint}", file=sys.stderr, flush=True)
    return max(own.values(), default=1) if max(own.values(), default=0) > 0 else 1


def _endpoint(nodes: int) -> str:
    """Return where the processes of all nodes meet: on one node at any free port, else on the first node of the Slurm job."""
    if nodes == 1:
        return "localhost:0"
    first = subprocess.run(["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True).stdout.split()[0]
    return f"{first}:{PORT + (int(os.environ['SLURM_JOB_ID']) + int(os.environ.get('SLURM_STEP_ID', 0))) % 1000}"


@contextmanager
def forwarding(tell: Callable[[int], Any]):
    """Pass signals on instead of dying of them. The first one, Ctrl-C or not, asks for a stop; a second Ctrl-C ends the run."""
    asked = []

    def forward(number, frame):
        first = not asked
        asked.append(number)
        tell(signal.SIGUSR1 if first or number != signal.SIGINT else number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        # srun ends the tasks of all nodes as soon as one has ended, and each is to end with the exit code of its own processes
        ending = ON_EACH_NODE in os.environ
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)

"""The judging process of `sdpg.tasks.judge`: reads one JSON request a line, writes one JSON verdict a line.

It loads the library once, and then forks: the fork judges, the first process waits, and forks again when one has ended, which
takes milliseconds. A fork's time limit is its own processor time (ITIMER_PROF), so that no verdict depends on how busy the
machine is; the kernel ends it there, also in the middle of a long computation in C.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import logging
import mmap
import os
import resource
import signal
import sys

from sdpg.tasks.judge import Unjudged
from sdpg.tasks.verifiers import verifier_module

MEMORY_BYTES = 8 << 30  # address space, which is far above what is used; a hostile power tower would take the machine's
PR_SET_PDEATHSIG = 1


def main(kind: str) -> None:
    """Serve the requests of one verifier until standard input ends."""
    for number in (signal.SIGTERM, signal.SIGUSR1):  # Slurm sends them to all processes of a job; the trainer ends this one
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not be taken for a verdict
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    module = verifier_module(kind)
    importlib.import_module(module.LIBRARY)  # before "ready", so that no request pays for it out of its time limit
    if warm := getattr(module, "WARM", None):
        module.judge(**warm)
    gc.freeze()
    busy = mmap.mmap(-1, 1)  # shared with the forks: is a request without its reply?
    print(json.dumps({"ready": True}), file=replies)
    while True:
        fork = os.fork()
        if not fork:
            with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
                _serve(module.judge, replies, busy)
            os._exit(0)
        status = os.waitpid(fork, 0)[1]
        if not status:
            return
        if busy[0]:
            busy[0] = 0
            late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
            print(json.dumps({"late": True} if late else {"error": "the judging process died"}), file=replies)


def _serve(judge, replies, busy) -> None:
    """Answer requests; the process ends with the one that forked it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for line in sys.stdin:
        busy[0] = 1
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            reply = {"correct": bool(judge(**request["fields"]))}
        except Unjudged as error:
            reply = {"error": str(error)}
        except MemoryError:
            reply = {"error": "out of memory"}
        except Exception as error:  # hostile text may raise anything in there; the caller counts it
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        busy[0] = 0
        print(json.dumps(reply), file=replies)

"""The child process of `sdpg.tasks.judge`: reads one JSON request a line, writes one JSON verdict a line."""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import sys

from sdpg.tasks.verifiers import verifier_module

MEMORY_BYTES = 8 << 30  # address space, which is far above what is used; a hostile power tower would take the machine's


def main(kind: str) -> None:
    """Serve the requests of one verifier until standard input ends."""
    for number in (signal.SIGTERM, signal.SIGUSR1):  # Slurm sends them to all processes of a job; the trainer ends this one
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not be taken for a verdict
    logging.disable(logging.CRITICAL)
    module = verifier_module(kind)
    importlib.import_module(module.LIBRARY)  # before "ready", so that no request pays for it out of its time limit
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"correct": bool(module.judge(**request))}
        except Exception as error:  # hostile text may raise anything in there; the caller counts it
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(reply), file=replies)

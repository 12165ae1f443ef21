"""The child process of `sdpg.tasks.judge`: reads one JSON request a line, writes one JSON verdict a line."""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import sys

MEMORY_BYTES = 8 << 30  # address space, which is far above what is used; a hostile power tower would take the machine's


def judge_math(answer: str, given: str) -> bool:
    """Is the content of the response's box mathematically equal to the reference answer? (math-verify, no time limit)"""
    from math_verify import LatexExtractionConfig, parse, verify

    box = [LatexExtractionConfig(boxed_match_priority=0)]
    gold = parse(f"\\boxed{{{answer}}}", box, parsing_timeout=None)
    if not gold:
        raise ValueError(f"the reference answer {answer!r} could not be read")
    return verify(gold, parse(f"\\boxed{{{given}}}", box, parsing_timeout=None), timeout_seconds=None)


def judge_gym(answer: str, given: str, source: str) -> bool:
    """Does reasoning-gym's own scorer give the answer full marks? The entry is generated again from `source`."""
    from sdpg.tasks.gym import regenerate

    dataset, entry = regenerate(source)
    if entry["answer"] != answer:
        raise ValueError(
            f"reasoning-gym now generates {entry['answer']!r} where the data says {answer!r}; remake the data"
        )
    return dataset.score_answer(given, entry) >= 1.0


JUDGES = {"math-verify": (judge_math, "math_verify"), "reasoning-gym": (judge_gym, "sdpg.tasks.gym")}


def main(kind: str) -> None:
    """Serve requests of one kind until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not be taken for a verdict
    logging.disable(logging.CRITICAL)
    judge, module = JUDGES[kind]
    importlib.import_module(module)  # before "ready", so that no request pays for it out of its time limit
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"correct": bool(judge(**request))}
        except Exception as error:  # hostile text may raise anything in there; the caller counts it
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(reply), file=replies)

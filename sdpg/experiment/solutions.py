"""The rule `solutions`: worked solutions for the training problems of a scale that have none, by the writer it names."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sdpg.config import Config
from sdpg.experiment.inputs import content_params, is_folder_name, model_files
from sdpg.experiment.written import FOLDER, TABLE, wanted
from sdpg.io import kind_of, path_of, write_atomic, write_json
from sdpg.solutions.asking import Stop
from sdpg.solutions.prompt import load_prompt, prompt_path

REPORT, JOURNAL = "report.json", "journal.jsonl"
COLUMNS = {  # of solutions.parquet: one row for each problem with a solution
    **{"key": "str", "id": "str", "solution": "str", "try": "int64", "writer": "str", "model": "str", "served": "str"},
    **{"host": "str", "at": "str", "prompt_tokens": "float64", "completion_tokens": "float64", "cost": "float64"},
    **{"prompt": "str", "temperature": "float64"},
}


def check(config: Config) -> None:
    """Raise ValueError for what can be known to be wrong before any work: files that are not there."""
    block = config.data.solutions
    if block is None:
        return
    if block.file:
        from sdpg.solutions.from_file import check_file

        check_file(block.file)
        return
    writer = block.local or block.endpoint
    load_prompt(writer.prompt, show_answer=writer.show_answer, task=config.task)
    if block.local:
        _check_folder(block.local.model)


def _check_folder(model: str) -> None:
    """Raise ValueError for a folder that has no checkpoint. What is only read may be quantised, unlike `model.pretrained`."""
    if is_folder_name(model) and not (path_of(model) / "config.json").is_file():
        what = "has no config.json" if kind_of(path_of(model)) == "folder" else "does not exist"
        raise ValueError(
            f"data.solutions.local.model: {model} {what} (looked in {path_of(model).absolute().parent}); expected a "
            "Hugging Face checkpoint with tokenizer, or a hub id such as 'owner/name'"
        )


def own_files(config: Config) -> list[str]:
    """Return the user's own files that the solutions depend on: the file of solutions, the model, a prompt of theirs."""
    block = config.data.solutions
    if block.file:
        return [block.file.path]
    writer = block.local or block.endpoint
    own = [writer.prompt] if writer.prompt.endswith((".yaml", ".yml")) else []
    return [*own, *(str(path) for path in _weights(block.local.model) if block.local)] if block.local else own


def prompt_file(config: Config) -> list[str]:
    """Return the project's file with the prompt, as from the project's folder, if the scale takes one of these."""
    writer = config.data.solutions.local or config.data.solutions.endpoint
    if writer is None or writer.prompt.endswith((".yaml", ".yml")):
        return []
    return [f"sdpg/solutions/{prompt_path(writer.prompt).name}"]


def _weights(model: str) -> list[Path]:
    folder = path_of(model)
    return model_files(folder) if is_folder_name(model) and kind_of(folder) == "folder" else []


def make_solutions(config: Config, root: Path, *, threads: int = 1, estimate: bool = False) -> str:
    """Write root/solutions/solutions.parquet and report.json, or only estimate what that costs -> what is printed.

    journal.jsonl beside them has every answer: a call after a kill goes on. Raises ValueError in one line: nothing to write,
    a source's errors, no key, an endpoint that cannot be asked, a cost beyond max_cost.
    """
    if not wanted(config):
        raise ValueError(
            f"data.solutions: there is nothing to write at scale {config.name}: it names no writer, or no method's teacher "
            f"reads worked solutions (template {config.task.template!r})"
        )
    check(config)
    from sdpg.experiment.problems import room_of
    from sdpg.solutions.accepting import Accepting
    from sdpg.tasks.data import training_problems

    room, block = room_of(config), config.data.solutions
    problems = training_problems(config, room=room)
    missing = [problem for problem in problems if not problem.solution]
    accept = Accepting(config, room, verify=block.file.verify if block.file else True)
    folder = root / FOLDER
    try:
        if block.file:
            from sdpg.solutions.from_file import from_file

            rows, counts = from_file(block.file, missing, accept)
            counts = {"problems": len(missing), "accepted": len(rows), "without": len(missing) - len(rows), **counts}
            if estimate:
                return (
                    f"{len(rows)} of {len(missing)} problems have an accepted solution in {block.file.path}; it costs nothing"
                )
        else:
            written = _written(config, folder, missing, accept, threads, estimate)
            if isinstance(written, str):
                return written
            rows, counts = written
    finally:
        accept.close()
    report = {"writer": block.kind, "in_the_data": len(problems) - len(missing), **counts}
    _save(folder, rows, report)
    return summary(report)


def _written(config: Config, folder: Path, missing, accept, threads: int, estimate: bool):
    """Return (rows, counts) of a model's solutions, or the estimate's line."""
    from sdpg.solutions.journal import Journal
    from sdpg.solutions.writing import Writing

    block = config.data.solutions
    settings = block.local or block.endpoint
    prompt = load_prompt(settings.prompt, show_answer=settings.show_answer, task=config.task)
    journal = Journal(folder / JOURNAL)
    facts = {"writer": block.kind, "model": settings.model}
    if block.endpoint:
        from sdpg.solutions import endpoint

        identity = endpoint.identity(settings)
        make = partial(endpoint.EndpointWriter, settings, journal)
    else:
        from sdpg.solutions import local

        identity = local.identity(settings, content_params(_weights(settings.model)))
        make = partial(local.LocalWriter, settings, config, prompt, threads)
    writing = Writing(settings, identity, prompt.of, accept, journal, facts)
    try:
        if journal.half_written:
            print(f"{journal.path}: its last line was half-written, and is taken off; that try is asked again", file=sys.stderr)
        states = writing.begin(missing)
        guess = writing.estimate(states)
        line = f"{config.name} solutions: " + guess.text(settings.max_cost if block.endpoint else None)
        if estimate:
            return line
        print(line, file=sys.stderr, flush=True)
        writing.check(guess)
        with listening() as stop:
            writing.run(states, make, stop, f"{config.name} solutions")
        counts = writing.counts(len(missing))
        return writing.rows, counts | {"estimated_cost": round(guess.cost, 6)}
    except ValueError as error:
        kept = f" ({len(journal.answers)} answers are kept in {journal.path}; the same command goes on from there)"
        raise ValueError(f"{error}{kept if journal.answers else ''}") from error
    finally:
        journal.close()


@contextmanager
def listening() -> Iterator[Stop]:
    """Note Ctrl-C, SIGTERM and SIGUSR1 instead of dying of them: what is on its way is paid for. A second Ctrl-C is final."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def _ask(number, frame) -> None:
        if stop.asked and number == signal.SIGINT:
            os._exit(130)  # every answer that came is on the disk
        if not stop.asked:
            print("stopping after the answers that are on their way; Ctrl-C again leaves them", file=sys.stderr, flush=True)
        stop.asked = True

    before = {number: signal.signal(number, _ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(folder: Path, rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["id", "key"])  # answers come in any order
    for column, kind in COLUMNS.items():
        frame[column] = frame[column].fillna("").astype("str") if kind == "str" else frame[column].astype(kind)
    with write_atomic(folder / TABLE, "wb") as file:
        frame.to_parquet(file, index=False)
    write_json(folder / REPORT, report)


def summary(report: dict[str, Any]) -> str:
    """Return what the rule prints."""
    lines = [f"worked solutions: {report['accepted']} of {report['problems']} problems that had none ({report['writer']})"]
    for key, what in (("rejected", "responses not accepted"), ("refused", "problems refused")):
        if found := report.get(key):
            lines.append(f"{what}: " + ", ".join(f"{count} {why}" for why, count in sorted(found.items())))
    if report["writer"] == "endpoint":
        tokens = report["tokens"]
        lines.append(
            f"cost {report['cost']:.4g} ({tokens['prompt_tokens']} tokens in, {tokens['completion_tokens']} out; "
            f"{report['without_answer']} requests without an answer counted at their most)"
        )
    if report["without"]:
        lines.append(f"{report['without']} problems stay without one: data.missing_solutions decides what becomes of them")
    return "\n".join(lines)

"""`sdpg show`: a problem of a run with its prompt, the teacher's prompt, and what the model wrote, with verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from sdpg.analysis.generations import read_generations, verdict, visible
from sdpg.analysis.results import Results
from sdpg.config import Config, nearest
from sdpg.evaluation.checkpoints import load_checkpoints
from sdpg.types import Problem


def show(
    config: Config,
    method: str,
    seed: int,
    problem: str,
    *,
    results: Path | None = None,
    set_name: str | None = None,
    step: int | None = None,
    sample: int | None = None,
    right: bool | None = None,
    train: bool = False,
) -> Iterator[str]:
    """Yield what is printed, piece by piece; every hidden character of it can be seen, whatever a model wrote.

    problem: its id, or its number in the set, from 0. set_name: an evaluation set, the first unless given. step: a checkpoint,
    the last unless given. sample: one alone. right: right ones alone, or wrong ones. train: a training problem, whose responses
    are not kept. Raises ValueError with what there is.
    """
    tree = Results.from_config(config, results)
    name = "train" if train else set_name or tree.tasks[0]
    if name != "train" and name not in tree.tasks:
        raise ValueError(f"--set: got {name!r}, which is no evaluation set of scale {config.name}; {nearest(name, tree.tasks)}")
    file = tree.root / "data" / ("train.parquet" if train else f"eval/{name}.parquet")
    chosen, place, count = find(problem, file)
    yield f"{config.name}, {method} seed {seed}, {name}: problem {visible(chosen.id)} (number {place} of {count}, from 0)\n"
    yield f"reference answer: {visible(chosen.answer)}\n"
    yield from prompts(config, tree.run_dir(method, seed), chosen)
    if train:
        yield "\nresponses of training are not kept; metrics.jsonl has what became of each step\n"
        return
    yield from responses(tree.eval_dir(method, seed) / f"{name}.parquet", chosen.id, step, sample, right)


def find(problem: str, file: Path) -> tuple[Problem, int, int]:
    """Return a problem of a set by its id or number, its number, and how many there are. Raises ValueError with the nearest."""
    from sdpg.tasks.data import load_problems

    problems = load_problems(file)
    place = next((i for i, candidate in enumerate(problems) if candidate.id == problem), None)
    if place is None and problem.isdecimal() and int(problem) < len(problems):
        place = int(problem)
    if place is None:
        near = get_close_matches(problem, [candidate.id for candidate in problems], n=1, cutoff=0)
        there = f"the numbers 0 to {len(problems) - 1}, and ids such as {near[0]!r}"
        raise ValueError(f"--problem: got {problem!r}, which is not in {file}: it has {there}")
    return problems[place], place, len(problems)


def prompts(config: Config, run_dir: Path, problem: Problem) -> Iterator[str]:
    """Yield the student's and the teacher's prompt, made anew with the run's own tokenizer; only their text without a run."""
    from transformers import AutoTokenizer

    from sdpg.tasks.task import make_task

    task = make_task(config.task, AutoTokenizer.from_pretrained(load_checkpoints(run_dir, verify=False)[-1].path))
    try:
        for title, ids in (("prompt", task.student_prompt(problem)), ("teacher's prompt", task.teacher_prompt(problem))):
            text = task.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            yield f"\n--- {title}: {len(ids)} tokens\n{visible(text)}\n"
    finally:
        task.close()


def responses(path: Path, problem: str, step: int | None, sample: int | None, right: bool | None) -> Iterator[str]:
    """Yield the responses to one problem at one checkpoint, with their verdicts."""
    facts = read_generations(path, texts=False, problems=[problem])
    if facts.empty:
        raise ValueError(f"{path} has no response to problem {problem!r}; run its evaluation rule again")
    steps = sorted(map(int, facts["step"].unique()))
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"--step: got {step}, expected a checkpoint: {', '.join(map(str, steps))}")
    rows = read_generations(path, steps=[step], problems=[problem])
    if sample is not None and sample not in set(rows["sample"]):
        raise ValueError(f"--sample: got {sample}, expected 0 to {rows['sample'].max()}")
    correct = int(rows["correct"].sum())
    yield f"\n=== step {step}: {correct} of {len(rows)} responses are right (checkpoints: {', '.join(map(str, steps))})\n"
    chosen = [row for row in rows.itertuples() if sample in (None, row.sample) and right in (None, row.correct)]
    if not chosen:
        which = "right" if right else "wrong"
        yield f"\nnone of them is {which}\n" if sample is None else f"\nsample {sample} is not {which}\n"
    for row in chosen:
        title = f"sample {row.sample}: {verdict(row)}; {row.tokens} tokens, {visible(row.finish_reason)}"
        yield f"\n--- {title}\n{visible(row.text)}\n"

"""What a writer is asked: a YAML file with `prompt` and, for show_answer, `prompt_with_answer`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from sdpg.config.settings import Task
from sdpg.tasks.prompts import load_template
from sdpg.types import Problem

FOLDER = Path(__file__).parent
KEYS = {"prompt": ("question", "form"), "prompt_with_answer": ("question", "answer", "form")}  # and the fields of each


def prompt_path(name: str) -> Path:
    """Return the file of a prompt by name, or the path itself. Raises ValueError with the nearest name."""
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        near = get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        where = f"the file does not exist (looked in {path.absolute().parent})" if own else f"there is no such prompt{hint}"
        raise ValueError(f"data.solutions: prompt: got {name!r}; {where}; take one of {', '.join(known)}, or a YAML file")
    return path


def answer_form(task: Task) -> str:
    r"""Return the last line from which the task's verifier reads the answer 42: `\boxed{42}`, `Answer: 42`."""
    template = load_template(task.template)
    mark = template.answer_after
    boxed = task.verifier == "math-verify" or not mark or "\\boxed" in template.student
    return " ".join(filter(None, [mark and mark.capitalize(), "\\boxed{42}" if boxed else "42"]))


@dataclass(frozen=True)
class Prompt:
    """The text of one question; `question`, `answer` and `form` stand in braces in it."""

    text: str
    form: str

    def content(self, problem: Problem) -> dict[str, str]:
        """Return the parts that come from the data."""
        return {"question": problem.question, "answer": problem.answer}

    def render(self, content: Mapping[str, str]) -> str:
        """Return the prompt with these parts in it, in one pass: braces of the data are no fields."""
        values = {**content, "form": self.form}
        return re.sub(r"\{(question|answer|form)\}", lambda match: values[match[1]], self.text)

    @property
    def of(self) -> Callable[[Problem], str]:
        """A function: problem -> prompt."""
        return lambda problem: self.render(self.content(problem))


def load_prompt(name: str, *, show_answer: bool, task: Task) -> Prompt:
    """Load a prompt by name or path. Raises ValueError for a file that is none, or lacks a field."""
    path = prompt_path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"data.solutions: prompt: {path} is not valid YAML: {' '.join(str(error).split())}") from error
    key = "prompt_with_answer" if show_answer else "prompt"
    if not isinstance(values, dict) or set(values) - set(KEYS) or not isinstance(values.get(key), str):
        got = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"data.solutions: prompt: {path} has {got}; expected {' and '.join(KEYS)}, each a text, with {key}")
    text = values[key]
    if missing := [field for field in KEYS[key] if f"{{{field}}}" not in text]:
        raise ValueError(f"data.solutions: prompt: {path}: {key} has no {{{missing[0]}}} in it")
    if not show_answer and "{answer}" in text:
        raise ValueError(f"data.solutions: prompt: {path}: prompt has {{answer}} in it, but show_answer is false; take it out")
    return Prompt(text, answer_form(task))

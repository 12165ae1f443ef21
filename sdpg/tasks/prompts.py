"""Prompt templates: YAML files whose fields are filled in by plain replacement.

    student: text with {question}                      what the policy sees
    teacher: text with {question}, {answer}, {solution} and {student} (the student's text)
    shots: [{question, answer, solution}, ...]         optional worked examples, put in front of either prompt
    shot_response: text with {answer}, {solution}      what follows a shot's prompt
    answer_after: text                                 optional: where the verifier finds the answer in a response
    teacher_without_solution: text                     optional: `teacher` for a problem without a worked solution

A problem's text is never scanned for fields, so braces in it (LaTeX) do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sdpg.config.reading import parse_value

FOLDER = Path(__file__).parent / "templates"
_FIELD = re.compile(r"\{(question|answer|solution|student)\}")
_LIKE_FIELD = re.compile(r"\{\s*([A-Za-z_]+)\s*\}")
_FIELDS = ("question", "answer", "solution", "student")
_PRIVILEGED = _FIELDS[1:]


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace every {field} of `template` that `values` names, in one pass; all other braces stay as they are."""
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), template)


@dataclass(frozen=True)
class Template:
    """One prompt template; see the module's docstring for the fields."""

    name: str
    student: str
    teacher: str
    shots: tuple[Mapping[str, str], ...] = ()
    shot_response: str = ""
    answer_after: str | None = None
    teacher_without_solution: str | None = None

    def __post_init__(self):
        for field in ("student", "teacher", "shot_response", "answer_after", "teacher_without_solution"):
            value = getattr(self, field)
            if value is None and field in ("answer_after", "teacher_without_solution"):
                continue
            if not isinstance(value, str):
                raise ValueError(f"template {self.name!r}: {field!r} is {value!r}, expected text; put it in quotes")
            for match in _LIKE_FIELD.finditer(value if field != "answer_after" else ""):
                near = get_close_matches(match[1].lower(), _FIELDS, n=1, cutoff=0.8)
                if near and match[0] != f"{{{near[0]}}}":
                    text = f"{field!r} has {match[0]} in it, which no text takes the place of; write {{{near[0]}}}"
                    raise ValueError(f"template {self.name!r}: {text}")
        if "{question}" not in self.student:
            raise ValueError(f"template {self.name!r}: 'student' has no {{question}} in it, so no problem could be put")
        for field in _PRIVILEGED:
            if f"{{{field}}}" in self.student:
                raise ValueError(f"template {self.name!r}: 'student' must not use {{{field}}}: the policy would see the hint")
        if "{question}" not in self.teacher and "{student}" not in self.teacher:
            raise ValueError(f"template {self.name!r}: 'teacher' has neither {{question}} nor {{student}} in it")
        if self.teacher_without_solution is not None:
            self._check_without_solution(self.teacher_without_solution)
        for i, shot in enumerate(self.shots):
            if missing := {"question", "answer", "solution"} - set(shot):
                raise ValueError(f"template {self.name!r}: shot {i} has no {', '.join(sorted(missing))}")

    def _check_without_solution(self, text: str) -> None:
        if "{solution}" in text or not {"{question}", "{student}"} & set(re.findall(r"\{\w+\}", text)):
            raise ValueError(
                f"template {self.name!r}: 'teacher_without_solution' must have {{question}} or {{student}} in it, and no "
                "{solution}: it is for problems that have none"
            )

    @property
    def reads_solution(self) -> bool:
        """Whether the teacher's prompt has the worked solution in it."""
        return "{solution}" in self.teacher

    @property
    def shows_answer(self) -> bool:
        """Whether the teacher's prompt has the answer in it."""
        return "{answer}" in self.teacher

    def student_text(self, question: str) -> str:
        """Return the policy's prompt. It takes the question only, so no privileged context can get in."""
        return self._prompt(self.student, {"question": question})

    def teacher_text(self, question: str, answer: str, solution: str) -> str:
        """Return the prompt of the same model with the privileged context (answer and worked solution, if there is one)."""
        text = self.teacher
        if not solution and self.teacher_without_solution is not None:
            text = self.teacher_without_solution
        text = text.replace("{student}", self.student)
        return self._prompt(text, {"question": question, "answer": answer, "solution": solution})

    def shot_questions(self) -> list[str]:
        """Return questions whose answers every prompt shows: they must not be in any data set."""
        return [shot["question"] for shot in self.shots]

    def _prompt(self, text: str, values: Mapping[str, str]) -> str:
        shots = [fill(text, shot) + fill(self.shot_response, shot) for shot in self.shots]
        return "".join(shots) + fill(text, values)


def template_names() -> list[str]:
    """Return the names of the templates that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_template(name: str) -> Template:
    """Load a template by name, or from a path that ends in .yaml. Raises ValueError with the nearest name or bad key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        near = get_close_matches(name, template_names(), n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"unknown template {name!r}{hint}; known: {', '.join(template_names())}, or a path to a .yaml file")
    try:
        values = parse_value(path.read_text(encoding="utf-8"), f"template {path}")
    except UnicodeDecodeError as error:
        raise ValueError(f"template {path} is not valid YAML: {' '.join(str(error).split())}") from error
    known = {"student", "teacher", "shots", "shot_response", "answer_after", "teacher_without_solution"}
    if not isinstance(values, dict) or set(values) - known or not {"student", "teacher"} <= set(values):
        got = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"template {path}: got {got}, expected student and teacher, and optionally {sorted(known)}")
    shots = values.pop("shots", None) or ()
    if not isinstance(shots, list | tuple) or not all(isinstance(shot, dict) for shot in shots):
        raise ValueError(f"template {path}: shots is {shots!r}, expected a list of question, answer and solution")
    shots = tuple({key: str(value) for key, value in shot.items()} for shot in shots)
    return Template(name=path.stem, shots=shots, **values)

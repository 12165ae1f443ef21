"""Public data sets, one file each in config/datasets: where they come from, their licence, and the content that they must have.

A commit of the hub says which files are meant, a hash of the problems that they are these, whoever serves them: the hub, its
cache, or a copy in a folder of the user's (`data.mirror`). Rows are put in the order of their content, so that a copy in
another order gives the same run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from sdpg.io import ROOT, path_of
from sdpg.tasks.cleaning import content_key
from sdpg.tasks.layouts import without_marks
from sdpg.tasks.rows import FORMATS
from sdpg.types import Count, Problem, Settings, Text

FOLDER = ROOT / "config" / "datasets"
_COMMIT = r"^[0-9a-f]{40}$"
_SHA256 = r"^[0-9a-f]{64}$"
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WHOLE = re.compile(r"([-+]?)0*(\d+)(?:\.0*)?")


class Split(Settings):
    """One split of a data set."""

    rows: Count
    """Rows, repeated ones included."""
    sha256: Annotated[str, Field(pattern=_SHA256)] | None = None
    """`content_hash` of its problems; null where it is not known: then the commit and the rows are all that is checked."""
    solutions: Annotated[str, Field(pattern=_SHA256)] | None = None
    """`solutions_hash` of its worked solutions, which those of a copy must have; null where it has none."""


class Dataset(Settings):
    """A public data set."""

    title: Text
    """What it is, in one line."""
    licence: Text
    """Under which terms it may be used, and who says so."""
    hub: Text
    """Its id on the Hugging Face hub."""
    revision: Annotated[str, Field(pattern=_COMMIT)] | None = None
    """The commit there; null where none could be established: then every split has a hash."""
    subset: Text | None = None
    """Its subset (configuration) there."""
    columns: dict[Text, Text] = {}
    """Field (question, answer, solution) -> its column there, where the names differ."""
    answer_after: Text | None = None
    """As in a source's `answer_after`."""
    splits: Annotated[dict[Text, Split], Field(min_length=1)]
    """Name of a split there -> what it has to hold."""


def available() -> list[str]:
    """Return the names of the data sets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def dataset_file(name: str) -> str:
    """Return the file of a data set, relative to the project."""
    return f"config/datasets/{name}.yaml"


def load_dataset(name: str) -> Dataset:
    """Return a data set by name. Raises ValueError naming those that there are, or what is wrong with its file."""
    if name not in available():
        raise ValueError(f"expected one of {', '.join(available())} (config/datasets) as `dataset`")
    return _read(FOLDER / f"{name}.yaml", name)


@cache
def _read(path: Path, name: str) -> Dataset:
    from sdpg.config.reading import parse_value  # here: the config knows the kinds of sources, and so imports this file

    try:
        found = Dataset.model_validate(parse_value(path.read_text(encoding="utf-8"), dataset_file(name)))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ValueError(f"{dataset_file(name)}: {at}: got {first['input']!r}; {first['msg']}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{dataset_file(name)} is not UTF-8: {error}") from None
    if not found.revision and any(split.sha256 is None for split in found.splits.values()):
        raise ValueError(f"{dataset_file(name)}: has neither a revision nor a sha256 for each split; one of them must pin it")
    return found


def split_of(name: str, split: str | None) -> str:
    """Return the split that is meant: the one that was named, or the only one. Raises ValueError."""
    splits = load_dataset(name).splits
    if split is None and len(splits) == 1:
        return next(iter(splits))
    if split not in splits:
        raise ValueError(f"expected one of {', '.join(splits)} as `split` of data set {name}")
    return split


def answer_key(answer: str) -> str:
    """Return an answer in one spelling: 025, 25.0 and 25 are the same, and so are 1,000 and 1000."""
    text = _THOUSANDS.sub("", content_key(answer))
    if whole := _WHOLE.fullmatch(text):
        sign = "-" if whole[1] == "-" and whole[2] != "0" else ""
        return sign + whole[2]
    return text


def _pair(problem: Problem) -> str:
    return f"{content_key(problem.question)}\t{answer_key(problem.answer)}"


def content_hash(problems: Iterable[Problem]) -> str:
    """Return the SHA-256 over the problems' (question, answer) pairs, whatever their order, their white space and their ids."""
    return hashlib.sha256("\n".join(sorted(map(_pair, problems))).encode()).hexdigest()


def solutions_hash(problems: Iterable[Problem]) -> str:
    """Return the SHA-256 over the problems with their worked solutions, whatever their white space."""
    lines = (f"{_pair(problem)}\t{' '.join(problem.solution.split())}" for problem in problems)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


class Wanted(NamedTuple):
    """A split of a data set, and where copies of it may lie."""

    name: str
    split: str
    mirror: str | None

    @property
    def label(self) -> str:
        """Whose row a problem is: gsm8k/train."""
        return f"{self.name}/{self.split}"


def mirrored(wanted: Wanted) -> list[Path]:
    """Return the files in the mirror that may be this split: NAME/SPLIT, NAME-SPLIT and, of a set with one split, NAME, with an
    ending that can be read, in the folder or one below. Raises ValueError for a mirror that is no folder.
    """
    if wanted.mirror is None:
        return []
    folder = path_of(wanted.mirror)
    if not folder.is_dir():
        raise ValueError(f"mirror: {wanted.mirror} is no folder (looked in {folder.absolute().parent})")
    stems = [f"{wanted.name}/{wanted.split}", f"{wanted.name}-{wanted.split}"]
    if len(load_dataset(wanted.name).splits) == 1:
        stems.append(wanted.name)
    names = [f"{stem}.{ending}{packed}" for stem in stems for ending in FORMATS for packed in ("", ".gz")]
    return [path for name in names for path in sorted((*folder.glob(name), *folder.glob(f"*/{name}"))) if path.is_file()]


def read_pinned(wanted: Wanted, read: Callable[..., list[Problem]], prefix: str) -> list[Problem]:
    """Return the problems of a split, in the order of their content, from the mirror if it has a file of that name, else from
    the hub. Raises ValueError in one line: other content, no network, a file that cannot be read.

    read: turns the options of a `path` source into problems.
    """
    dataset = load_dataset(wanted.name)
    own = {"columns": dataset.columns, **({"answer_after": dataset.answer_after} if dataset.answer_after else {})}
    if files := mirrored(wanted):
        problems = _from_file(wanted, dataset.splits[wanted.split], files[0], read, [own, {}])
    else:
        place = {"path": dataset.hub, "subset": dataset.subset, "revision": dataset.revision or "main", "split": wanted.split}
        try:
            problems = read({key: value for key, value in (place | own).items() if value})
        except ValueError as error:
            name = f"{wanted.name}-{wanted.split}.jsonl (or .json, .csv, .parquet)"
            told = f"data.mirror, {wanted.mirror}, has no {name}; {_listed(wanted)}"
            asked = f"without the hub, put a copy into a folder as {name}, and name the folder in data.mirror"
            raise ValueError(f"{error}; {told if wanted.mirror else asked}") from None
        if reason := _other(problems, dataset.splits[wanted.split]):
            raise ValueError(
                f"{wanted.label} of the hub ({dataset.hub}) is not what {dataset_file(wanted.name)} pins: {reason}"
            )
    source = f"{wanted.label}@{dataset.revision[:12]}" if dataset.revision else wanted.label
    problems = sorted(problems, key=_pair)
    return [replace(problem, id=f"{prefix}-{i:06d}", source=source) for i, problem in enumerate(problems)]


def _listed(wanted: Wanted) -> str:
    """Say what a mirror has instead of a copy."""
    there = sorted(path.name + "/" * path.is_dir() for path in path_of(wanted.mirror or "").iterdir())
    return f"it has {', '.join(there[:6])}{', ...' if there[6:] else ''}" if there else "it is empty"


def _from_file(
    wanted: Wanted, split: Split, file: Path, read: Callable[..., list[Problem]], layouts: list[dict]
) -> list[Problem]:
    """Read a copy: with the columns that the hub has, or with this project's own names."""
    reasons = []
    for layout in layouts:
        try:
            problems = read({"path": str(file), **layout})
            if split.solutions:  # as the hub's are read, whose column of answers has them
                problems = [replace(problem, solution=without_marks(problem.solution).strip()) for problem in problems]
        except ValueError as error:
            reasons.append(str(error))
            continue
        if not (reason := _other(problems, split) or _other_solutions(problems, split)):
            return problems
        reasons.insert(0, f"{file}: {reason}")
    raise ValueError(
        f"the mirror's copy of {wanted.label} is not what {dataset_file(wanted.name)} pins: {reasons[0]}; mend or remove it, "
        "or take your own rows as they are with `path:`"
    )


def _other_solutions(problems: list[Problem], split: Split) -> str | None:
    """Return how a copy's worked solutions differ from what is pinned; one without any has none to differ."""
    if not split.solutions or not any(problem.solution for problem in problems):
        return None
    if (found := solutions_hash(problems)) != split.solutions:
        return f"got worked solutions with the content {found[:16]}..., expected {split.solutions[:16]}..."
    return None


def _other(problems: list[Problem], split: Split) -> str | None:
    """Return how problems differ from what is pinned, None if they do not."""
    if len(problems) != split.rows:
        return f"got {len(problems)} rows, expected {split.rows}"
    if split.sha256 and (found := content_hash(problems)) != split.sha256:
        return f"got {len(problems)} rows with the content {found[:16]}..., expected {split.sha256[:16]}..."
    return None

"""Problems from a table: a .jsonl, .json, .csv or .parquet file, or a data set of the hub at a pinned commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Literal

from sdpg.io import path_of
from sdpg.tasks.layouts import MISSING, as_text, lookup, split_answer, user_turn, without
from sdpg.tasks.rows import FORMATS, Place, Row, format_of, read_rows
from sdpg.types import Count, PathText, Problem, Settings, Text

FIELDS = ("id", "question", "answer", "solution")
ENDINGS = f".{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}, or one of these and .gz"


class Columns(Settings):
    """Names of the columns. `reward_model.ground_truth` is an entry of a column, which holds mappings, lists or JSON text."""

    question: Text = "question"
    """Column of the question: text, or a chat (a list of role and content) with one turn, the user's."""
    answer: Text = "answer"
    """Column of the reference answer."""
    solution: Text = "solution"
    """Column of the worked solution."""
    id: Text | None = None
    """Column of the problem's id; without it a column `id` is used if its values differ, else the row's number."""


class Options(Settings):
    """Rows of a table."""

    path: PathText
    """A .jsonl, .json, .csv or .parquet file, also gzipped, or a hub id."""
    subset: Text | None = None
    """Subset (configuration) of a hub data set."""
    split: Text = "train"
    """Split of a hub data set."""
    revision: Text | None = None
    """Commit, tag or branch of a hub data set; pin it for a reproducible run."""
    columns: Columns = Columns()
    """Names of the columns."""
    limit: Count | None = None
    """Use only the first so many problems."""
    answer_after: Text | None = None
    """Mark in the answer's column, such as "####": the answer stands after the last one; what stands before it, without
    calculator marks as in 48/2 = <<48/2=24>>24, is the worked solution, unless there is a column of it."""
    prefix: Text | None = None
    """Instruction before every question in the data, which is taken off; a row without it is an error."""
    suffix: Text | None = None
    """Instruction after every question in the data, which is taken off; a row without it is an error."""
    system_turn: Literal["error", "drop"] | None = None
    """What becomes of a system turn in a chat; null is error."""


def files(options: Options) -> list[str]:
    """Name the file, if it is one."""
    return [options.path] if path_of(options.path).is_file() else []


def problems(options: Options, prefix: str) -> list[Problem]:
    """Read the problems, one for each row. Raises ValueError naming file, row or column: missing, empty, of another type."""
    rows, where = _rows(options)
    found = _Found(options, where)
    for place, row in islice(rows, options.limit):
        found.add(place, row)
    found.check()
    ids = found.ids(prefix)
    return [Problem(id, *values, source=where) for id, values in zip(ids, found.values, strict=True)]


class _Found:
    """What the rows say, field by field."""

    def __init__(self, options: Options, where: str):
        self.options, self.where = options, where
        columns = options.columns
        self.columns = {field: getattr(columns, field) or field for field in FIELDS}
        if columns.solution == columns.answer:  # such a column has the answer alone
            del self.columns["solution"]
        self.values: list[tuple[str, str, str]] = []
        self.own_ids: list[str] = []
        self.present: dict[str, None] = {}  # names of all columns
        self.met: set[str] = set()  # fields whose column some row has
        self.first_empty = ""
        self.texts: dict[str, str] = {}  # equal ones once: a set may repeat each problem a hundred times

    def add(self, place: Place, row: Row) -> None:
        """Take a row."""
        self.present |= dict.fromkeys(row)
        texts = {field: self._text(row, field, place) for field in self.columns}
        question, answer, solution = texts["question"], texts["answer"], texts.get("solution", "")
        if answer and self.options.answer_after:
            answer, before = self._named(place, "answer", split_answer, answer, self.options.answer_after)
            solution = solution or before
        if question:
            question = self._named(place, "question", without, question, self.options.prefix, self.options.suffix)
        for field, text in (("question", question), ("answer", answer)):
            if not text and not self.first_empty:
                value = lookup(row, self.columns[field])
                got = "no such column" if value is MISSING else f"got {value!r}"[:80]
                self.first_empty = f"{self._at(place, field)} is empty; {got}"
        question, solution = (self.texts.setdefault(text, text) for text in (question, solution))
        self.values.append((question, answer, solution))
        self.own_ids.append(texts["id"])

    def _at(self, place: Place, field: str) -> str:
        return f"{self.where}, {place}: {field} (column {self.columns[field]!r})"

    def _named(self, place: Place, field: str, function, *arguments, **named):
        try:
            return function(*arguments, **named)
        except ValueError as error:
            raise ValueError(f"{self._at(place, field)} {error}") from None

    def _text(self, row: Row, field: str, place: Place) -> str:
        value = lookup(row, self.columns[field])
        if value is MISSING:
            return ""
        self.met.add(field)
        if field == "id" and not self.options.columns.id and type(value) not in (str, int, float):
            return ""  # not asked for
        if field == "question":
            drop = self.options.system_turn == "drop"
            value = self._named(place, field, user_turn, value, drop_system=drop)
        return self._named(place, field, as_text, value)

    def check(self) -> None:
        """Raise ValueError for a column that is not there, or a first empty cell. `solution` and `id` may be missing, unless
        they were given a column.
        """
        if not self.values:
            raise ValueError(f"{self.where} is empty: got 0 rows, expected at least 1")
        for field, column in self.columns.items():
            if field in self.met or (field in ("solution", "id") and column == field):
                continue
            near = get_close_matches(column, self.present, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"{self.where} has no column {column!r} for {field}{hint}; it has {', '.join(map(repr, self.present))}; "
                f"say which with data's columns: {{{field}: ...}}"
            )
        if self.first_empty:
            raise ValueError(self.first_empty)

    def ids(self, prefix: str) -> list[str]:
        """Return the problems' ids: of the column that the config names, of a column `id` that can serve, or by row."""
        if named := self.options.columns.id:
            if "" in self.own_ids:
                row = self.own_ids.index("") + 1
                raise ValueError(
                    f"{self.where}, row {row}: id (column {named!r}) is empty; leave columns.id out to number the rows"
                )
            return self.own_ids
        if "" not in self.own_ids and len(set(self.own_ids)) == len(self.own_ids):
            return self.own_ids
        return [f"{prefix}-{i:06d}" for i in range(len(self.values))]


def _rows(options: Options) -> tuple[Iterable[tuple[Place, Row]], str]:
    """Return all rows, and what to call the source in messages."""
    text = options.path
    path = Path(text)
    if format_of(path) is None:
        if path.exists() or text.startswith((".", "/", "~")):
            raise ValueError(f"data file {text} must end in {ENDINGS}; a hub id looks like 'owner/name'")
        return _hub_rows(options)
    if not path.is_file():
        raise ValueError(f"data file {text} does not exist (looked in {path.absolute().parent})")
    for key in ("subset", "revision"):
        if value := getattr(options, key):
            raise ValueError(
                f"{key}: got {value!r}, but {text} is a file, and only a data set of the hub has one; leave it out"
            )
    if options.split != "train":
        raise ValueError(
            f"split: got {options.split!r}, but {text} is a file, which has no splits; name the file of that split"
        )
    return read_rows(path, [getattr(options.columns, field) or field for field in FIELDS]), path.name


def _hub_rows(options: Options) -> tuple[Iterator[tuple[Place, Row]], str]:
    name, revision = options.path, options.revision
    if not revision:
        raise ValueError(
            f"data set {name!r} is no file (.jsonl, .json, .csv, .parquet), so it is taken for a hub id, and that needs "
            "`revision` (a commit of the data set), so that the same data are loaded next time"
        )
    from datasets import load_dataset

    try:
        data = load_dataset(name, options.subset, split=options.split, revision=revision)
    except Exception as error:  # the hub's client raises many kinds: no network, no such id, no such split ...
        reason = " ".join(str(error).split())
        raise ValueError(f"data set {name!r} at {revision} could not be loaded: {type(error).__name__}: {reason}") from error
    subset = f"/{options.subset}" if options.subset else ""
    return ((f"row {i}", row) for i, row in enumerate(data, start=1)), f"{name}{subset}@{revision[:12]}"

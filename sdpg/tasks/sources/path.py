"""Problems from a .jsonl or .parquet file, or from a data set of the hub at a pinned commit."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path

from sdpg.types import Count, PathText, Problem, Settings, Text

FIELDS = ("id", "question", "answer", "solution")
_FILES = (".jsonl", ".parquet")


class Columns(Settings):
    """Names of the columns."""

    question: str = "question"
    """Column of the question."""
    answer: str = "answer"
    """Column of the reference answer."""
    solution: str = "solution"
    """Column of the worked solution."""
    id: str | None = None
    """Column of the problem's id; without it a column `id` is used where there is one, else the row's number."""


class Options(Settings):
    """Rows of a table."""

    path: PathText
    """A .jsonl or .parquet file, or a hub id."""
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


def files(options: Options) -> list[str]:
    """Name the file, if it is one."""
    return [options.path] if Path(options.path).is_file() else []


def problems(options: Options, prefix: str) -> list[Problem]:
    """Read the problems. Raises ValueError naming the file, row or column that is missing, empty or of another type."""
    rows, where = _rows(options)
    rows = rows[: options.limit]
    if not rows:
        raise ValueError(f"{where} is empty: got 0 rows, expected at least 1")
    columns = _columns(options.columns, list(rows[0]), where)
    found = []
    for i, row in enumerate(rows):
        values = {}
        for field in FIELDS:
            value = row.get(columns[field]) if field in columns else None
            text = "" if value is None else str(value).strip()
            if not text and field in ("question", "answer"):
                raise ValueError(f"{where}, row {i + 1}: {field} (column {columns[field]!r}) is empty; got {value!r}")
            if not isinstance(value, (str, int, float, type(None))):
                raise ValueError(
                    f"{where}, row {i + 1}: {field} (column {columns[field]!r}) must be text or a number, "
                    f"got {type(value).__name__}"
                )
            values[field] = text
        values["id"] = values["id"] or f"{prefix}-{i:06d}"
        found.append(Problem(**values, source=where))
    return found


def _columns(mapping: Columns, present: list[str], where: str) -> dict[str, str]:
    """Return field -> column. `solution` and `id` may be missing, unless the mapping gives them a column of another name."""
    columns = {}
    for field in FIELDS:
        column = getattr(mapping, field) or field
        if column in present:
            columns[field] = column
        elif field in ("question", "answer") or column != field:
            near = get_close_matches(column, present, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"{where} has no column {column!r} for {field}{hint}; it has {', '.join(map(repr, present))}; "
                f"say which with data's columns: {{{field}: ...}}"
            )
    return columns


def _rows(options: Options) -> tuple[list[dict], str]:
    """Return all rows as dicts, and what to call the source in messages."""
    text = options.path
    path = Path(text)
    if path.suffix not in _FILES:
        if path.exists() or text.startswith((".", "/", "~")):
            raise ValueError(f"data file {text} must end in {' or '.join(_FILES)}; a hub id looks like 'owner/name'")
        return _hub_rows(options)
    if not path.is_file():
        raise ValueError(f"data file {text} does not exist (looked in {path.absolute().parent})")
    if path.suffix == ".jsonl":
        return _jsonl_rows(path), path.name
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises several unrelated kinds for a file that is not parquet
        raise ValueError(f"{text} could not be read as parquet: {error}") from error
    return frame.astype(object).where(frame.notna(), None).to_dict("records"), path.name


def _jsonl_rows(path: Path) -> list[dict]:
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path.name}, line {number}: got {type(row).__name__}, expected a JSON object")
            rows.append(row)
    columns = {key: None for row in rows for key in row}  # a key may be missing from some rows
    return [{key: row.get(key) for key in columns} for row in rows]


def _hub_rows(options: Options) -> tuple[list[dict], str]:
    name, revision = options.path, options.revision
    if not revision:
        raise ValueError(
            f"data set {name!r} is neither a .jsonl nor a .parquet file, so it is taken for a hub id, and that needs "
            "`revision` (a commit of the data set), so that the same data are loaded next time"
        )
    from datasets import load_dataset

    try:
        data = load_dataset(name, options.subset, split=options.split, revision=revision)
    except Exception as error:  # the hub's client raises many kinds: no network, no such id, no such split ...
        raise ValueError(f"data set {name!r} at {revision} could not be loaded: {type(error).__name__}: {error}") from error
    return data.to_list(), f"{name}@{revision[:12]}"

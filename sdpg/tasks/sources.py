"""Where problems come from: one function per kind of source in a scale file's `data` block.

{chain: {operations: [4, 5, 6], count: 128, seed: 1}}         generated chain arithmetic
{reverse: {digits: [4, 5, 6], count: 128, seed: 1}}           generated, digits backwards
{reasoning-gym: {mix: {...}, count: 128, seed: 1}}            see `sdpg.tasks.gym`
{path: x.jsonl | x.parquet | hub/id, split: train, subset: ..., revision: <commit>,
 columns: {question: ..., answer: ..., solution: ..., id: ...}, limit: N}
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sdpg.tasks.chain import chain_problems, reverse_problems
from sdpg.types import Problem

KINDS = ("chain", "reverse", "reasoning-gym", "path")
FIELDS = ("id", "question", "answer", "solution")
_FILES = (".jsonl", ".parquet")


def build_source(source: dict[str, Any], name: str) -> list[Problem]:
    """The problems of one `data` entry; `name` (such as "train" or "evaluation.chain") is named in errors.

    Generated ids begin with the last part of the name. Raises ValueError for an unknown kind, a missing file or column,
    an empty set, or a row without question or answer.
    """
    kinds = [kind for kind in KINDS if kind in source]
    if len(kinds) != 1:
        got = ", ".join(map(str, source)) or "nothing"
        raise ValueError(f"data.{name}: got {got}; expected exactly one of {', '.join(KINDS)}")
    kind, prefix = kinds[0], name.rpartition(".")[2]
    try:
        if kind == "chain":
            return chain_problems(**source["chain"], prefix=prefix)
        if kind == "reverse":
            return reverse_problems(**source["reverse"], prefix=prefix)
        if kind == "reasoning-gym":
            from sdpg.tasks.gym import gym_problems  # takes seconds to import

            return gym_problems(**source["reasoning-gym"], prefix=prefix)
        return _table_problems(source, prefix)
    except TypeError as error:  # an option that the generator does not have
        raise ValueError(f"data.{name}: {kind}: {error}") from error
    except ValueError as error:
        raise ValueError(f"data.{name}: {error}") from error


def _table_problems(source: dict[str, Any], prefix: str) -> list[Problem]:
    rows, where = _rows(source)
    limit = source.get("limit")
    rows = rows[:limit] if limit else rows
    if not rows:
        raise ValueError(f"{where} is empty: got 0 rows, expected at least 1")
    columns = _columns(source.get("columns") or {}, list(rows[0]), where)
    problems = []
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
        problems.append(Problem(**values, source=where))
    return problems


def _columns(mapping: dict[str, str], present: list[str], where: str) -> dict[str, str]:
    """Field -> column. `solution` and `id` may be missing, unless the mapping names a column of another name for them."""
    columns = {}
    for field in FIELDS:
        column = mapping.get(field) or field
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


def _rows(source: dict[str, Any]) -> tuple[list[dict], str]:
    """All rows as dicts, and what to call the source in messages."""
    text = str(source["path"])
    path = Path(text).expanduser()
    if path.suffix not in _FILES:
        if path.exists() or text.startswith((".", "/", "~")):
            raise ValueError(f"data file {text} must end in {' or '.join(_FILES)}; a hub id looks like 'owner/name'")
        return _hub_rows(source)
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


def _hub_rows(source: dict[str, Any]) -> tuple[list[dict], str]:
    name, revision = str(source["path"]), source.get("revision")
    if not revision:
        raise ValueError(
            f"data set {name!r} is neither a .jsonl nor a .parquet file, so it is taken for a hub id, and that needs "
            "`revision` (a commit of the data set), so that the same data are loaded next time"
        )
    from datasets import load_dataset

    try:
        data = load_dataset(name, source.get("subset"), split=source.get("split", "train"), revision=str(revision))
    except Exception as error:  # the hub's client raises many kinds: no network, no such id, no such split ...
        raise ValueError(
            f"data set {name!r} at {revision} could not be loaded: {type(error).__name__}: {error}"
        ) from error
    return data.to_list(), f"{name}@{str(revision)[:12]}"

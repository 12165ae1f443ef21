"""Rows of a table file, one at a time: .jsonl, .json, .csv and .parquet, each also gzipped. Every error names file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FORMATS = ("jsonl", "json", "csv", "parquet")
Row = dict[str, Any]
Place = str  # "row 3"
_OTHER_ENCODINGS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a zip or Excel file",
    b"\x1f\x8b": "gzipped",
}
NOT_NUMBERS = ("nan", "NaN")  # what pandas writes for nothing
_LONGEST_CELL = 2**31 - 1  # characters


def format_of(path: Path) -> str | None:
    """Return "jsonl", "json", "csv" or "parquet" by a file's ending, in any case and before .gz; None for another one."""
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return ending if ending in FORMATS else None


def read_rows(path: Path, wanted: Iterable[str]) -> Iterator[tuple[Place, Row]]:
    """Yield (place, row) of a file in one of FORMATS; a row has all columns that it can have, with None for what is empty.

    wanted: the columns whose values are needed; a parquet file is read for no others. Raises ValueError.
    """
    kind = format_of(path)
    try:
        if kind == "jsonl":
            yield from _jsonl_rows(path.name, _lines(path))
        elif kind == "json":
            yield from _json_rows(path)
        elif kind == "csv":
            yield from _csv_rows(path)
        else:
            yield from _parquet_rows(path, list(wanted))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path.name} could not be read: {reason}") from error


def parse_json(text: str) -> Any:
    """Return JSON; NaN and Infinity are None. Raises ValueError, also for a key that stands twice in an object."""

    def _once(pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
        return row

    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def _open(path: Path):
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of a UTF-8 file, with or without a byte order mark."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
                if b"\0" in line[:4] and not line.startswith(tuple(_OTHER_ENCODINGS)):
                    raise ValueError(
                        f"{path.name}, line 1 has bytes of 0 (it looks like UTF-16 or UTF-32); save the file as UTF-8"
                    )
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                looks = next(
                    (f" (it looks like {name})" for mark, name in _OTHER_ENCODINGS.items() if line.startswith(mark)), ""
                )
                raise ValueError(
                    f"{path.name}, line {number} is not UTF-8: byte 0x{line[error.start]:02x} at place {error.start + 1}"
                    f"{looks if number == 1 else ''}; save the file as UTF-8"
                ) from None


def _jsonl_rows(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[Place, Row]]:
    count = 0
    for number, line in lines:
        if not line.strip():
            continue
        count += 1
        try:
            row = parse_json(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {number} is not JSON: {error.msg} at place {error.colno}") from None
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{name}, line {number}: got {type(row).__name__}, expected a JSON object")
        yield f"row {count}" + (f" (line {number})" if count != number else ""), row


def _json_rows(path: Path) -> Iterator[tuple[Place, Row]]:
    """Read a list of objects, {"data": [objects]}, or JSON lines under the wrong name."""
    lines = list(_lines(path))
    try:
        value = parse_json("".join(line for _, line in lines))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _jsonl_rows(path.name, lines)
            return
        if not any(line.strip() for _, line in lines):
            return
        raise ValueError(f"{path.name}, line {error.lineno} is not JSON: {error.msg} at place {error.colno}") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict) and len(lines) == 1 and not any(isinstance(inner, (list, dict)) for inner in value.values()):
        value = [value]  # JSON lines with one line
    if not isinstance(value, list):
        keys = f" with keys {', '.join(map(repr, list(value)[:8]))}" if isinstance(value, dict) else ""
        raise ValueError(f'{path.name}: got {type(value).__name__}{keys}, expected a list of objects or {{"data": [objects]}}')
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}, row {number}: got {type(row).__name__}, expected a JSON object")
        yield f"row {number}", row


def _csv_rows(path: Path) -> Iterator[tuple[Place, Row]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    number = 0
    try:
        header = next(reader, [])
        if twice := [name for name in header if header.count(name) > 1]:
            raise ValueError(f"{path.name}: column {twice[0]!r} stands twice in its first line")
        for number, cells in enumerate((cells for cells in reader if cells), start=1):
            if len(cells) != len(header):
                raise ValueError(
                    f"{path.name}, row {number} (line {reader.line_num}) has {len(cells)} cells, expected {len(header)}, as in "
                    "its first line; put text with commas in double quotes"
                )
            yield f"row {number}", {name: _cell(text) for name, text in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise ValueError(f"{path.name}, row {number + 1} (line {reader.line_num}) is not CSV: {error}") from None


def _cell(text: str) -> str | None:
    return None if text in NOT_NUMBERS else text


def _parquet_rows(path: Path, wanted: list[str]) -> Iterator[tuple[Place, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path
    if path.name.lower().endswith(".gz"):
        with _open(path) as unpacked:
            file = io.BytesIO(unpacked.read())
    number = 0
    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        chosen = [name for name in names if name in wanted or name in {column.partition(".")[0] for column in wanted}]
        for batch in table.iter_batches(batch_size=1024, columns=chosen):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", dict.fromkeys(names) | row
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path.name} could not be read as parquet: {reason}") from error

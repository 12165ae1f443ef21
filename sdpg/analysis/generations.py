"""What a model wrote: the responses of an evaluation file with their verdicts, and their text as it can be shown safely."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds

from sdpg.analysis.results import require

FACTS = ["step", "problem_id", "sample", "correct", "process", "tokens", "finish_reason"]
# Characters that could move the cursor, change colours, or show text in another order than it has: control and format
# characters, separators of lines and paragraphs, halves of a pair, those without a meaning.
HIDDEN = {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}


def read_generations(
    path: Path, *, texts: bool = True, steps: Collection[int] | None = None, problems: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the rows of an evaluation file by step, problem and sample: FACTS, and with `texts` text and unjudged.

    steps, problems: those alone; other texts are not held in memory. Raises ValueError for a missing file or column.
    """
    require(path)
    try:
        data = ds.dataset(path)
    except (OSError, ValueError) as error:  # pyarrow's own for what is no parquet file are ValueErrors
        raise ValueError(f"{path} could not be read ({error}); delete it and run its evaluation rule again") from None
    columns = [*FACTS, *(["text"] if texts else [])]
    if missing := [column for column in columns if column not in data.schema.names]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; delete it and run its evaluation rule again")
    if texts and "unjudged" in data.schema.names:
        columns.append("unjudged")
    wanted = ds.scalar(True)
    for column, values in (("step", steps), ("problem_id", problems)):
        if values is not None:
            wanted = wanted & ds.field(column).isin(list(values))
    frame = data.to_table(columns=columns, filter=wanted, batch_size=1024).to_pandas()
    if texts and "unjudged" not in frame:
        frame["unjudged"] = ""
    return frame.sort_values(FACTS[:3], ignore_index=True)


def verdict(row) -> str:
    """Return what became of a response, in words. row: of `read_generations`, with its texts."""
    if row.correct:
        return "right" if pd.isna(row.process) else f"right, {'every step too' if row.process == 1 else 'not every step'}"
    if row.unjudged:
        return f"wrong, since it could not be judged: {visible(row.unjudged)}"
    return "wrong: cut off at the token limit" if row.finish_reason == "length" else "wrong"


def visible(text: str) -> str:
    """Return a text in which every character can be seen: but for line ends and tabs, hidden ones stand as \\x1b, \\u202e."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

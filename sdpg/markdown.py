"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> str:
    """Return a pipe table without a line break at its end; right: so many last columns are aligned to the right."""
    lines = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    lines.insert(1, ["---"] * (len(head) - right) + ["---:"] * right)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

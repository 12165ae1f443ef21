"""A table as data, and its Markdown, LaTeX and CSV forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pandas as pd

from sdpg import markdown
from sdpg.io import write_atomic

NONE = "–"  # a cell that has no value


@dataclass(frozen=True)
class Cell:
    """Text of one cell; bold by the rule that the table's caption states."""

    text: str = NONE
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """columns: (group, name) pairs, equal neighbouring groups share a heading. rows: label and one cell per column."""

    caption: str
    corner: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]
    data: pd.DataFrame = field(repr=False)  # the same numbers, tidy and unrounded

    def __post_init__(self):
        for label, cells in self.rows:
            assert len(cells) == len(self.columns), f"row {label}: {len(cells)} cells for {len(self.columns)} columns"

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(heading, number of columns under it), from left to right."""
        return [(name, len(list(members))) for name, members in groupby(group for group, _ in self.columns)]


def number(value: float) -> str:
    """Return three decimals, as in the paper's tables."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """Return three decimals with a sign, for differences."""
    return f"{value:+.3f}".replace("-", "−")


def interval(mean: float, low: float, high: float) -> str:
    """Return the mean and the ends of its interval: 0.646 [0.610, 0.682]."""
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def to_markdown(table: Table) -> str:
    """Return a pipe table with one header row (group: name), and the caption below it."""
    header = [table.corner, *(f"{group}: {name}" for group, name in table.columns)]
    rows = [[label, *(f"**{cell.text}**" if cell.bold else cell.text for cell in cells)] for label, cells in table.rows]
    return markdown.table(header, rows, right=len(table.columns)) + f"\n\n{table.caption}\n"


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {symbol: f"\\{symbol}" for symbol in "&%$#_{}"}
_LATEX |= {"≈": r"$\approx$"}
_LATEX |= {"–": "--", "−": "$-$", "±": r"$\pm$", "β": r"$\beta$", "<": r"\textless{}", ">": r"\textgreater{}"}


def latex_escape(text: str) -> str:
    """Escape LaTeX's special characters, one pass, so that nothing is escaped twice."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Table, label: str) -> str:
    """Return a `table` environment with booktabs rules (needs \\usepackage{booktabs}): group headings span their columns."""
    spans = " & ".join(rf"\multicolumn{{{count}}}{{c}}{{{latex_escape(group)}}}" for group, count in table.groups)
    rules, start = [], 2
    for _, count in table.groups:
        rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_escape(table.caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *([rf" & {spans} \\", " ".join(rules)] if table.groups else []),
        " & ".join([latex_escape(table.corner), *(latex_escape(name) for _, name in table.columns)]) + r" \\",
        r"\midrule",
    ]
    for row_label, cells in table.rows:
        texts = [latex_escape(cell.text) for cell in cells]
        texts = [rf"\textbf{{{text}}}" if cell.bold else text for text, cell in zip(texts, cells, strict=True)]
        lines.append(" & ".join([latex_escape(row_label), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def write(table: Table, folder: Path, name: str) -> list[Path]:
    """Write <name>.md, .tex and .csv (the tidy data) atomically."""
    texts = {
        "md": to_markdown(table),
        "tex": to_latex(table, name.replace("_", "-")),
        "csv": table.data.to_csv(index=False, lineterminator="\n", float_format="%.8g"),
    }
    paths = [folder / f"{name}.{kind}" for kind in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with write_atomic(path) as file:
            file.write(text)
    return paths

"""Fill the section "Against others" of docs/performance.md from the benchmarks' JSON files; no number there is typed by hand.

    python -m benchmarks.against_in_docs

Between `<!-- against: PART -->` and `<!-- end -->` stands what the part's files say, for every machine that was measured; a
part without files says that it was not measured. `make bench` runs this at its end.
"""

import argparse
import re
from pathlib import Path

from benchmarks import head, limits, rollout, step
from benchmarks.machine import RESULTS
from sdpg.io import read_json, write_atomic

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
TABLES = {"head": head.table, "step": step.table, "rollout": rollout.table, "limits": limits.table}
PARTS = ("summary", *TABLES)
BLOCK = re.compile(r"(<!-- against: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def summary(folder: Path) -> str:
    """The headline ratios as a table."""
    path = folder / "summary.json"
    if not path.is_file():
        return "Not measured yet: `make bench`.\n"
    lines = ["| ratio | value | model | shape | hardware |", "|" + "---|" * 5]
    for row in read_json(path):
        lines.append(f"| `{row['name']}` | {row['value']:.3g} | {row['model']} | {row['shape']} | {row['hardware']} |")
    return "\n".join(lines) + "\n"


def section(part: str, folder: Path) -> str:
    """What stands between the marks of a part."""
    if part == "summary":
        return summary(folder)
    if part not in TABLES:
        raise ValueError(f"{PAGE.name}: unknown part {part!r} in a mark; choose one of {', '.join(PARTS)}")
    texts = [body(TABLES[part](read_json(path))) for path in sorted(folder.glob(f"{part}.json"))]
    texts += [body(TABLES[part](read_json(path))) for path in sorted(folder.glob(f"{part}-*.json"))]
    return "\n".join(texts) if texts else f"Not measured yet: `make bench ARGS='--only {part}'`.\n"


def body(text: str) -> str:
    """A report without its title and its line on who wrote it."""
    _, _, rest = text.split("\n\n", 2)
    return rest.rstrip("\n") + "\n"


def fill(text: str, folder: Path = RESULTS) -> str:
    """The page with all marked parts made again."""
    return BLOCK.sub(lambda m: f"{m[1]}{section(m[2], folder)}{m[3]}", text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    filled = fill(PAGE.read_text(encoding="utf-8"))
    with write_atomic(PAGE) as file:
        file.write(filled)

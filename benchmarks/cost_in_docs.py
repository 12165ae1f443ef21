"""Copy the measured relative costs into the tables of docs/methods/: run it after benchmarks/method_cost.py.

python -m benchmarks.cost_in_docs
"""

import argparse
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "methods"
COST = ROOT / "benchmarks" / "results" / "method_cost.json"
COLUMN = "relative cost"


def fill(text: str, costs: dict[str, float]) -> str:
    """A page with the last cell of every row of its "relative cost" tables set to the method's cost (two digits).

    A row's method is what stands in backticks in its first cell; KeyError if it was not measured.
    """
    lines, inside = [], False
    for line in text.split("\n"):
        if line.endswith(f"| {COLUMN} |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and (method := re.match(r"\| \[?`([\w.-]+)`", line)):
            line = f"{line.rsplit('|', 2)[0]}| {costs[method[1]]:.2f} |"
        lines.append(line)
    return "\n".join(lines)


def measured() -> dict[str, float]:
    """Method -> step time over GRPO's, from the benchmark's file."""
    report = json.loads(COST.read_text(encoding="utf-8"))
    return {name: method["ratio"] for name, method in report["methods"].items()}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(fill(page.read_text(encoding="utf-8"), measured()), encoding="utf-8")

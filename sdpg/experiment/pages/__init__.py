"""The numbers of README.md and docs/: every one that a run gave stands in a block that is made from files.

Between `<!-- results: NAME -->` and `<!-- /results -->` stands what BLOCKS[NAME] makes of results/reference (and of `sdpg
plan`); `sdpg docs` writes it, `sdpg docs --check` and a test hold it. A scale without a reference says "not run yet".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sdpg.experiment.pages import again, first, leaderboard, settings, times, verdicts
from sdpg.experiment.pages.read import References
from sdpg.io import ROOT

BLOCK = re.compile(r"(<!-- results: ([\w' -]+) -->\n).*?(<!-- /results -->)", re.DOTALL)
BLOCKS: dict[str, Callable[[References, str], str]] = {  # of the references and the page's way to the project's folder
    "picture": first.picture,
    "six methods": first.six,
    "verdicts in a line": first.verdicts,
    "made": first.made,
    "costs": times.costs,
    "scales": times.scales,
    "planned": times.planned,
    "jobs": times.jobs,
    "leaderboard": leaderboard.tables,
    "second run": again.second_run,
    "other settings": settings.other_settings,
    "verdicts": verdicts.tables,
    "the paper's curves": verdicts.published,
}


def pages() -> list[Path]:
    """Return the pages that may have blocks: README.md and docs/*.md, as far as they are there (an installed copy has none)."""
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()]


def fill(path: Path, references: References) -> str:
    """Return a page with all its blocks made again. Raises ValueError for a block that there is not, or that is not closed."""
    text = path.read_text(encoding="utf-8")
    up = "../" * (len(path.relative_to(ROOT).parts) - 1)
    opened = text.count("<!-- results: ")
    if opened != len(BLOCK.findall(text)) or opened != text.count("<!-- /results -->"):
        raise ValueError(f"{path.name}: a block `<!-- results: NAME -->` needs its own end, `<!-- /results -->`")

    def made(found: re.Match[str]) -> str:
        if found[2] not in BLOCKS:
            raise ValueError(f"{path.name}: there is no block {found[2]!r}; choose one of {', '.join(BLOCKS)}")
        return f"{found[1]}\n{BLOCKS[found[2]](references, up).strip()}\n\n{found[3]}"

    return BLOCK.sub(made, text)

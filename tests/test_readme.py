"""What the README and the pages that it leads to show must work as written."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MADE = {"notebooks/reference.md", "reference/index.md"}  # by `make docs`, which checks its links
LINKS = sorted(
    {(page, link) for page in PAGES for link in re.findall(r"\]\(((?!https?:)[^)#]+)[^)]*\)", page.read_text("utf-8"))}
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.S)


def test_the_example_scale_file_is_valid(tmp_path):
    from sdpg.config import resolve

    (text,) = blocks("scales.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    assert list(resolve(tmp_path / "mine.yaml").methods) == list(yaml.safe_load(text)["methods"])


def test_the_two_commands_are_near_the_top_and_exist():
    top = README[: README.index("## ")]  # the first screen
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("reproduce", "test"):
        assert f"make {target} " in top
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_every_link_of_the_pages_leads_somewhere():
    assert len(LINKS) > 100
    assert not [f"{page.name}: {link}" for page, link in LINKS if not (page.parent / link).exists() and link not in MADE]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_targets_stand_before_config_which_would_swallow_them(path):
    for command in re.findall(r"snakemake [^`\n#]*--config ([^`\n#]*)", path.read_text(encoding="utf-8")):
        for word in command.split():
            assert "=" in word or word.startswith("-"), f"{path.name}: {command!r} puts {word!r} behind --config"

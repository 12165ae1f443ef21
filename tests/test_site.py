"""The documentation site: what makes its pages, what looks at its links, and, where `make docs` has built it, its search."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.browser import Browser, find_browser

ROOT = Path(__file__).parents[1]
DOCS, SITE = ROOT / "docs", ROOT / "site"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
PROGRAM = find_browser()


def load(name: str):
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare, check = load("prepare"), load("check")


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("scale.md", "slurm.md", "slurm.md"),
        ("scale.md", "slurm.md#records", "slurm.md#records"),
        ("scale.md", "../sdpg/core/plan.py", "source/sdpg/core/plan.py.md"),
        ("methods/sdpg.md", "../../sdpg/algorithms/sdpg.py", "../source/sdpg/algorithms/sdpg.py.md"),
        ("methods/sdpg.md", "../metrics.md#claims", "../metrics.md#claims"),
        ("adding.md", "../README.md#adding-a-method", "source/README.md#adding-a-method"),
        ("paper-scale.md", "../config/datasets", "source/config/datasets/index.md"),
        ("scale.md", "images/step.svg", "images/step.svg"),
        ("source/README.md", "docs/scale.md", "../scale.md"),
        ("source/README.md", "docs/adr/", "../adr/README.md"),
        ("source/README.md", "sdpg/reference.py", "sdpg/reference.py.md"),
        ("source/README.md", "results/reference/cpu/figures/stability.png", "results/reference/cpu/figures/stability.png"),
        ("source/config/datasets/index.md", "gsm8k.yaml", "gsm8k.yaml.md"),
        ("notebooks/reference.md", "../docs/metrics.md", "../metrics.md"),
        ("index.md", "https://arxiv.org/abs/2606.04036v1", "https://arxiv.org/abs/2606.04036v1"),
        ("index.md", "not-there.md", "not-there.md"),
    ],
)
def test_a_link_leads_to_where_the_thing_stands_on_the_site(page, link, expected):
    assert prepare.moved(page, f"[a]({link}) and ![b]({link})") == f"[a]({expected}) and ![b]({expected})"


def test_links_in_code_stay_as_they_are():
    text = "`[a](../README.md)`\n\n```text\n[a](../README.md)\n```\n"
    assert prepare.moved("scale.md", text + "[a](../README.md)") == text + "[a](source/README.md)"


def test_what_is_linked_to_out_of_docs_becomes_a_page_with_what_that_links_to():
    made = prepare.sources({"scale.md": "[a](../config/datasets) [b](../results/published/README.md) [c](../not/there.py)"})
    assert {"source/config/datasets/index.md", "source/config/datasets/gsm8k.yaml.md"} < set(made)
    assert "GSM8K" in made["source/config/datasets/gsm8k.yaml.md"]
    assert not [uri for uri in made if "there" in uri]
    assert all(text.startswith(prepare.UNSEARCHED) for text in made.values() if isinstance(text, str))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_something_of_the_repository(page):
    links: list[str] = []
    text = (DOCS / page).read_text(encoding="utf-8")
    prepare.outside_code(text, lambda part: links.extend(link[2] for link in prepare.LINK.finditer(part)) or part)
    made = ("notebooks/", "reference/")  # pages of the site alone
    dead = [link for link in links if not re.match(r"https?:", link) and prepare.target(page, link) is None]
    assert not [link for link in dead if not link.startswith(made)]


def test_the_nav_names_pages_and_patterns_take_what_is_left():
    nav = ["index.md", {"Methods": ["methods/sdpg.md", "methods/*.md"]}, {"Empty": ["results/*.md"]}, {"More": ["*.md"]}]
    filled = prepare.fill(nav, ["a.md", "index.md", "methods/grpo.md", "methods/sdpg.md"])
    assert filled == ["index.md", {"Methods": ["methods/sdpg.md", "methods/grpo.md"]}, {"More": ["a.md"]}]
    with pytest.raises(ValueError, match=r"nav names b\.md, and there is no such page"):
        prepare.fill(["b.md"], ["a.md"])


def test_every_page_has_a_place_of_its_own_in_the_nav():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load("nav:" + settings.partition("\nnav:")[2])["nav"]
    more = [pattern for item in nav if isinstance(item, dict) for pattern in item.get("More", [])]
    made = list(prepare.reference()) + [f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")]
    left = prepare.fill(nav, [*PAGES, *made])[-1]
    assert more and "More" not in left, f"name it in mkdocs.yml: {left}"


def test_the_reference_has_every_package_and_its_public_modules():
    pages = prepare.reference()
    assert "::: sdpg.algorithms.anchors\n" in pages["reference/sdpg.algorithms.md"]
    assert "::: sdpg.core.trainer\n" in pages["reference/sdpg.core.md"]
    assert "__main__" not in pages["reference/sdpg.md"]
    assert "| [`sdpg.tasks`](sdpg.tasks.md) | Problems, prompts and verifiers." in pages["reference/index.md"]


PAGE = '<html><body><h1 id="top">x</h1><a href="{}">x</a><img src="b.png"><script src="{}"></script></body></html>'


@pytest.mark.parametrize(
    ("link", "script", "fault"),
    [
        ("a.html#top", "a.js", None),
        ("https://example.org/nowhere", "a.js", None),
        ("b.html", "a.js", "no such file"),
        ("../a.html", "a.js", "no such file"),
        ("a.html#bottom", "a.js", "no such anchor"),
        ("#bottom", "a.js", "no such anchor"),
        ("a.html", "b.js", "no such file"),
        ("a.html", "https://example.org/a.js", "not there without a network"),
    ],
)
def test_dead_links_and_what_comes_from_the_network_are_found(tmp_path, link, script, fault):
    (tmp_path / "site").mkdir()
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "site" / "a.html").write_text(PAGE.format(link, script))
    for name in ("a.js", "b.png"):
        (tmp_path / "site" / name).write_text("")
    found = check.faults(tmp_path / "site")
    assert len(found) == (fault is not None)
    assert not fault or fault in found[0]


def test_a_folder_without_pages_is_no_site(tmp_path):
    with pytest.raises(ValueError, match="make docs"):
        check.faults(tmp_path)


# --- pages that speak of code


def messages() -> list[str]:
    """The messages by which docs/faq.md is ordered."""
    headings = re.findall(r"^### (.*)$", (DOCS / "faq.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [quoted for heading in headings for quoted in re.findall("`([^`]+)`", heading) if not quoted.startswith("make ")]


def test_the_messages_of_the_faq_are_those_of_the_code():
    files = [*(ROOT / "sdpg").rglob("*.py"), ROOT / "Makefile"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines
    assert len(messages()) > 25
    missing = [part for message in messages() for part in message.split("…") if part.strip() not in code]
    assert not missing


def test_the_page_of_scales_has_every_scale():
    table = (DOCS / "scales.md").read_text(encoding="utf-8").partition("## Which there are")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for name in re.findall("`([^`]+)`", row)}
    assert named == {path.stem for path in (ROOT / "config" / "scales").glob("*.yaml")}


# --- the site that was built


@pytest.mark.slow
@pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="the site is not built (`make docs`)")
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on this machine; on Debian and Ubuntu: apt install chromium")
def test_the_search_works_from_the_disk():
    with Browser(PROGRAM) as browser:

        def wait_for(text: str, expression: str) -> None:
            deadline = time.monotonic() + 30
            while text not in (said := browser.evaluate(expression)):
                assert time.monotonic() < deadline, f"no {text!r} in {said[:500]!r}"
                time.sleep(0.2)

        browser.open(SITE / "index.html", 1280)
        click = "String((b => b && (b.click(), true))(document.querySelector('.md-search__button')))"
        wait_for("true", click)
        wait_for("true", "String(!!document.activeElement.shadowRoot)")
        browser.call("Input.insertText", text="McNemar")
        shown = "[...document.querySelectorAll('*')].map(e => e.shadowRoot ? e.shadowRoot.textContent : '').join(' ')"
        wait_for("McNemar", shown)  # of the results: what is typed is no content
        asked = [p["request"]["url"] for method, p in browser.events if method == "Network.requestWillBeSent"]
        assert all(url.startswith(("file:", "data:")) for url in asked)
        assert not [p for method, p in browser.events if method in ("Log.entryAdded", "Runtime.exceptionThrown")]

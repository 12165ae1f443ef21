"""Look at the built site: every link, anchor and picture leads somewhere, and nothing is loaded from the network.

The generator looks at the links that stand in Markdown; this also sees those of the API reference, the notebooks and the theme.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """The ids of a page, and the addresses that it links to or loads."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag's id and addresses."""
        attributes = dict(attrs)
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.ids.add(value)
            elif (tag, key) in LOADED and attributes.get("rel") != "canonical":
                self.loads.add(value or "")
            elif tag == "a" and key == "href":
                self.links.add(value or "")


def faults(site: Path) -> list[str]:
    """Return a line for each dead link, and for each thing that a page would load from the network."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise ValueError(f"{site}: no page in it; make docs")
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        outside = [link for link in page.loads if urlsplit(link).scheme in ("http", "https") or link.startswith("//")]
        found += [f"{name} loads {link}, which is not there without a network" for link in sorted(outside)]
        if name.name != "404.html":  # its links begin where the site is published
            dead = {link: fault for link in page.links | page.loads if (fault := dead_link(link, path, site, pages))}
            found += [f"{name}: the link {link!r} leads nowhere: {fault}" for link, fault in sorted(dead.items())]
    return found


def dead_link(link: str, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """Say what is wrong with a link of the page at `path`; None if nothing is, or if it leads out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if site not in target.parents or not target.is_file():
        return "no such file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids | {"__top"}:
        return "no such anchor"
    return None


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    print("\n".join(lines) or f"{sys.argv[1]}: every link leads somewhere, and nothing is loaded from the network")
    sys.exit(bool(lines))

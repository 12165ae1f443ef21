"""Write all pages of the site into a folder, as Markdown: those of docs/, and those that are made. `make docs` runs this first.

A link out of docs/ (`../sdpg/core/plan.py`) works on a repository host, and has to work on the site too, from a disk as well.
So what is linked to becomes a page below `source/`: code with its lines numbered, a Markdown file as it reads, a folder as the
list of its files, all else as it is. Every package has a page below `reference/`, every notebook one below `notebooks/`, run
from its first cell to its last; one that fails ends the build.
"""

from __future__ import annotations

import ast
import fnmatch
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS, HERE = ROOT / "docs", Path(__file__).resolve().parent
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".smk": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}
PICTURES = {".png", ".svg"}
LARGEST = 200_000  # characters of a file that is shown with its lines
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n\n"
SECONDS = 300  # that a cell of a notebook may take


def main(folder: Path, config: Path) -> None:
    """Write the pages into `folder`, made anew, and mkdocs.yml with its nav filled in to `config`."""
    shutil.rmtree(folder, ignore_errors=True)
    made = notebooks() | reference()
    pages = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
    pages |= {uri: text for uri, text in made.items() if isinstance(text, str)}
    for path in [path for path in DOCS.rglob("*") if path.suffix in PICTURES | {".js"}]:
        write(folder / path.relative_to(DOCS), path.read_bytes())
    for uri, content in (made | pages | sources(pages)).items():
        write(folder / uri, moved(uri, content) if isinstance(content, str) else content)
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    head, _, nav = settings.partition("\nnav:")
    filled = fill(yaml.safe_load("nav:" + nav)["nav"], sorted(pages, key=lambda page: page.removesuffix(".md")))
    folders = {"docs_dir": os.path.relpath(folder, config.parent), "nav": filled}
    write(config, head + "\n" + yaml.safe_dump(folders, sort_keys=False))


def write(path: Path, content: str | bytes) -> None:
    """Write a file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


# --- the nav


def named(nav) -> set[str]:
    """Return the pages that a nav names, patterns left out."""
    if isinstance(nav, str):
        return set() if "*" in nav else {nav}
    return {page for item in (nav.values() if isinstance(nav, dict) else nav) for page in named(item)}


def fill(nav: list, pages: list[str]) -> list:
    """Replace each pattern of a nav by those of `pages` that it fits and that stand nowhere else.

    Raises ValueError if it names a page that is not there.
    """
    if missing := named(nav) - set(pages):
        raise ValueError(f"mkdocs.yml: nav names {', '.join(sorted(missing))}, and there is no such page in docs/")
    left = [page for page in pages if page not in named(nav)]

    def _filled(items: list) -> list:
        result = []
        for item in items:
            if isinstance(item, dict):
                sections = {title: _filled(inside) for title, inside in item.items()}
                result += [sections] if any(sections.values()) else []
            elif "*" in item:
                fitting = [page for page in left if fnmatch.fnmatch(page, item)]
                left[:] = [page for page in left if page not in fitting]
                result += fitting
            else:
                result.append(item)
        return result

    return _filled(nav)


# --- links, and what they lead to


def outside_code(text: str, replace) -> str:
    """Apply `replace` to what is no code."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [replace(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, replace(text[end:])])


def origin(uri: str) -> Path:
    """Return the file of the repository that a page is made from: its links start there."""
    if uri.startswith("notebooks/"):
        return ROOT / uri
    if not uri.startswith("source/"):
        return DOCS / uri
    path = ROOT / uri.removeprefix("source/")
    return path if path.exists() or path.name == "index.md" else path.with_suffix("")


def target(uri: str, link: str) -> Path | None:
    """Return the file or folder of the repository that a page's link names; None for an address, and for what is not there."""
    if ":" in link or link.startswith("/"):
        return None
    path = Path(os.path.normpath(origin(uri).parent / link))
    return path if path.exists() and ROOT in path.parents else None


def address(path: Path) -> str:
    """Return where a file or folder of the repository stands on the site."""
    if path == DOCS or DOCS in path.parents:
        name = path.relative_to(DOCS).as_posix()
        return posixpath.normpath(posixpath.join(name, "README.md" if path != DOCS else "index.md")) if path.is_dir() else name
    if path.suffix == ".ipynb":
        return path.relative_to(ROOT).with_suffix(".md").as_posix()
    name = "source/" + path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f"{name}/index.md"
    return name if path.suffix in {".md", *PICTURES} or path.stat().st_size > LARGEST else f"{name}.md"


def moved(uri: str, text: str) -> str:
    """Point a page's links to where things stand on the site."""

    def point(link: re.Match) -> str:
        path = target(uri, link[2])
        place = posixpath.relpath(address(path), posixpath.dirname(uri)) if path else link[2]
        return f"{link[1]}{place}{link[3] or ''}{link[4]}"

    return outside_code(text, lambda part: LINK.sub(point, part))


def sources(pages: dict[str, str]) -> dict[str, str | bytes]:
    """Return a page for everything out of docs/ that a page links to, and that such a page links to in its turn."""
    tracked, made, queue = tracked_files(), {}, list(pages.items())
    while queue:
        uri, text = queue.pop()
        links: list[str] = []
        outside_code(text, lambda part, links=links: links.extend(link[2] for link in LINK.finditer(part)) or part)
        for path in filter(None, (target(uri, link) for link in links)):
            place = address(path)
            if place.startswith("source/") and place not in made:
                made[place] = view(path, tracked)
                if isinstance(made[place], str):
                    queue.append((place, made[place]))
    return made


def tracked_files() -> list[str]:
    """Return the files of the repository, those not committed yet too; without Git all that do not begin with a dot."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return sorted(done.stdout.splitlines())
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("[!.]*") if path.is_file())


def view(path: Path, tracked: list[str]) -> str | bytes:
    """Return the page of a file or folder, or its content where that is no text to read."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        inside = [Path(file).relative_to(name).as_posix() for file in tracked if file.startswith(name + "/")]
        return f"{UNSEARCHED}# {name}/\n\n" + "".join(f"- [{file}]({file})\n" for file in inside)
    if not address(path).endswith(".md"):
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return UNSEARCHED + text
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text) or [""]))
    language = LANGUAGES.get(path.suffix, "text")
    return f'{UNSEARCHED}# {name}\n\n{fence}{language} linenums="1"\n{text.rstrip()}\n{fence}\n'


# --- what is made


def reference() -> dict[str, str]:
    """Return a page of the API reference for every package, and one that lists them."""
    pages, rows = {}, []
    for folder in sorted(path.parent for top in ("sdpg", "baselines") for path in (ROOT / top).rglob("__init__.py")):
        name = folder.relative_to(ROOT).as_posix().replace("/", ".")
        modules = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
        about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        parts = [f"# {name}\n", f"::: {name}\n    options: {{show_root_heading: false, show_root_toc_entry: false}}\n"]
        pages[f"reference/{name}.md"] = "\n".join(parts + [f"::: {name}.{module}\n" for module in modules])
        first = about.partition("\n\n")[0].replace("\n", " ").replace("<", "\\<")
        rows.append(f"| [`{name}`]({name}.md) | {first} |\n")
    text = "# API reference\n\nWhat the docstrings say, package by package, public names alone.\n\n| package | |\n|---|---|\n"
    return pages | {"reference/index.md": text + "".join(rows)}


def notebooks() -> dict[str, str | bytes]:
    """Run the notebooks; return a page for each, and its pictures."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient
    from nbconvert import MarkdownExporter

    made: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(path.parent)}}
        with tempfile.TemporaryDirectory() as sockets:  # and no ports, of which another process may take one meanwhile
            kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(Path(sockets) / "kernel"))
            NotebookClient(notebook, kernel, timeout=SECONDS, startup_timeout=SECONDS, resources=resources).execute()
        text, resources = MarkdownExporter().from_notebook_node(notebook)
        for name, picture in resources["outputs"].items():
            text = text.replace(f"]({name})", f"]({path.stem}-{name})")
            made[f"notebooks/{path.stem}-{name}"] = picture
        made[f"notebooks/{path.stem}.md"] = text
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())

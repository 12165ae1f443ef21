"""Which source files a stage of the workflow depends on, and the fingerprints of their content: read as text, never imported.

Snakemake compares the fingerprints (as params) with those of the last run. So an edit reruns exactly the stages whose code it
touches, and neither a fresh clone nor a touched file reruns anything. A Python file's fingerprint is that of its syntax tree
without docstrings and comments, that of a YAML file below config/ is of what it says: an edited sentence reruns nothing.
(Templates below sdpg/ keep that of their bytes: every run hangs on one, and none need be made again for another form.)
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterable
from functools import cache

import yaml

from sdpg.io import ROOT

PACKAGES = ("sdpg", "baselines")
# What a stage gets from these is in its resolved config already (config), stands in the rule (declarations), or changes no
# result (the rest). Two things of config are not: `limits.WARM_START` and `settings.kept_steps`; tests pin both.
PLUMBING = (
    "sdpg/__main__.py",
    "sdpg/artefacts/__init__.py",
    "sdpg/artefacts/declare.py",
    "sdpg/cli.py",
    "sdpg/config/",
    "sdpg/core/trackers.py",
    "sdpg/experiment/workflow.py",
    "sdpg/io.py",
    "sdpg/locks.py",
    "sdpg/progress.py",
    "sdpg/provenance/",
    "sdpg/redact.py",
    "sdpg/slurm.py",
    "sdpg/startup.py",
    "baselines/__init__.py",
)


def stage_sources(start: str, *, without: Collection[str] = (), extra: Iterable[str] = ()) -> list[str]:
    """Return the files (relative to the project) that `start` reaches by imports, itself first; `extra` with its imports too.

    Imports inside functions count. without: files to leave out, with what only they import. A file that does not exist is
    left out.
    """
    found: list[str] = []
    waiting = [start, *extra]
    while waiting:
        file = waiting.pop(0)
        if file in found or file in without or file.startswith(PLUMBING) or not (ROOT / file).is_file():
            continue
        found.append(file)
        if file.endswith(".py"):
            waiting.extend(sorted(_imports(file)))
    return found


def fingerprints(files: Iterable[str]) -> list[str]:
    """Return ["baselines/grpo.py 3f2a90c1d5e7", ...]: each file's name with its fingerprint."""
    return [f"{file} {fingerprint(file)}" for file in files]


@cache
def fingerprint(file: str) -> str:
    """Return 12 hex digits that stand for a file's content: of Python its syntax tree, of YAML below config/ its values in
    their order, of anything else its bytes.
    """
    if file.endswith(".py"):
        content = " ".join(_collect(_tree(file), [])).encode()
    elif file.startswith("config/") and file.endswith(".yaml"):
        content = _values(file)
    else:
        content = (ROOT / file).read_bytes()
    return hashlib.sha256(content).hexdigest()[:12]


def _values(file: str) -> bytes:
    """Return the values of a YAML file as text; its bytes if it is not YAML, which whoever reads it will say."""
    content = (ROOT / file).read_bytes()
    try:
        return repr(yaml.safe_load(content)).encode()
    except (yaml.YAMLError, ValueError):
        return content


def _collect(node: ast.AST, words: list[str]) -> list[str]:
    """Add a syntax tree to `words`. Empty fields are skipped: Python's versions differ in which of them a tree has."""
    words.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and _opens_with_docstring(node):
            value = value[1:]
        if name == "ctx" or value is None or value == []:
            continue
        words.append(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                _collect(item, words)
            else:
                words.append(repr(item))
    words.append(")")
    return words


def _opens_with_docstring(node: ast.AST) -> bool:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None


@cache
def _tree(file: str) -> ast.Module:
    try:
        return ast.parse((ROOT / file).read_text(encoding="utf-8"), filename=file)
    except SyntaxError as error:
        raise ValueError(f"{file}, line {error.lineno}: {error.msg}; correct it first") from error


@cache
def _imports(file: str) -> frozenset[str]:
    """Return the project files that `file` imports, packages' __init__.py included."""
    modules: set[str] = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(file, node)
            modules.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    files: set[str] = set()
    for module in modules:
        parts = module.split(".")
        if parts[0] in PACKAGES:
            for depth in range(1, len(parts) + 1):
                files.update(_module_files(parts[:depth]))
    return frozenset(files)


def _absolute(file: str, node: ast.ImportFrom) -> str:
    """Return the absolute module name of a `from ... import`."""
    if not node.level:
        return node.module or ""
    package = file.removesuffix(".py").split("/")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _module_files(parts: list[str]) -> list[str]:
    stem = "/".join(parts)
    return [file for file in (f"{stem}.py", f"{stem}/__init__.py") if (ROOT / file).is_file()][:1]

"""Which source files a stage of the workflow depends on, and their content hashes: read from the source, never imported.

Snakemake compares these hashes (as params) with those of the last run. So an edit reruns exactly the stages whose code
it touches, and neither a fresh clone nor a touched file reruns anything, since modification times play no part.
"""

from __future__ import annotations

import ast
import hashlib
import sqlite3
import subprocess
from collections.abc import Collection, Iterable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sdpg", "baselines")
REGISTRY = "baselines/__init__.py"
# What a stage gets from these is in its resolved config already (config), or changes no result (the rest).
PLUMBING = frozenset(
    {f"sdpg/{name}.py" for name in ("provenance", "cli", "io", "progress", "startup")}
    | {f"sdpg/config/{name}.py" for name in ("__init__", "files", "methods", "checks")}
    | {REGISTRY}
)
ENGINE_FILES = {"in-process": "sdpg/rollout/engines/in_process.py", "vllm": "sdpg/rollout/engines/vllm.py"}


def stage_sources(script: str, *, without: Collection[str] = (), extra: Iterable[str] = ()) -> list[str]:
    """Files (relative to the project) that `script` reaches by imports, itself first; `extra` is added with its imports.

    Imports inside functions count too. `without`: files to leave out, with what only they import. A file that does not
    exist is left out.
    """
    skip = PLUMBING | set(without)
    found: list[str] = []
    waiting = [script, *extra]
    while waiting:
        file = waiting.pop(0)
        if file in found or file in skip or not (ROOT / file).is_file():
            continue
        found.append(file)
        if file.endswith(".py"):
            waiting.extend(sorted(_imports(file)))
    return found


def template_file(template: str) -> str:
    """Where a prompt template lives: its name in sdpg/tasks/templates, or the user's own file."""
    return template if template.endswith((".yaml", ".yml")) else f"sdpg/tasks/templates/{template}.yaml"


def fingerprints(files: Iterable[str]) -> list[str]:
    """["baselines/grpo.py 3f2a90c1d5e7", ...]: a file's name with the start of the SHA-256 of its content."""
    return [f"{file} {_digest(file)}" for file in files]


def git_commit() -> str | None:
    """The commit of the project's checkout, with -dirty behind it if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def literal(file: str, name: str) -> str:
    """The text that `file` assigns to `name` at its top level; with "__doc__", the file's docstring. ValueError if none."""
    if name == "__doc__" and (doc := ast.get_docstring(_tree(file))):
        return doc
    for node in _tree(file).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return str(_literal(node.value))
    raise ValueError(f"{file} has no {name}; give it one")


def algorithm_files() -> dict[str, str]:
    """Registry name -> file of the method's class."""
    origins = _class_origins(REGISTRY)
    return {name: origins.get(cls, REGISTRY) for name, cls in _registry().items()}


def algorithm_fields(algorithm: str) -> dict[str, str]:
    """Field name -> annotation of a method's dataclass, its project base classes' included."""
    fields = _fields(algorithm_files()[algorithm], _registry()[algorithm])
    return {name: ast.unparse(node.annotation) for name, node in fields.items()}


def algorithm_defaults(algorithm: str) -> dict[str, Any]:
    """Field name -> default of a method's dataclass; a default that is no literal, and a missing one, as source text."""
    fields = _fields(algorithm_files()[algorithm], _registry()[algorithm])
    return {name: _literal(node.value) for name, node in fields.items()}


def adopt_records(database: Path, workdir: Path) -> None:
    """Make Snakemake's records of earlier runs valid here after the results were copied or moved.

    The records live inside results/, so that they travel with it, but Snakemake files them under the absolute path of
    the project's .snakemake folder. All records in this database belong to this project: give them its present path.
    """
    if not database.is_file():
        database.parent.mkdir(parents=True, exist_ok=True)
        return
    here = (str(workdir.absolute() / ".snakemake"),)
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "snakemake_metadata" in tables:
            foreign = connection.execute("SELECT 1 FROM snakemake_metadata WHERE namespace != ? LIMIT 1", here)
            if foreign.fetchone():
                connection.execute("UPDATE OR REPLACE snakemake_metadata SET namespace = ?", here)
        if "snakemake_locks" in tables:  # a lock held elsewhere when the copy was made says nothing about this place
            connection.execute("DELETE FROM snakemake_locks WHERE namespace != ?", here)


@cache
def _digest(file: str) -> str:
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:12]


@cache
def _tree(file: str) -> ast.Module:
    try:
        return ast.parse((ROOT / file).read_text(encoding="utf-8"), filename=file)
    except SyntaxError as error:
        raise ValueError(f"{file}, line {error.lineno}: {error.msg}; put it right first") from error


@cache
def _registry() -> dict[str, str]:
    """Name -> class name, read from the literal REGISTRY = {...} of baselines/__init__.py."""
    for node in _tree(REGISTRY).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "REGISTRY":
                keys, classes = map(ast.literal_eval, node.value.keys), map(ast.unparse, node.value.values)
                return dict(zip(keys, classes, strict=True))
    raise ValueError(f"{REGISTRY} has no literal REGISTRY = {{name: Class}}; restore it")


@cache
def _imports(file: str) -> frozenset[str]:
    """Project files that `file` imports, packages' __init__.py included."""
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
        if parts[0] in PACKAGES or module.startswith("workflows.scripts"):
            for depth in range(1, len(parts) + 1):
                files.update(filter(None, [_module_file(parts[:depth])]))
    return frozenset(files)


def _absolute(file: str, node: ast.ImportFrom) -> str:
    """The absolute module name of a `from ... import`."""
    if not node.level:
        return node.module or ""
    package = file.removesuffix(".py").split("/")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _module_file(parts: list[str]) -> str | None:
    stem = "/".join(parts)
    for file in (f"{stem}.py", f"{stem}/__init__.py"):
        if (ROOT / file).is_file():
            return file
    return None


def _class_origins(file: str) -> dict[str, str]:
    """Imported name -> project file that it comes from."""
    origins = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ImportFrom) and (source := _module_file(_absolute(file, node).split("."))):
            origins.update({alias.asname or alias.name: source for alias in node.names})
    return origins


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return "required"
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _fields(file: str, name: str) -> dict[str, ast.AnnAssign]:
    body = next((n for n in _tree(file).body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if body is None:
        raise ValueError(f"{file} has no class {name}, which {REGISTRY} registers")
    fields: dict[str, ast.AnnAssign] = {}
    local = {node.name for node in _tree(file).body if isinstance(node, ast.ClassDef)}
    for base in body.bases:
        if isinstance(base, ast.Name) and (origin := file if base.id in local else _class_origins(file).get(base.id)):
            fields |= _fields(origin, base.id)
    for node in body.body:
        declared = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if declared and not ast.unparse(node.annotation).startswith("ClassVar"):
            fields[node.target.id] = node
    return fields

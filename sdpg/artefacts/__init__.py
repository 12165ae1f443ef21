"""One file for each thing that is made from results: summaries, claims, figures, tables, the report, the manifest.

`declared()` lists them, `planned()` those that a scale has; `make()` makes one. An artefact's name is its module's below
this package: `cost`, `figures/cost`, `tables/cost`.
"""

from __future__ import annotations

import ast
import builtins
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpg.artefacts import declare
from sdpg.artefacts.declare import AcrossSpec, ArtefactSpec, FigureSpec, Files, SummarySpec, TableSpec
from sdpg.artefacts.sound import called, check_declaration, check_methods, check_returned
from sdpg.io import ROOT, write_atomic

if TYPE_CHECKING:  # pandas: the workflow need not wait for it
    from sdpg.analysis.results import Results
    from sdpg.config.settings import Config

FOLDER = ROOT / "sdpg" / "artefacts"


@dataclass(frozen=True)
class Declared:
    """An artefact's name, its declaration, and its module's file, relative to the project."""

    name: str
    spec: ArtefactSpec
    file: str
    doc: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that it writes, as from the scale's folder."""
        return self.spec.outputs(self.name)

    @property
    def about(self) -> str:
        """One line that says what it is."""
        return self.spec.about or self.doc.partition("\n")[0]

    @property
    def caption(self) -> str:
        """What stands below it: the caption, or for lack of one the module's docstring."""
        return self.spec.caption or self.doc

    @property
    def module(self) -> Any:
        """The imported module."""
        return importlib.import_module("sdpg.artefacts." + self.name.replace("/", "."))


@dataclass(frozen=True)
class Job:
    """What an artefact is made from and for: the results, their config, the files in them, and what the user asked for."""

    results: Results
    config: Config
    files: Files
    scale: str  # as named by the user
    overrides: Mapping[str, Any]


@cache
def declared() -> dict[str, Declared]:
    """Return every artefact of the project by name. Raises ValueError for a declaration that cannot be read."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=file)
        except SyntaxError as error:
            raise ValueError(f"{file}, line {error.lineno}: {error.msg}") from None
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and _target(node) == "ARTEFACT":
                parts = path.relative_to(FOLDER).with_suffix("").parts
                name = "/".join(part for part in parts if part != "__init__")
                if name in found:
                    raise ValueError(f"{found[name].file} and {file} both declare the artefact {name!r}; rename one")
                spec = _evaluate(node.value, file)
                check_declaration(spec, name, file)
                found[name] = Declared(name, spec, file, ast.get_docstring(tree) or "")
    return found


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    """Return the name that a statement assigns to, with or without a type."""
    return ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])


def _evaluate(expression: ast.expr, file: str) -> ArtefactSpec:
    if unknown := _free_names(expression) - vars(declare).keys() - vars(builtins).keys():
        names = ", ".join(map(repr, sorted(unknown)))
        raise ValueError(f"{file}, ARTEFACT: {names} is unknown; it may use names of sdpg/artefacts/declare.py only")
    code = compile(ast.Expression(expression), file, "eval")
    try:
        spec = eval(code, vars(declare).copy())  # the project's own source, in the names of declare.py
    except Exception as error:  # whatever an expression can raise
        raise ValueError(f"{file}, ARTEFACT: {error}") from error
    if not isinstance(spec, ArtefactSpec):
        raise ValueError(f"{file}, ARTEFACT: got {type(spec).__name__}, expected one of the kinds in declare.py")
    return spec


def _free_names(expression: ast.expr) -> set[str]:
    """Return the names that an expression takes from outside, in its lambdas too, which run later."""
    found = [node for node in ast.walk(expression) if isinstance(node, ast.Name | ast.arg)]
    own = {node.arg if isinstance(node, ast.arg) else node.id for node in found if not _is_read(node)}
    return {node.id for node in found if _is_read(node)} - own


def _is_read(node: ast.Name | ast.arg) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def planned(config: Config) -> dict[str, Declared]:
    """Return the artefacts that a scale has, by name. Raises ValueError for two that write the same file."""
    there = {name: item for name, item in declared().items() if _is_planned(item, config)}
    writers: dict[str, Declared] = {}
    for item in there.values():
        for output in () if isinstance(item.spec, AcrossSpec) else item.outputs:
            if (other := writers.setdefault(output, item)) is not item:
                raise ValueError(f"{other.file} and {item.file} both write {output}; rename one")
    return there


def _is_planned(item: Declared, config: Config) -> bool:
    compared = getattr(item.spec, "methods", ())
    check_methods(compared, config.methods, item.file)
    wanted = called(item.spec.planned, config, item.file, "planned")
    return bool(wanted) and (not compared or len(set(compared) & set(config.methods)) >= 2)


def files_of(config: Config, root: str | None = None) -> Files:
    """Return the names of a scale's files; root: the scale's folder, results/<name> unless given."""
    root = root or f"results/{config.name}"
    there = {name: item for name, item in planned(config).items() if not isinstance(item.spec, AcrossSpec)}

    def made(name: str) -> list[str]:
        return [f"{root}/{output}" for output in there[name].outputs] if lookup(name).name in there else []

    return Files(config, root, made, lambda prefix: [name for name in there if name.startswith(prefix)])


def make(name: str, job: Job) -> list[Path]:
    """Make one artefact in the results' folder -> its files. Raises ValueError for an unknown name or a missing input."""
    item = lookup(name)
    if isinstance(item.spec, AcrossSpec):
        raise ValueError(
            f"artefact {name!r} is of several scales; `sdpg make` at a scale that lists them under `matrix` makes it"
        )
    root = job.results.root
    function = getattr(item.module, item.spec.maker, None)
    if function is None:
        raise ValueError(f"{item.file} has no function {item.spec.maker}(); see docs/adding.md")
    if isinstance(item.spec, FigureSpec):
        from matplotlib.figure import Figure
        from pandas import DataFrame

        from sdpg.artefacts.figures import style

        drawn = check_returned(function(job.results), (Figure, DataFrame), item.file, "draw", "(Figure, DataFrame)")
        style.save(*drawn, (root / name).parent, Path(name).name, item.caption + found(item, job) + said(item, job))
    elif isinstance(item.spec, TableSpec):
        from sdpg.artefacts.tables.layout import write

        write(table(item, job), (root / name).parent, Path(name).name)
    elif isinstance(item.spec, SummarySpec):
        from pandas import DataFrame

        frame = check_returned(function(job.results), (DataFrame,), item.file, "summarise", "a DataFrame")
        write_csv(frame, root / f"{name}.csv")
    else:
        function(job)
    return _written(item, root)


def _written(item: Declared, folder: Path) -> list[Path]:
    """Return the files that an artefact declares. Raises ValueError if one is not there."""
    paths = [folder / output for output in item.outputs]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise ValueError(f"{item.file}: make() did not write {', '.join(missing)}, which ARTEFACT names under writes")
    return paths


def found(item: Declared, job: Job) -> str:
    """Return what a figure's own `says(results)` adds to its caption; nothing where its module has no such function."""
    says = getattr(item.module, "says", None)
    return check_returned(says(job.results), (str,), item.file, "says", "text") if says else ""


def said(item: Declared, job: Job) -> str:
    """Return what a caption says beside its own of runs that diverged: nothing where the artefact reads no run."""
    from sdpg.analysis.diverged import sentences

    compared = set(getattr(item.spec, "methods", ())) or None
    of_runs = any(path.startswith(f"{job.files.root}/") for path in item.spec.reads(job.files))
    return sentences(job.results.diverged, compared) if of_runs else ""


def table(item: Declared, job: Job) -> Any:
    """Return a table as it is built from results, with what its caption says of runs that diverged."""
    from sdpg.artefacts.tables.layout import Table

    made = check_returned(item.module.build(job.results), (Table,), item.file, "build", "a Table")
    return replace(made, caption=made.caption + said(item, job))


def make_across(name: str, cells: list[Results], folder: Path) -> list[Path]:
    """Make one artefact of several scales in `folder` -> its files."""
    item = lookup(name)
    item.module.make(cells, folder)
    return _written(item, folder)


def lookup(name: str) -> Declared:
    """Return the artefact of that name. Raises ValueError with the nearest."""
    if name not in declared():
        from sdpg.config import nearest

        raise ValueError(f"there is no artefact {name!r}; {nearest(name, declared())}")
    return declared()[name]


def write_csv(frame, path: Path) -> Path:
    """Write a DataFrame as CSV, atomically, with eight significant digits; its path."""
    with write_atomic(path) as file:
        frame.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
    return path

"""What is wrong with a declaration, or with what an artefact's functions return: one line that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from sdpg.config import METHODS, ConfigError, available_presets, available_scales, nearest
from sdpg.config.files import merged, scale_layers, scale_path, show
from sdpg.io import ROOT

if TYPE_CHECKING:
    from sdpg.artefacts.declare import ArtefactSpec

HEAVY = ("data", "model", "runs", "eval", "logs", "benchmarks", ".work")  # what other rules write, below the scale's folder
TUPLES = ("writes", "files", "methods")
TEXTS = ("about", "caption", "shown", "category")
FUNCTIONS = ("reads", "uses", "planned")


def check_declaration(spec: ArtefactSpec, name: str, file: str) -> None:
    """Raise ValueError for the first thing in a declaration that cannot be meant."""

    def refuse(field: str, what: str) -> None:
        raise ValueError(f"{file}, ARTEFACT, {field}: {what}")

    for field in (field for field in TUPLES if hasattr(spec, field)):
        value = getattr(spec, field)
        if not isinstance(value, tuple | list) or not all(isinstance(item, str) and item for item in value):
            refuse(field, f"got {show(value)}, expected a tuple of names: ('one', 'two') or ('one',)")
    for field in TEXTS:
        if not isinstance(getattr(spec, field), str):
            refuse(field, f"got {show(getattr(spec, field))}, expected text")
    for field in FUNCTIONS:
        if not callable(getattr(spec, field)):
            refuse(field, f"got {show(getattr(spec, field))}, expected a function: lambda files: ..., or lambda config: ...")
    place = getattr(spec, "place", 0)
    if isinstance(place, bool) or not isinstance(place, int | float):
        refuse("place", f"got {show(place)}, expected a number")
    for pattern in spec.files:
        if pattern.startswith("/") or ".." in PurePosixPath(pattern).parts or next(ROOT.glob(pattern), None) is None:
            refuse("files", f"{pattern!r} is no file of the project; give a path or pattern as from its folder")
    for output in spec.writes:
        path = PurePosixPath(output)
        if path.is_absolute() or ".." in path.parts or str(path) != output or output == "." or path.parts[0] in HEAVY:
            refuse("writes", f"got {output!r}, expected a name below the scale's folder, in none of {', '.join(HEAVY)}")
    outputs = spec.outputs(name)
    if not outputs:
        refuse("writes", "got nothing, expected the names of the files that make() writes")
    if len(set(outputs)) < len(outputs):
        refuse("writes", f"names a file twice: {', '.join(outputs)}")
    if spec.shown and not any(output.endswith(f".{spec.shown}") for output in outputs):
        refuse("shown", f"got {spec.shown!r}, expected the ending of one of {', '.join(outputs)}")


def check_methods(methods: tuple[str, ...], own: Any, file: str) -> None:
    """Refuse a method that neither config/methods, nor this scale (`own`), nor any of the project's scales has."""
    files = {path.stem for path in METHODS.glob("*.yaml")}
    strangers = [method for method in methods if method not in files and method not in own]
    if strangers and (missing := [method for method in strangers if method not in _named_in_scales()]):
        raise ValueError(f"{file}, ARTEFACT, methods: there is no method {missing[0]!r}; {nearest(missing[0], files)}")


def _named_in_scales() -> set[str]:
    found: set[str] = set()
    for scale in (*available_scales(), *available_presets()):
        try:
            found |= set(merged(scale_layers(scale_path(scale))).get("methods") or {})
        except (ConfigError, TypeError):
            continue  # a broken scale is refused where it is used
    return found


def called(function: Callable[[Any], Any], argument: Any, file: str, field: str) -> Any:
    """Return what a declaration's function returns. Raises ValueError for whatever it raises."""
    try:
        return function(argument)
    except Exception as error:
        raise ValueError(f"{file}, ARTEFACT, {field}: {type(error).__name__}: {error}") from error


def inputs(spec: ArtefactSpec, files: Any, file: str) -> list[str]:
    """Return the paths that a declaration reads, none twice. Raises ValueError for anything else than paths."""
    found = called(spec.reads, files, file, "reads")
    try:
        paths = None if isinstance(found, str) else list(dict.fromkeys(found))
    except TypeError:
        paths = None
    if paths is None or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"{file}, ARTEFACT, reads: got {show(found)}, expected a list of paths, such as files.metrics")
    return paths


def check_returned(value: Any, kinds: tuple[type, ...], file: str, function: str, expected: str) -> Any:
    """Return the value if it is of these kinds: one, or a tuple of as many. Raises ValueError naming what it is."""
    values = value if isinstance(value, tuple) and len(kinds) > 1 else (value,)
    if len(values) == len(kinds) and all(isinstance(item, kind) for item, kind in zip(values, kinds, strict=True)):
        return value
    got = ", ".join(type(item).__name__ for item in values)
    raise ValueError(f"{file}: {function}() returned {f'({got})' if len(values) > 1 else got}, expected {expected}")

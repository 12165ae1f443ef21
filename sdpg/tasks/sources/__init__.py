"""Where problems come from: a file for each kind of source in a scale file's `data` block.

The file's name is the key (`reasoning_gym.py`: reasoning-gym). It has `Options`, the settings of the source, and
`problems(options, prefix) -> list[Problem]`, whose ids begin with the prefix. `Options` describe the value of the key, as in
`{chain: {operations: [4, 5], count: 128, seed: 1}}`; if it has a field of the key's name, they describe the whole entry, as in
`{path: x.jsonl, limit: 100}`. A source that reads files has `files(options)`, which names those that exist: their content then
decides when the data is made again. It may have `check(options)`, which raises ValueError at the dry run, and `code(options)`,
which names files of the project that it depends on. Every command imports the file, so what is slow to import stands inside its
functions.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from sdpg.types import Problem, Settings

MODULES = {module.name.replace("_", "-"): module.name for module in pkgutil.iter_modules(__path__)}


def source_module(kind: str) -> ModuleType:
    """Import the file of a kind of source."""
    return importlib.import_module(f"{__name__}.{MODULES[kind]}")


def source_file(kind: str) -> str:
    """Return the file of a kind of source, relative to the project."""
    return f"{__name__.replace('.', '/')}/{MODULES[kind]}.py"


KINDS: dict[str, type[Settings]] = {kind: source_module(kind).Options for kind in MODULES}


def is_flat(kind: str) -> bool:
    """Return whether the options of a kind stand beside its key."""
    return kind in KINDS[kind].model_fields


def own_files(source: Mapping[str, Any], mirror: str | None = None) -> list[str]:
    """Return the user's files that a `data` entry reads."""
    try:
        return _asked("files", source, mirror)
    except (OSError, ValueError):  # a name that no system takes, a mirror that is none: `check` or the rule data says so
        return []


def own_code(source: Mapping[str, Any]) -> list[str]:
    """Return the project's own files, beside the source's module, that decide what a `data` entry gives."""
    return _asked("code", source)


def check_source(source: Mapping[str, Any], name: str, mirror: str | None = None) -> None:
    """Raise ValueError for what can be known to be wrong before the problems are read."""
    try:
        _asked("check", source, mirror)
    except ValueError as error:
        raise ValueError(f"data.{name}: {error}") from error


def _asked(function: str, source: Mapping[str, Any], mirror: str | None = None) -> Any:
    """Return what a kind's module says of an entry, nothing if it has no such function."""
    kind = next(kind for kind in KINDS if kind in source)
    module = source_module(kind)
    return getattr(module, function)(_options(source, kind, mirror)) if hasattr(module, function) else []


def _options(source: Mapping[str, Any], kind: str, mirror: str | None = None) -> Settings:
    if mirror and "mirror" in KINDS[kind].model_fields:
        source = {"mirror": mirror, **source}
    return KINDS[kind].model_validate(source if is_flat(kind) else source[kind])


def build_source(source: Mapping[str, Any] | Settings, name: str, mirror: str | None = None) -> list[Problem]:
    """Return the problems of one `data` entry; `name` (such as "train" or "evaluation.chain") is named in errors. mirror: the
    folder with copies, for a kind that knows some.

    Generated ids begin with the last part of the name. Raises ValueError for an unknown kind, a missing file or column,
    an empty set, or a row without question or answer.
    """
    source = source.dump() if isinstance(source, Settings) else source
    kinds = [kind for kind in KINDS if kind in source]
    if len(kinds) != 1:
        got = ", ".join(map(str, source)) or "nothing"
        raise ValueError(f"data.{name}: got {got}; expected exactly one of {', '.join(KINDS)}")
    kind = kinds[0]
    try:
        return source_module(kind).problems(_options(source, kind, mirror), name.rpartition(".")[2])
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ValueError(f"data.{name}: {kind}: {at}: got {first['input']!r}; {first['msg']}") from error
    except ValueError as error:
        raise ValueError(f"data.{name}: {error}") from error

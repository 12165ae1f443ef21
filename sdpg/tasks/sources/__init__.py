"""Where problems come from: a file for each kind of source in a scale file's `data` block.

The file's name is the key (`reasoning_gym.py`: reasoning-gym). It has `Options`, the settings of the source, and
`problems(options, prefix) -> list[Problem]`, whose ids begin with the prefix. `Options` describe the value of the key, as in
`{chain: {operations: [4, 5], count: 128, seed: 1}}`; if it has a field of the key's name, they describe the whole entry, as in
`{path: x.jsonl, limit: 100}`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sdpg.types import Problem, Settings

MODULES = {module.name.replace("_", "-"): module.name for module in pkgutil.iter_modules(__path__)}
KINDS: dict[str, type[Settings]] = {
    kind: importlib.import_module(f"{__name__}.{name}").Options for kind, name in MODULES.items()
}


def is_flat(kind: str) -> bool:
    """Return whether the options of a kind stand beside its key."""
    return kind in KINDS[kind].model_fields


def build_source(source: Mapping[str, Any] | Settings, name: str) -> list[Problem]:
    """Return the problems of one `data` entry; `name` (such as "train" or "evaluation.chain") is named in errors.

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
        options = KINDS[kind].model_validate(source if is_flat(kind) else source[kind])
        module = importlib.import_module(f"{__name__}.{MODULES[kind]}")
        return module.problems(options, name.rpartition(".")[2])
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ValueError(f"data.{name}: {kind}: {at}: got {first['input']!r}; {first['msg']}") from error
    except ValueError as error:
        raise ValueError(f"data.{name}: {error}") from error

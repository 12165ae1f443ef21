"""config/decomposition.yaml: the changes that lead from GRPO to SDPG, in order, and the published runs beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from sdpg.config.files import ConfigError, read_mapping, shown
from sdpg.provenance import ROOT

PATH = ROOT / "config" / "decomposition.yaml"
DECOMPOSITION_SCHEMA = ROOT / "workflows" / "schemas" / "decomposition.schema.json"


def read_decomposition(path: Path = PATH) -> dict[str, Any]:
    """The file, checked against workflows/schemas/decomposition.schema.json. Raises ConfigError: where, and what is wrong."""
    content = read_mapping(path)
    schema = json.loads(DECOMPOSITION_SCHEMA.read_text(encoding="utf-8"))
    error = next(iter(sorted(Draft202012Validator(schema).iter_errors(content), key=lambda e: list(e.path))), None)
    if error is not None:
        at = ".".join(map(str, error.absolute_path)) or "the file"
        raise ConfigError(f"{shown(path)}, {at}: {error.message}; see {shown(DECOMPOSITION_SCHEMA)}")
    methods = [step["method"] for step in content["chain"] if "method" in step]
    if len(set(methods)) < len(methods):
        raise ConfigError(f"{shown(path)}: chain names a method twice (got {', '.join(methods)}); name each once")
    strangers = {entry[end] for entry in content["together"] for end in ("first", "last")} - set(methods)
    if strangers:
        raise ConfigError(f"{shown(path)}: together names {', '.join(sorted(strangers))}, which chain does not have")
    return content


def chain_methods(path: Path = PATH) -> list[str]:
    """The methods of the chain, in its order."""
    return [step["method"] for step in read_decomposition(path)["chain"] if "method" in step]

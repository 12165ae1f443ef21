"""Reading config/claims.yaml: against its JSON schema, and against what each kind of test takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from sdpg.artefacts.claims.kinds import KINDS
from sdpg.config import METHODS, ConfigError, nearest
from sdpg.config import SCHEMA as CONFIG_SCHEMA
from sdpg.config.files import read_mapping, show, shown

CLAIMS = METHODS.with_name("claims.yaml")
SCHEMA = CONFIG_SCHEMA.with_name("claims.schema.json")
COMMON = frozenset({"id", "text", "source", "family", "test", "direction", "margin", "figure"})
DEFAULTS = {"relative": False, "axis": "steps", "combine": "all"}


def read_claims(path: Path = CLAIMS) -> tuple[float, list[dict[str, Any]]]:
    """(alpha, claims), each claim with the defaults of the keys that it leaves out. Raises ConfigError: which claim, what is
    wrong, and the nearest valid name.
    """
    content = read_mapping(path)
    where = f"in {shown(path)}"
    errors = sorted(
        Draft202012Validator(_schema()).iter_errors(content), key=lambda e: e.validator != "additionalProperties"
    )
    if errors:
        raise ConfigError(f"{_at(content, errors[0])}{_problem(errors[0])} ({where})")
    seen: set[str] = set()
    for claim in content["claims"]:
        problem = f"the id {claim['id']!r} is there twice" if claim["id"] in seen else _misfit(claim)
        if problem:
            raise ConfigError(f"claim {claim['id']}: {problem} ({where})")
        seen.add(claim["id"])
    return content["alpha"], [DEFAULTS | claim for claim in content["claims"]]


def _schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _misfit(claim: dict[str, Any]) -> str | None:
    """What is wrong between the claim's test and its other keys, or None."""
    kind = KINDS[claim["test"]]
    needed, allowed = kind.needs, COMMON | kind.needs | kind.takes
    for key in sorted(needed - claim.keys()):
        return f"test {claim['test']!r} needs the key {key!r}"
    for key in sorted(claim.keys() - allowed):
        return f"test {claim['test']!r} does not use the key {key!r}; it takes {', '.join(sorted(allowed - COMMON)) or 'none'}"
    known = {file.stem for file in METHODS.glob("*.yaml")}
    for method in claim.get("methods", []):
        if method not in known:
            return f"method {method!r} is unknown; {nearest(method, known)}"
    if "methods" in claim and len(claim["methods"]) not in kind.methods:
        return (
            f"test {claim['test']!r} takes {' or '.join(map(str, kind.methods))} methods, got {len(claim['methods'])}"
        )
    for key in ("window", "before", "after"):
        if key in claim and claim[key][0] >= claim[key][1]:
            return f"{key} {claim[key]} is empty; expected [a, b] with a < b"
    if claim.get("relative") and claim.get("data") == "evaluation":
        return "relative goes with data: training"
    if (claim.get("relative") or kind.relative) and claim["margin"] >= 1 and claim["direction"] == "below":
        return f"a relative margin below must be less than 1, got {claim['margin']}"
    if claim.get("data") == "training" and {"tasks", "combine"} & claim.keys():
        return "tasks and combine go with data: evaluation; rollouts are of the training problems"
    return None


def _at(content: Any, error) -> str:
    """ "claim 2a: " if the error lies in a claim."""
    path = list(error.absolute_path)
    if len(path) < 2 or path[0] != "claims":
        return ""
    claim = content["claims"][path[1]]
    name = claim.get("id", f"number {path[1] + 1}") if isinstance(claim, dict) else f"number {path[1] + 1}"
    return f"claim {name}: "


def _problem(error) -> str:
    key = ".".join(str(part) for part in list(error.absolute_path)[2:] if isinstance(part, str)) or "the file"
    rule = error.schema
    match error.validator:
        case "additionalProperties":
            unknown = next(name for name in error.instance if name not in rule["properties"])
            return f"key {unknown!r} is unknown; {nearest(str(unknown), rule['properties'])}"
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"key {missing!r} is missing"
        case "enum":
            known = [value for value in error.validator_value if value is not None]
            return f"{key}: got {show(error.instance)}; {nearest(str(error.instance), known)}"
    return f"{key}: {error.message}"

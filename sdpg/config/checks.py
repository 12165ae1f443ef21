"""Checks of a config: against workflows/schemas/config.schema.json, and what one key says about another."""

from __future__ import annotations

import copy
import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from sdpg.config.files import METHODS, ConfigError, closest, nearest, show, shown
from sdpg.config.methods import check_sweep, method_block, method_file
from sdpg.provenance import ROOT, algorithm_fields, algorithm_files

TEMPLATES = ROOT / "sdpg" / "tasks" / "templates"
FORGETTING = ROOT / "sdpg" / "evaluation" / "tasks"
SCHEMA = ROOT / "workflows" / "schemas" / "config.schema.json"


@cache
def whole_schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _deref(schema: dict[str, Any]) -> dict[str, Any]:
    return whole_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """A copy of `value` with the schema's defaults, in the schema's order; one that needs another key waits for it."""
    schema = _deref(schema)
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    properties = schema.get("properties", {})
    result = {}
    for key, inner in properties.items():
        needed = schema.get("dependentRequired", {}).get(key, [])
        if key in value:
            result[key] = with_defaults(inner, value[key])
        elif "default" in inner and all(name in value for name in needed):
            result[key] = with_defaults(inner, inner["default"])
    others = schema.get("additionalProperties")
    others = others if isinstance(others, dict) else {}
    return result | {key: with_defaults(others, value[key]) for key in value if key not in properties}


def check_schema(config: dict[str, Any], where: str) -> None:
    """Raise ConfigError for the first thing wrong: unknown keys first (a misspelt key is often also a missing one)."""
    errors = list(Draft202012Validator(whole_schema()).iter_errors(config))
    if not errors:
        return
    order = ("additionalProperties", "type")
    error = min(errors, key=lambda e: (order.index(e.validator) if e.validator in order else len(order), len(e.path)))
    raise ConfigError(f"{_describe(error)} ({where})")


def _describe(error) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    at = path or "the config"
    got, rule = error.instance, error.schema
    match error.validator:
        case "additionalProperties":
            unknown = next(key for key in got if key not in rule["properties"])
            return f"config key {_join(path, unknown)!r} is unknown; {_nearest_key(path, str(unknown), rule)}"
        case "required":
            missing = next(key for key in error.validator_value if key not in got)
            return f"config key {_join(path, missing)!r} is missing: {_help(rule, missing)}"
        case "oneOf" | "minProperties" | "maxProperties" if "properties" in rule:
            return f"{at}: got {', '.join(got) or 'nothing'}, expected exactly one of {_alternatives(rule)}"
        case "dependentRequired":
            option = next(key for key, needs in rule["dependentRequired"].items() if key in got and needs[0] not in got)
            return (
                f"{_join(path, option)} goes with {_join(path, rule['dependentRequired'][option][0])}, which is missing"
            )
        case "propertyNames" | "pattern":
            return f"{at}: got {show(got)}, expected letters, digits, '-', '_' and '.' only (it becomes a file name)"
    return f"{at}: got {show(got)}, expected {_expected(rule)}"


def _alternatives(rule: dict[str, Any]) -> str:
    return (
        ", ".join(choice["required"][0] for choice in rule["oneOf"])
        if "oneOf" in rule
        else ", ".join(rule["properties"])
    )


def _expected(rule: dict[str, Any]) -> str:
    """What a schema allows, in words: "integer >= 1", "one of group, batch", "list of numbers, exactly 2"."""
    if "enum" in rule:
        return "one of " + ", ".join(map(str, rule["enum"]))
    kinds = rule.get("type", "a value")
    words = " or ".join(kinds) if isinstance(kinds, list) else kinds
    words = words.replace("object", "mapping of keys to values").replace("array", "list")
    if "items" in rule:
        words += f" of {_expected(rule['items'])}"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {rule[key]}" for key, sign in bounds.items() if key in rule]
    text = " ".join([words, " and ".join(parts)]).strip()
    low, high = rule.get("minItems"), rule.get("maxItems")
    if low:
        text += f", exactly {low}" if low == high else f", at least {low}"
    if rule.get("minLength"):
        text += f", {'one character' if rule.get('maxLength') == 1 else 'not empty'}"
    if rule.get("minProperties"):
        text += ", not empty"
    return text + (", none twice" if rule.get("uniqueItems") else "")


def _nearest_key(path: str, unknown: str, rule: dict[str, Any]) -> str:
    """The nearest key of the same block, unless that is far and another block has the very key: steps -> train.steps."""
    siblings = list(rule["properties"])
    by_depth = sorted(_dotted_keys(whole_schema()), key=lambda dotted: dotted.count("."), reverse=True)
    elsewhere = {dotted.rsplit(".", 1)[-1]: dotted for dotted in by_depth}
    if unknown in elsewhere and not difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.8):
        return f"nearest valid key: {elsewhere[unknown]!r}"
    near = difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.6)
    choices = "" if near else f" (of {', '.join(siblings)})"
    return f"nearest valid key: {_join(path, near[0] if near else closest(unknown, siblings))!r}{choices}"


def _dotted_keys(schema: dict[str, Any], path: str = "") -> list[str]:
    result = []
    for key, inner in schema.get("properties", {}).items():
        result += [_join(path, key), *_dotted_keys(_deref(inner), _join(path, key))]
    return result


def check_across(config: dict[str, Any], where: str) -> None:
    """What one key says about another: k <= n, methods that exist and their fields, a template that exists."""
    evaluation = config["evaluation"]
    for k in evaluation["pass_k"]:
        if k > evaluation["samples"]:
            raise ConfigError(
                f"evaluation.pass_k: got {k}, but evaluation.samples is {evaluation['samples']}; pass@k needs k <= samples: "
                f"raise samples or drop {k} ({where})"
            )
    _check_template(config["task"]["template"], where)
    forgetting = (evaluation["lm_eval"] or {}).get("forgetting")
    known = ["reverse", *sorted(path.stem for path in FORGETTING.glob("*.yaml"))]
    if forgetting is not None and forgetting not in known:
        raise ConfigError(
            f"evaluation.lm_eval.forgetting: got {show(forgetting)}; {nearest(forgetting, known)} ({where})"
        )
    for name, block in config["methods"].items():
        file = method_file(name, config)
        path = METHODS / f"{file}.yaml"
        if not path.is_file():
            known = [known.stem for known in METHODS.glob("*.yaml")]
            key = f"{name}.like" if "like" in block else name
            raise ConfigError(f"methods.{key}: there is no {shown(path)}; {nearest(str(file), known)} ({where})")
        where_method = f"{where} or {shown(path)}"
        block = method_block(name, config)
        if "train" in block:  # a method's own settings of the training, beside its hyper-parameters
            if not isinstance(train := block.pop("train"), dict):
                raise ConfigError(f"methods.{name}.train: got {show(train)}, expected a mapping ({where_method})")
            check_schema({**config, "train": {**config["train"], **train}}, f"methods.{name}.train, {where_method}")
        _check_method(f"methods.{name}", block, where_method)
    check_sweep(config, where)


def _check_template(template: str, where: str) -> None:
    names = [path.stem for path in TEMPLATES.glob("*.yaml")]
    if template not in names and not (template.endswith((".yaml", ".yml")) and Path(template).is_file()):
        hint = nearest(template, names)
        raise ConfigError(f"task.template: got {template!r}, which is not in {shown(TEMPLATES)}; {hint} ({where})")


def _check_method(path: str, block: dict[str, Any], where: str) -> None:
    """The algorithm exists, and every other key is one of its dataclass's fields, with a number where it wants one."""
    algorithm = block.get("algorithm")
    if algorithm not in algorithm_files():
        raise ConfigError(
            f"{path}.algorithm: got {show(algorithm)}; {nearest(str(algorithm), algorithm_files())} ({where})"
        )
    fields = algorithm_fields(algorithm)
    for key, value in block.items():
        if key == "algorithm":
            continue
        if key not in fields:
            hint = f"nearest valid key: {path}.{closest(key, fields)}" if fields else f"{algorithm!r} has no fields"
            raise ConfigError(
                f"config key '{path}.{key}' is unknown: it is no field of {algorithm!r}; {hint} ({where})"
            )
        types = {"int": int, "float": (int, float), "bool": bool, "str": str}.get(fields[key])
        if types and (not isinstance(value, types) or (isinstance(value, bool) and types is not bool)):
            raise ConfigError(f"{path}.{key}: got {show(value)}, expected {fields[key]} ({where})")


def _help(rule: dict[str, Any], key: str) -> str:
    return _deref(rule.get("properties", {}).get(key, {})).get("description", "it has no default")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)

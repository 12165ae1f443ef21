"""What is wrong with a config, in one line: which key, what it is, what is expected, in which file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import baselines
from sdpg.config.files import METHODS, ConfigError, closest, nearest, shorter, show, shown
from sdpg.config.limits import check_jobs, check_matrix, check_name, check_positions
from sdpg.config.methods import check_sweep, fields_of, has_file, method_block, method_file
from sdpg.config.settings import Config, Train
from sdpg.config.variants import check_sensitivity, own_methods
from sdpg.io import ROOT, kind_of
from sdpg.types import LEAST, Settings

TEMPLATES = ROOT / "sdpg" / "tasks" / "templates"
FORGETTING = ROOT / "sdpg" / "evaluation" / "tasks"
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
Loc = tuple[Any, ...]
INSIDE = {"required": "it needs", "properties": "its keys:"}  # of a block's schema: what is said where the block is missing


def validated(model: type[Settings], values: Mapping[str, Any], where: str, at: Loc = ()) -> Any:
    """Return `values` as `model`. Raises ConfigError for the first thing wrong: unknown keys first, since a misspelt key is
    often also a missing one. at: the key that the model stands under.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        order = ("extra_forbidden", "missing")
        first = min(
            error.errors(), key=lambda e: (0 if e["type"] == order[0] else 2 if e["type"] == order[1] else 1, len(e["loc"]))
        )
        raise ConfigError(f"{_described(model, first, at)} ({where})") from None


def _described(model: type[Settings], error: Any, at: Loc) -> str:
    loc, got = tuple(part for part in error["loc"] if part != "[key]"), error["input"]
    path = _join(*at, *loc) or "the config"
    match error["type"]:
        case "extra_forbidden":
            return f"config key {path!r} is unknown; {_nearest_key(model, loc, at)}"
        case "missing":
            rule = rule_at(model, loc)
            inside = [f"{words} {', '.join(rule[of])}" for of, words in INSIDE.items() if rule.get(of)][:1]
            return "; ".join(
                [f"config key {path!r} is missing: {rule.get('description', 'it has no default').rstrip('.')}", *inside]
            )
        case "goes_with":
            return f"{path}.{error['ctx']['option']} goes with {path}.{error['ctx']['kind']}, which is missing"
        case "exactly_one":
            return f"{path}: {error['msg']}"
        case "together":
            return f"{path}.{error['msg']}"
        case "expected":
            return f"{path}: got {show(got)}, {error['msg']}"
        case "string_pattern_mismatch":
            return f"{path}: got {show(got)}, expected letters, digits, '-', '_' and '.' only (it becomes a file name)"
        case "finite_number":
            return f"{path}: got {show(got)}, expected a finite {expected(rule_at(model, loc))}"
    return f"{path}: got {show(got)}, expected {expected(rule_at(model, loc), got)}"


@cache
def schema_of(model: type[Settings]) -> dict[str, Any]:
    """Return a model's JSON schema."""
    return model.model_json_schema(by_alias=True)


def rule_at(model: type[Settings], loc: Iterable[Any]) -> dict[str, Any]:
    """Return the JSON schema of the setting at a path of keys and indices; its description is the setting's own."""
    node = _solid(model, schema_of(model))
    for part in loc:
        if isinstance(part, int) and "items" in node:
            node = node["items"]
        else:
            others = [*node.get("patternProperties", {}).values(), node.get("additionalProperties") or {}]
            node = node.get("properties", {}).get(part) or others[0]
        node = _solid(model, node) if isinstance(node, dict) else {}
    return node


def _solid(model: type[Settings], node: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its reference followed, and the one branch beside null of a choice."""
    own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf", "allOf")}
    if "$ref" in node:
        return _solid(model, schema_of(model)["$defs"][node["$ref"].rpartition("/")[2]]) | own
    branches = [branch for branch in node.get("anyOf", []) if branch.get("type") != "null"]
    if len(branches) == 1:
        null = {"null": True} if len(node["anyOf"]) > 1 else {}
        return _solid(model, branches[0]) | own | null
    return node


def expected(rule: Mapping[str, Any], got: Any = None) -> str:
    """Return what a schema allows, in words: "integer >= 1", "one of group, batch", "list of number, exactly 2".

    A bound that only keeps out nonsense (10^9 and more) is named where `got` breaks it.
    """
    if "enum" in rule:
        return "one of " + ", ".join(map(str, rule["enum"]))
    words = str(rule.get("type", "a value")).replace("object", "mapping of keys to values").replace("array", "list")
    if "items" in rule:
        words += f" of {expected(rule['items'])}"
    absurd = isinstance(got, int | float) and abs(got) >= 1e9
    negligible = isinstance(got, int | float) and 0 < got < LEAST
    ends = [key for key in BOUNDS if key in rule and (absurd or rule[key] < 1e9)]
    if {"minimum", "exclusiveMinimum"} <= set(ends):  # of the two, the one that matters
        ends.remove("exclusiveMinimum" if negligible else "minimum")
    bounds = [f"{BOUNDS[key]} {rule[key]}" for key in ends]
    text = " ".join([words, " and ".join(bounds)]).strip()
    low, high = rule.get("minItems"), rule.get("maxItems")
    if low:
        text += f", exactly {low}" if low == high else f", at least {low}"
    if rule.get("multipleOf"):
        text += f", a multiple of {rule['multipleOf']}"
    if rule.get("minLength"):
        text += f", {'one character' if rule.get('maxLength') == 1 else 'not empty'}"
    elif rule.get("maxLength"):
        text += f" of at most {rule['maxLength']} characters"
    if rule.get("minProperties"):
        text += ", not empty"
    return text + (", none twice" if rule.get("uniqueItems") else "") + (" or null" if rule.get("null") else "")


def dotted_keys(model: type[Settings], loc: Loc = ()) -> list[str]:
    """Return every setting of a model as a dotted key, blocks included."""
    found = []
    for key in rule_at(model, loc).get("properties", {}):
        found += [_join(*loc, key), *dotted_keys(model, (*loc, key))]
    return found


def _nearest_key(model: type[Settings], loc: Loc, at: Loc) -> str:
    """Return the nearest key of the same block, unless that is far and another block has the very key: steps -> train.steps."""
    unknown, siblings = str(loc[-1]), list(rule_at(model, loc[:-1]).get("properties", {}))
    by_depth = sorted(dotted_keys(Config), key=lambda dotted: dotted.count("."), reverse=True)
    elsewhere = {dotted.rsplit(".", 1)[-1]: dotted for dotted in by_depth}
    if unknown in elsewhere and not difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.8):
        return f"nearest valid key: {elsewhere[unknown]!r}"
    near = difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.6)
    choices = "" if near else f" (of {', '.join(siblings)})"
    return f"nearest valid key: {_join(*at, *loc[:-1], near[0] if near else closest(unknown, siblings))!r}{choices}"


def check_across(config: Config, where: str) -> None:
    """Check what one key says about another: k <= n, methods that exist and their fields, a template that exists."""
    evaluation = config.evaluation
    for k in evaluation.pass_k:
        if k > evaluation.samples:
            raise ConfigError(
                f"evaluation.pass_k: got {k}, but evaluation.samples is {evaluation.samples}; pass@k needs k <= samples: "
                f"raise samples or drop {k} ({where})"
            )
    template, names = config.task.template, [path.stem for path in TEMPLATES.glob("*.yaml")]
    if template.endswith((".yaml", ".yml")):
        if kind_of(template) != "file":
            there = f"(looked in {Path(template).absolute().parent})"
            raise ConfigError(f"task.template: the file {shorter(template)} does not exist {there} ({where})")
    elif template not in names:
        hint = nearest(template, names)
        raise ConfigError(f"task.template: got {template!r}, which is not in {shown(TEMPLATES)}; {hint} ({where})")
    forgetting = evaluation.lm_eval.forgetting if evaluation.lm_eval else None
    known = ["reverse", *sorted(path.stem for path in FORGETTING.glob("*.yaml"))]
    if forgetting is not None and forgetting not in known:
        raise ConfigError(f"evaluation.lm_eval.forgetting: got {show(forgetting)}; {nearest(forgetting, known)} ({where})")
    if forgetting in config.data.evaluation:
        what = f"evaluation.lm_eval.forgetting: {show(forgetting)} is an evaluation set already"
        raise ConfigError(f"{what}; leave it null, or rename the set ({where})")
    check_name(config, where)
    check_matrix(config, where)
    check_positions(config, where)
    check_jobs(config, where)
    own = own_methods(config)
    for name in own:
        _check_method(name, config, where)
    check_sensitivity(config, where)
    for name in config.methods:
        if name not in own:
            _check_method(name, config, where)
    check_sweep(config, where)


def _check_method(name: str, config: Config, where: str) -> None:
    """Check that a method's file exists, its hyper-parameters are those of its class, and its training settings fit."""
    file = method_file(name, config)
    path = METHODS / f"{file}.yaml"
    if not has_file(file):
        known = [known.stem for known in METHODS.glob("*.yaml")]
        key = f"{name}.like" if "like" in config.methods[name] else name
        raise ConfigError(f"methods.{key}: there is no {shown(path)}; {nearest(str(file), known)} ({where})")
    where = f"{where} or {shown(path)}"
    block = method_block(name, config)
    train = block.pop("train", {})
    settings = validated(Train, config.train.dump() | train, where, ("methods", name, "train"))
    fields, algorithm = fields_of(block.pop("algorithm", None), f"methods.{name}", where)
    for key in block:
        if key not in fields.model_fields:
            known = list(fields.model_fields)
            hint = f"nearest valid key: methods.{name}.{closest(key, known)}" if known else f"{algorithm!r} has no fields"
            raise ConfigError(
                f"config key 'methods.{name}.{key}' is unknown: it is no field of {algorithm!r}; {hint} ({where})"
            )
    validated(fields, block, where, ("methods", name))
    method = _made(name, algorithm, block, settings.steps, where)
    if settings.group_size < 2 and getattr(method, "needs_group", True):
        raise ConfigError(
            f"methods.{name}: train.group_size is {settings.group_size}, but {algorithm} compares the responses of a group; "
            f"set train.group_size to 2 or more, for this method alone under methods.{name}.train ({where})"
        )
    if settings.updates_per_batch > 1 and not getattr(method, "off_policy", False):
        raise ConfigError(
            f"methods.{name}: train.updates_per_batch is {settings.updates_per_batch}, but {algorithm} is on-policy as "
            f"configured; set it to 1, or `off_policy: true` where the method has that field ({where})"
        )


def _made(name: str, algorithm: str, fields: Mapping[str, Any], steps: int, where: str) -> Any:
    """Return the method, which may refuse what its fields say together; also in what it needs, at some of its steps."""
    file = baselines.REGISTRY[algorithm].__module__.replace(".", "/") + ".py"
    try:
        method = baselines.make(algorithm, **fields)
        for k in sorted({1, steps // 2 + 1, steps}):
            method.needs(k)
    except ValueError as error:
        raise ConfigError(f"methods.{name}: {error} ({where})") from None
    except Exception as error:  # whatever a method's own code raises
        raise ConfigError(f"methods.{name}: {file} raises {type(error).__name__}: {error} ({where})") from error
    return method


def _join(*parts: Any) -> str:
    return ".".join(map(str, parts))

"""From a scale file to one plain, complete, validated dict: workflows/schemas/config.schema.json is the only list of keys.

Defaults live in the schema and nowhere else. Overrides are dotted keys ("train.steps": 20) and pass the same checks.
Nothing here imports torch, so that `snakemake -n` stays quick; the fields of a method are read from its source file.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from sdpg.provenance import ROOT, algorithm_defaults, algorithm_fields, algorithm_files

SCALES = ROOT / "config" / "scales"
PRESETS = ROOT / "config" / "presets"
METHODS = ROOT / "config" / "methods"
TEMPLATES = ROOT / "sdpg" / "tasks" / "templates"
FORGETTING = ROOT / "sdpg" / "evaluation" / "tasks"
SCHEMA = ROOT / "workflows" / "schemas" / "config.schema.json"


class ConfigError(ValueError):
    """A mistake in a scale file, a method file or an override: which key, what it is, what is expected, in which file."""


def resolve(scale: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The complete config of a scale: its file, the overrides on top, and the schema's defaults beneath.

    scale: a name in config/scales or config/presets, or the path of a YAML file; a file may say `extends: NAME` and give only
    what differs. overrides: dotted key -> value; a mapping
    is merged, any other value replaces what was there; a list of names under `methods` selects methods. Raises ConfigError.
    """
    path = _scale_path(scale)
    where = f"in {_shown(path)}"
    config = _read_scale(path)
    for key, value in (overrides or {}).items():
        _override(config, key, value)
    if overrides:
        where += " or an override"
    _expand_shorthands(config)
    _check_schema(config, where)
    config = _with_defaults(_schema(), config)
    _check_across(config, where)
    return config


def run_config(config: Mapping[str, Any], method: str, seed: int) -> dict[str, Any]:
    """All that one training run depends on, and nothing else: no other method, no list of seeds, no evaluation block."""
    if method not in config["methods"]:
        raise ConfigError(f"method {method!r} is not in this config; {_nearest(method, config['methods'])}")
    block = _method_block(method, config)
    train = {**config["train"], **block.pop("train", {})}
    run = {"scale": config["name"], "seed": seed, "method": method, "algorithm": block}
    return copy.deepcopy(run | {key: config[key] for key in ("model", "task", "data")} | {"train": train})


def evaluation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that the evaluation of a run depends on, beside the run's checkpoints."""
    limits = {key: config["train"][key] for key in ("max_prompt_tokens", "max_response_tokens")}
    evaluation = {"scale": config["name"], "train": limits, "data": {"evaluation": config["data"]["evaluation"]}}
    return copy.deepcopy(evaluation | {key: config[key] for key in ("task", "evaluation")})


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """["train.steps=20", "seeds=[0, 1]"] -> {"train.steps": 20, "seeds": [0, 1]}; values are YAML. Raises ConfigError."""
    result = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {item!r}: expected key=value, for example train.steps=20")
        result[key.strip()] = parse_value(text, f"override {item!r}")
    return result


def from_snakemake(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(scale, overrides) of `--config scale=NAME|FILE train='{steps: 20}' seeds=[0,1] set="train.lr=1e-4 a.b=c"`.

    Snakemake hands over some values as text; they are read as YAML, as everywhere. Raises ConfigError.
    """
    scale, overrides = str(options.get("scale", "cpu")), {}
    for key, value in options.items():
        if key == "set":
            overrides |= parse_overrides(shlex.split(str(value)))
        elif key not in ("scale", "banner"):  # banner: set by the Snakefile where it includes itself
            overrides[key] = _reread(value, f"--config {key}")
    return scale, overrides


def _reread(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return parse_value(value, where)
    if isinstance(value, list):
        return [_reread(item, where) for item in value]
    if isinstance(value, Mapping):
        return {key: _reread(inner, f"{where}.{key}") for key, inner in value.items()}
    return value


def parse_value(text: str, where: str) -> Any:
    """One YAML value; `1e-6` is a number here, as in the scale files. Raises ConfigError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({_one_line(error)})") from error


def available_scales() -> list[str]:
    """The names in config/scales."""
    return sorted(path.stem for path in SCALES.glob("*.yaml"))


def available_presets() -> list[str]:
    """The names in config/presets: scale files with the paper's, the released and matched settings."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def method_config(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """A method's hyper-parameters under a resolved config, its dataclass's defaults included; its own `train` block too."""
    block = _method_block(method, config)
    fields = algorithm_defaults(block["algorithm"])
    if "T" in fields:  # a schedule's T is the number of training steps unless it is given
        fields["T"] = block.get("train", {}).get("steps", config["train"]["steps"])
    return copy.deepcopy({"algorithm": block["algorithm"], **fields, **block})


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-6` as a string and lets a key appear twice, the last one winning; both are put right here."""

    def construct_mapping(self, node, deep=False):
        """A mapping node as a dict; ConstructorError for a key that appears twice."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        value = parse_value(path.read_text(encoding="utf-8"), _shown(path))
    except OSError as error:
        raise ConfigError(f"cannot read {_shown(path)}: {error.strerror}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{_shown(path)}: expected a mapping of keys to values, got {_show(value)}")
    return value


def _read_scale(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A scale file on top of the one that its key `extends` names, if it has one; mappings are merged key by key."""
    own = _read_mapping(path)
    if "extends" not in own:
        return own
    parent = _scale_path(own.pop("extends"))
    if parent in (*below, path):
        raise ConfigError(f"{_shown(path)}: extends {_shown(parent)}, which extends this file in turn")
    config = _read_scale(parent, (*below, path))
    for key, value in own.items():
        _override(config, str(key), value)
    return config


def _scale_path(scale: str | Path) -> Path:
    for folder in (SCALES, PRESETS):
        by_name = folder / f"{scale}.yaml"
        if re.fullmatch(r"[\w.-]+", str(scale)) and by_name.is_file():
            return by_name
    path = Path(scale)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"scale file {str(scale)!r} does not exist; give the path of a YAML file")
        return path
    names = [*available_scales(), *available_presets()]
    raise ConfigError(
        f"scale {str(scale)!r} is unknown; {_nearest(str(scale), names)}, or give the path of a .yaml file"
    )


def _override(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one dotted key in place; a mapping value is merged key by key."""
    *parents, last = dotted.split(".")
    node = config
    for depth, key in enumerate(parents):
        if isinstance(node.get(key), list | str | int | float):
            path = ".".join(parents[: depth + 1])
            raise ConfigError(f"override {dotted!r}: {path} is {_show(node[key])}, which has no keys of its own")
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
    if isinstance(value, Mapping) and value and isinstance(node.get(last), dict):
        for key, inner in value.items():
            _override(node[last], str(key), inner)
    elif dotted == "methods" and isinstance(value, list):
        known = node.get("methods") or {}
        node["methods"] = {name: known.get(name) for name in value}
    elif not (value == {} and isinstance(node.get(last), dict)):
        node[last] = value


def _expand_shorthands(config: dict[str, Any]) -> None:
    """`model: DIR`, `methods: [a, b]` and `methods: {a: }` become their long forms."""
    if isinstance(config.get("model"), str):
        config["model"] = {"pretrained": config["model"]}
    methods = config.get("methods")
    if isinstance(methods, list):
        methods = {name: {} for name in methods}
    if isinstance(methods, dict):
        config["methods"] = {name: {} if block is None else block for name, block in methods.items()}


@cache
def _schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _deref(schema: dict[str, Any]) -> dict[str, Any]:
    return _schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def _with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """A copy of `value` with the schema's defaults, in the schema's order; one that needs another key waits for it."""
    schema = _deref(schema)
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    properties = schema.get("properties", {})
    result = {}
    for key, inner in properties.items():
        needed = schema.get("dependentRequired", {}).get(key, [])
        if key in value:
            result[key] = _with_defaults(inner, value[key])
        elif "default" in inner and all(name in value for name in needed):
            result[key] = _with_defaults(inner, inner["default"])
    others = schema.get("additionalProperties")
    others = others if isinstance(others, dict) else {}
    return result | {key: _with_defaults(others, value[key]) for key in value if key not in properties}


def _check_schema(config: dict[str, Any], where: str) -> None:
    """Raise ConfigError for the first thing wrong: unknown keys first (a misspelt key is often also a missing one)."""
    errors = list(Draft202012Validator(_schema()).iter_errors(config))
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
            return f"{at}: got {_show(got)}, expected letters, digits, '-', '_' and '.' only (it becomes a file name)"
    return f"{at}: got {_show(got)}, expected {_expected(rule)}"


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
    by_depth = sorted(_dotted_keys(_schema()), key=lambda dotted: dotted.count("."), reverse=True)
    elsewhere = {dotted.rsplit(".", 1)[-1]: dotted for dotted in by_depth}
    if unknown in elsewhere and not difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.8):
        return f"nearest valid key: {elsewhere[unknown]!r}"
    near = difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.6)
    choices = "" if near else f" (of {', '.join(siblings)})"
    return f"nearest valid key: {_join(path, near[0] if near else _closest(unknown, siblings))!r}{choices}"


def _dotted_keys(schema: dict[str, Any], path: str = "") -> list[str]:
    result = []
    for key, inner in schema.get("properties", {}).items():
        result += [_join(path, key), *_dotted_keys(_deref(inner), _join(path, key))]
    return result


def _check_across(config: dict[str, Any], where: str) -> None:
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
            f"evaluation.lm_eval.forgetting: got {_show(forgetting)}; {_nearest(forgetting, known)} ({where})"
        )
    for name, block in config["methods"].items():
        path = METHODS / f"{name}.yaml"
        if not path.is_file():
            known = [file.stem for file in METHODS.glob("*.yaml")]
            raise ConfigError(f"methods.{name}: there is no {_shown(path)}; {_nearest(name, known)} ({where})")
        where_method = f"{where} or {_shown(path)}"
        block = _method_block(name, config)
        if "train" in block:  # a method's own settings of the training, beside its hyper-parameters
            if not isinstance(train := block.pop("train"), dict):
                raise ConfigError(f"methods.{name}.train: got {_show(train)}, expected a mapping ({where_method})")
            _check_schema({**config, "train": {**config["train"], **train}}, f"methods.{name}.train, {where_method}")
        _check_method(f"methods.{name}", block, where_method)


def _method_block(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A method's file with the scale's overrides on top."""
    file, own = _read_mapping(METHODS / f"{name}.yaml"), config["methods"][name]
    block = {**file, **own}
    if isinstance(file.get("train"), dict) and isinstance(own.get("train"), dict):
        block["train"] = {**file["train"], **own["train"]}
    return block


def _check_template(template: str, where: str) -> None:
    names = [path.stem for path in TEMPLATES.glob("*.yaml")]
    if template not in names and not (template.endswith((".yaml", ".yml")) and Path(template).is_file()):
        hint = _nearest(template, names)
        raise ConfigError(f"task.template: got {template!r}, which is not in {_shown(TEMPLATES)}; {hint} ({where})")


def _check_method(path: str, block: dict[str, Any], where: str) -> None:
    """The algorithm exists, and every other key is one of its dataclass's fields, with a number where it wants one."""
    algorithm = block.get("algorithm")
    if algorithm not in algorithm_files():
        raise ConfigError(
            f"{path}.algorithm: got {_show(algorithm)}; {_nearest(str(algorithm), algorithm_files())} ({where})"
        )
    fields = algorithm_fields(algorithm)
    for key, value in block.items():
        if key == "algorithm":
            continue
        if key not in fields:
            nearest = f"nearest valid key: {path}.{_closest(key, fields)}" if fields else f"{algorithm!r} has no fields"
            raise ConfigError(
                f"config key '{path}.{key}' is unknown: it is no field of {algorithm!r}; {nearest} ({where})"
            )
        types = {"int": int, "float": (int, float), "bool": bool, "str": str}.get(fields[key])
        if types and (not isinstance(value, types) or (isinstance(value, bool) and types is not bool)):
            raise ConfigError(f"{path}.{key}: got {_show(value)}, expected {fields[key]} ({where})")


def _closest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    choices = f"choose one of {', '.join(known)}" if known else "there are none"
    return f"did you mean {close[0]!r}? {choices}" if close else choices


def _help(rule: dict[str, Any], key: str) -> str:
    return _deref(rule.get("properties", {}).get(key, {})).get("description", "it has no default")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

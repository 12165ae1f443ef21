"""YAML without its traps, and the error that says what is wrong with a config."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MOST_VALUES = 100_000  # of one file, counting what an alias stands for each time
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")


class ConfigError(ValueError):
    """A mistake in a scale file, a method file or an override: which key, what it is, what is expected, in which file."""

    def __init__(self, message: str):
        """Keep the message on one line, whatever names it quotes."""
        super().__init__(" ".join(message.split()))


def parse_value(text: str, where: str) -> Any:
    """Return one YAML value. Raises ConfigError.

    `1e-6` is a number here, as in the scale files. A date, `1:30` and `010` are text, and so are refused where a number is
    expected; a key that appears twice, keys that are lists or mappings, Python objects and aliases that refer to themselves or
    stand for a great many values are errors. What an alias stands for is a value of its own.
    """
    try:
        return _tree(yaml.load(text, _Loader))
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML (nested too deeply)") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        # not only YAMLError: the others are what PyYAML's own constructors raise for `!!int abc` and the like
        raise ConfigError(f"{where}: not valid YAML ({error})") from error


def show(value: Any) -> str:
    """Return a value as in Python, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Loader(yaml.SafeLoader):
    """Reads the seven plain kinds of values."""

    yaml_constructors = {
        tag: function
        for tag, function in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _KINDS
    }
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in several if tag.rpartition(":")[2] in ("null", "bool", "merge")]
        for first, several in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_data(self):
        """Read the only document, once its size is known; None if it is empty."""
        node = self.get_single_node()
        if node is None:
            return None
        if (size := _size(node, {})) > MOST_VALUES:
            raise ConstructorError(None, None, f"{size} values, counting what aliases stand for; at most {MOST_VALUES}")
        return self.construct_document(node)

    def construct_mapping(self, node, deep=False):
        """Read a mapping node as a dict; ConstructorError for a key that appears twice, or is no text, number or boolean."""
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a list or a mapping cannot be a key", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def _size(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """Count a node's values, those of an alias each time. Raises ConstructorError for one that contains itself."""
    if node in known:
        if known[node] is None:
            raise ConstructorError(None, None, "an alias refers to what contains it", node.start_mark)
        return known[node] or 0
    known[node] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
    known[node] = size = 1 + sum(_size(part, known) for part in parts)
    return size


def _tree(value: Any) -> Any:
    """Copy a value so that nothing in it is there twice: a change to one method is none to another with the same alias."""
    if isinstance(value, dict):
        return {key: _tree(inner) for key, inner in value.items()}
    return [_tree(inner) for inner in value] if isinstance(value, list) else value

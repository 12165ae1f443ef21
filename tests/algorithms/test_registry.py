"""The registry of methods: errors that help, and methods that stay small."""

import ast
import dataclasses
import inspect

import pytest

import baselines


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match="'grp'; did you mean 'grpo'"):
        baselines.make("grp")


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match="no field 'beta_bas'; did you mean 'beta_base'"):
        baselines.make("sdpg", beta_bas=1.0)


def test_an_unknown_anchor_is_refused():
    with pytest.raises(ValueError, match="anchor: got 'kl'"):
        baselines.make("sdpg", anchor="kl")


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_a_method_is_a_frozen_dataclass_of_at_most_60_lines_of_code(name):
    cls = baselines.REGISTRY[name]
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    source = inspect.getsource(inspect.getmodule(cls))
    documentation = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    code = [line for n, line in lines if n not in documentation and line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 60

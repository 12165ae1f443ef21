"""config/decomposition.yaml: the changes that lead from GRPO to SDPG, in order, and the published runs beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from sdpg.config.files import ConfigError, read_mapping, show, shown
from sdpg.io import ROOT
from sdpg.types import CountOrNone, Settings, Text

PATH = ROOT / "config" / "decomposition.yaml"


class Step(Settings):
    """A method of the chain, or a change that is none under certain settings."""

    change: Text
    """What is new in this method beside the one before, in a few words."""
    method: Text | None = None
    """The method, as a scale names it."""
    zero_when: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Dotted keys of the first method's run.json config, with the values under which the change is none; under others it is
    merged with the next one."""
    note: Text | None = None
    """Why it is none, in a few words."""


class Together(Settings):
    """A difference over several changes at once."""

    change: Text
    """What the changes are, in a few words."""
    first: str
    """The method without them, of the chain."""
    last: str
    """The method with them, of the chain."""


class PublishedRun(Settings):
    """One of the paper's curves (results/published/curves.csv)."""

    change: Text
    """What is new in this run."""
    figure: str
    """Column figure of curves.csv."""
    method: str
    """Column method of curves.csv."""


class Published(Settings):
    """The same for the paper's curves."""

    steps: Annotated[list[CountOrNone], Field(min_length=2, max_length=2)]
    """First and last step that a curve is averaged over."""
    chain: Annotated[list[PublishedRun], Field(min_length=2)]
    """The changes from the first run to the last, in order."""


class Decomposition(Settings):
    """The file."""

    chain: Annotated[list[Step], Field(min_length=2)]
    """The changes from the first method to the last, in order; the first entry is where the waterfall starts."""
    together: list[Together]
    """Differences over several changes at once."""
    published: Published
    """The same for the paper's curves."""


def read_decomposition(path: Path = PATH) -> dict[str, Any]:
    """Return the file's content. Raises ConfigError: where, and what is wrong."""
    try:
        content = Decomposition.model_validate(read_mapping(path))
    except ValidationError as problem:
        error = problem.errors()[0]
        at = ".".join(map(str, error["loc"]))
        raise ConfigError(f"{shown(path)}, {at}: got {show(error['input'])}; {error['msg']}") from None
    for i, step in enumerate(content.chain):
        if (step.method is None) != (step.zero_when is not None) or (step.zero_when is None) != (step.note is None):
            raise ConfigError(f"{shown(path)}, chain.{i}: expected `change` with `method`, or with `zero_when` and `note`")
    methods = [step.method for step in content.chain if step.method]
    if content.chain[0].method is None:
        raise ConfigError(f"{shown(path)}, chain.0: the chain starts with a method")
    if len(set(methods)) < len(methods):
        raise ConfigError(f"{shown(path)}: chain names a method twice (got {', '.join(methods)}); name each once")
    strangers = {end for entry in content.together for end in (entry.first, entry.last)} - set(methods)
    if strangers:
        raise ConfigError(f"{shown(path)}: together names {', '.join(sorted(strangers))}, which chain does not have")
    return content.model_dump(exclude_none=True)


def chain_methods(path: Path = PATH) -> list[str]:
    """Return the methods of the chain, in its order."""
    return [step["method"] for step in read_decomposition(path)["chain"] if "method" in step]

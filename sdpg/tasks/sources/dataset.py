"""Problems of a public data set that is pinned by its commit and its content (config/datasets)."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from sdpg.tasks import pinned
from sdpg.tasks.sources import path
from sdpg.types import Count, PathText, Problem, Settings, Text


class Options(Settings):
    """Problems of a public data set."""

    dataset: Text
    """Its name in config/datasets."""
    split: Text | None = None
    """Its split; may be left out where there is one."""
    limit: Count | None = None
    """Use only the first so many problems, in the order of their content."""
    mirror: PathText | None = None
    """A folder with copies, which are taken where they have the same content; null: data.mirror."""

    @model_validator(mode="after")
    def _exists(self) -> Options:
        try:
            pinned.split_of(self.dataset, self.split)
        except ValueError as error:
            raise PydanticCustomError("expected", "{reason}", {"reason": str(error)}) from None
        return self


def _wanted(options: Options) -> pinned.Wanted:
    return pinned.Wanted(options.dataset, pinned.split_of(options.dataset, options.split), options.mirror)


def check(options: Options) -> None:
    """Raise ValueError for a data set, a split or a mirror that does not exist."""
    pinned.mirrored(_wanted(options))


def files(options: Options) -> list[str]:
    """Name the copy, where nothing but the commit pins the content."""
    wanted = _wanted(options)
    if pinned.load_dataset(wanted.name).splits[wanted.split].sha256:
        return []
    return [str(file) for file in pinned.mirrored(wanted)[:1]]


def code(options: Options) -> list[str]:
    """Name the file that pins it, relative to the project."""
    return [pinned.dataset_file(options.dataset)]


def problems(options: Options, prefix: str) -> list[Problem]:
    """Read the problems. Raises ValueError: no network and no copy, other content than what is pinned."""

    def read(place: dict[str, Any]) -> list[Problem]:
        return path.problems(path.Options.model_validate(place), prefix)

    return pinned.read_pinned(_wanted(options), read, prefix)[: options.limit]

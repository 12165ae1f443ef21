"""Settings of the block `data`: sources of problems, and what becomes of problems that do not fit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, create_model, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from sdpg.config.alternatives import Alternatives
from sdpg.config.solutions import Solutions
from sdpg.tasks.sources import KINDS, is_flat
from sdpg.types import Name, PathText, Settings


class _Source(Alternatives):
    """One source of problems: exactly one kind, with its options (sdpg/tasks/sources)."""

    @classmethod
    def alternatives(cls) -> list[str]:
        """Return the kinds of sources."""
        return list(KINDS)

    @classmethod
    def kinds_of(cls, option: str) -> list[str]:
        """Return the kinds that an option beside their key belongs to."""
        return [kind for kind in KINDS if is_flat(kind) and option in KINDS[kind].model_fields]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> _Source:
        """Check what options say together: each by itself has its type already."""
        given = {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}
        try:
            if is_flat(self.kind):
                KINDS[self.kind].model_validate(given)
        except ValidationError as error:
            raise PydanticCustomError("expected", "{reason}", {"reason": error.errors()[0]["msg"]}) from None
        return self

    @model_serializer(mode="wrap")
    def _of_its_kind(self, handler) -> dict[str, Any]:
        given = {key: value for key, value in handler(self).items() if value is not None}
        if not is_flat(self.kind):
            return given
        return KINDS[self.kind].model_validate(given).model_dump(by_alias=True, exclude_none=True)


def _source_fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for kind, options in KINDS.items():
        if is_flat(kind):
            for name, field in options.model_fields.items():
                kept = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
                others = fields[name][0] if name in fields else None
                fields[name] = (kept | others, Field(None, description=field.description))
        else:
            fields[kind.replace("-", "_")] = (options | None, Field(None, alias=kind, description=options.__doc__))
    return fields


Source = create_model("Source", __base__=_Source, **_source_fields())


class Data(Settings):
    """Problems to train and to evaluate on."""

    train: Source
    """Problems to train on."""
    evaluation: Annotated[dict[Name, Source], Field(min_length=1)]
    """Evaluation set name (as in every artefact) -> its source."""
    validation: dict[Name, Source] = {}
    """Validation set name -> its source: watched during training, and what a sweep chooses by. Shares no problem with training
    or evaluation."""
    rejected_answers: Literal["error", "drop", "keep"] = "error"
    """What becomes of a problem whose reference answer the verifier does not accept, in the form that the template asks for, or
    spelt as most would write it. What is dropped or kept is counted in data/report.json, here and below."""
    conflicting_answers: Literal["drop", "error"] = "drop"
    """What becomes of a question that a set has more than once with different answers: all of its rows are dropped."""
    missing_solutions: Literal["error", "drop", "keep"] = "error"
    """What becomes of a training problem without a worked solution where a method's teacher reads one. Kept, it gets the
    template's `teacher_without_solution`."""
    overlong: Literal["error", "drop"] = "error"
    """What becomes of a problem whose prompt is longer than train.max_prompt_tokens, or leaves no room for a response."""
    solutions: Solutions | None = None
    """Who writes worked solutions for training problems that have none; null: nobody. The rule `solutions` has it done where a
    method's teacher reads them; problems that stay without one go by missing_solutions."""

    mirror: PathText | None = None
    """A folder with copies of public data sets (`dataset`), for a machine without the hub: a copy is taken where its content is
    what config/datasets pins. null: the hub, or its cache."""

    @model_serializer(mode="wrap")
    def _without_null(self, handler) -> dict[str, Any]:
        given = handler(self)
        return {key: value for key, value in given.items() if value is not None or key not in ("solutions", "mirror")}

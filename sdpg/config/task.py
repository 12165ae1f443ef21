"""The settings of `task`: prompts, chat format and verifier."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sdpg.tasks import verifiers
from sdpg.types import PathText, Settings, Text

CHAT_KEYS = ("system", "teacher_system", "chat_template_kwargs", "teacher_chat_template_kwargs", "chat_date")
RESERVED = {  # arguments of transformers' apply_chat_template, and what it hands to the template itself
    *("conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize", "padding"),
    *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    *("strftime_now", "raise_exception"),
}


def _date_text(value: Any) -> Any:
    return value.isoformat() if type(value) is date else value  # YAML reads 2024-07-26 as a date


class Task(Settings):
    """Prompts and verifier."""

    template: PathText = "chain"
    """Prompt template of student and teacher: a name in sdpg/tasks/templates, or a YAML file."""
    verifier: Annotated[str, Field(json_schema_extra={"enum": list(verifiers.names())})] = "chain"
    """How a response is judged (sdpg/tasks/verifiers)."""
    stop: list[Annotated[str, Field(min_length=1, max_length=1)]] = []
    """One-character strings; a token that contains one ends the response, as EOS does."""
    chat_template: bool = False
    """Wrap prompts in the tokenizer's chat template."""
    system: Text | None = None
    """System prompt in front of every prompt, with chat_template; null for none."""
    teacher_system: str | None = None
    """The teacher's own system prompt; null for the student's, "" for none."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the chat template, such as {enable_thinking: false}."""
    teacher_chat_template_kwargs: dict[str, Any] | None = None
    """The teacher's own variables for the chat template; null for the student's."""
    chat_date: Annotated[str, BeforeValidator(_date_text), Field(json_schema_extra={"format": "date"})] = "2024-07-26"
    """Today, for a chat template that writes the date: YYYY-MM-DD. The same whenever and whatever runs."""

    @field_validator("verifier")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in verifiers.names():
            raise ValueError(f"expected one of {', '.join(verifiers.names())}")
        return value

    @field_validator("chat_date")
    @classmethod
    def _is_date(cls, value: str) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise PydanticCustomError("expected", "expected a date such as 2024-07-26") from None

    @field_validator("chat_template_kwargs", "teacher_chat_template_kwargs")
    @classmethod
    def _not_ours(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if taken := sorted(set(value or ()) & RESERVED):
            text = "expected variables of the template, without {taken}, which the project itself sets"
            raise PydanticCustomError("expected", text, {"taken": ", ".join(taken)})
        return value

    @model_validator(mode="after")
    def _with_chat_template(self) -> Task:
        given, fields = self.model_dump(), type(self).model_fields
        for key in CHAT_KEYS:
            if not given["chat_template"] and given[key] != fields[key].default:
                text = "{key} goes with chat_template: true, but chat_template is false; set it to true, or leave {key} out"
                raise PydanticCustomError("together", text, {"key": key})
        return self

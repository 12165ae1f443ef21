"""The settings of `data.solutions`: who writes worked solutions for the training problems that have none."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sdpg.config.alternatives import Alternatives
from sdpg.config.fits import check_temperature
from sdpg.rollout import engines
from sdpg.types import WHOLE, Count, NonNegative, PathText, Positive, Settings, TemperatureOrGreedy, Text

OURS = ("model", "messages", "temperature", "max_tokens", "n", "stream")  # of a request, which other settings decide


class _Writer(Settings):
    """What a model is asked, and how often."""

    prompt: PathText = "worked"
    """What the writer is asked: a name in sdpg/solutions, or a YAML file (see worked.yaml there)."""
    show_answer: bool = False
    """Tell the writer the reference answer. More solutions are accepted then, among them some whose steps do not lead there."""
    tries: Annotated[int, Field(ge=1, le=100), WHOLE] = 4
    """The most tries for a problem; the first whose final answer the verifier accepts is kept."""
    temperature: TemperatureOrGreedy = 1.0
    """Sampling temperature of the writer."""
    max_tokens: Count = 8192
    """The longest response, reasoning included; a longer one is cut, and not accepted."""

    @field_validator("extra", "chat_template_kwargs", check_fields=False)
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False)
        except (ValueError, TypeError):
            raise PydanticCustomError(
                "expected", "expected values that JSON has: text, finite numbers, true, false, null"
            ) from None
        return value

    @model_validator(mode="after")
    def _tries_differ(self) -> _Writer:
        if self.temperature == 0 and self.tries > 1:
            text = "tries is {tries}, but temperature is 0: every try would say the same; set tries to 1"
            raise PydanticCustomError("together", text, {"tries": self.tries})
        return self


class Local(_Writer):
    """A model on this machine, in the rollout engine. It takes one GPU where resources.gpus is 1 or more."""

    model: Text
    """A directory with a Hugging Face checkpoint, or a hub id, with @REVISION if need be."""
    engine: Annotated[str, Field(json_schema_extra={"enum": list(engines.names())})] = "vllm"
    """Rollout engine (sdpg/rollout/engines)."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Weights and compute of the engine."""
    max_prompt_tokens: Count = 2048
    """The longest prompt; a problem with a longer one is not asked, and counted."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the model's chat template, such as {enable_thinking: true}. A model without one gets the prompt alone."""

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in engines.names():
            raise ValueError(f"expected one of {', '.join(engines.names())}")
        return value

    @model_validator(mode="after")
    def _samples(self) -> Local:
        if self.temperature:
            check_temperature(self.engine, self.temperature)
        return self


class Endpoint(_Writer):
    """An OpenAI-compatible endpoint (POST base_url/chat/completions)."""

    EXECUTION: ClassVar = (
        *("base_url", "key_env", "input_price", "output_price", "max_cost", "expected_tokens", "expected_tries"),
        *("requests_per_minute", "concurrency", "timeout", "retries", "longest_wait"),
    )  # of these no solution depends: the same model may be served elsewhere tomorrow

    base_url: Text
    """Where it is, such as https://host/v1; no part of a key."""
    model: Text
    """The model's name there."""
    input_price: NonNegative
    """Price of a million tokens of prompts, in the currency of max_cost; 0 for an endpoint that costs nothing."""
    output_price: NonNegative
    """Price of a million tokens of responses, reasoning included; 0 for an endpoint that costs nothing."""
    max_cost: NonNegative
    """The most that all solutions of the scale may cost. A larger estimate is refused before any request; none is sent that
    might go beyond it."""
    key_env: str | None = None
    """Name of the environment variable with the key, never the key itself; null for none."""
    expected_tokens: Positive | None = None
    """Mean length of a response that the estimate reckons with; null: max_tokens."""
    expected_tries: Annotated[float, Field(ge=1, le=100)] | None = None
    """Mean tries of a problem that the estimate reckons with; null: tries."""
    requests_per_minute: Annotated[float, Field(ge=0.01, le=1_000_000)] = 60.0
    """The most requests a minute."""
    concurrency: Annotated[int, Field(ge=1, le=1000), WHOLE] = 8
    """The most requests at the same time."""
    timeout: Annotated[float, Field(ge=0.1, le=86400)] = 600.0
    """Seconds after which a response is given up."""
    retries: Annotated[int, Field(ge=0, le=100), WHOLE] = 8
    """How often a request that failed is sent again (HTTP 408, 409, 425, 429, 5xx, no connection, no answer in time, an answer
    that is no JSON) before the command stops; what was answered is kept."""
    longest_wait: Positive = 600.0
    """Seconds: the longest Retry-After that is waited for; a longer one stops the command."""
    extra: dict[str, Any] = {}
    """More fields of each request, such as {reasoning_effort: low} or {top_p: 0.95}."""
    tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name under which the endpoint takes max_tokens."""

    @model_validator(mode="before")
    @classmethod
    def _key_is_a_name(cls, value: Any) -> Any:
        """Refuse what is no name of a variable without showing it: it may be the key."""
        name = value.get("key_env") if isinstance(value, dict) else None
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name)):
            text = (
                "key_env is not the name of an environment variable (capitals, digits, _); put the key into one, and name that"
            )
            raise PydanticCustomError("together", text)
        url = value.get("base_url") if isinstance(value, dict) else None
        if isinstance(url, str) and "@" in url:
            text = "base_url has a user or password in it; put the key into an environment variable, and name it in key_env"
            raise PydanticCustomError("together", text)
        return value

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            fine = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
            fine = fine and (parts.port or 1) and not re.search(r"[^!-~]", value) and "" not in parts.hostname.split(".")
        except ValueError:  # a port that is no number, half an address
            fine = False
        if not fine:
            raise PydanticCustomError("expected", "expected a URL such as https://host/v1, without ? and #")
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise PydanticCustomError("expected", "expected the URL without /chat/completions, which is added")
        return value.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(value) & {*OURS, "max_completion_tokens"}):
            text = "expected fields other than {taken}, which the settings beside it decide"
            raise PydanticCustomError("expected", text, {"taken": ", ".join(taken)})
        return value

    @property
    def host(self) -> str:
        """The endpoint's host, with its port if it names one."""
        return urlsplit(self.base_url).netloc

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.input_price + completion_tokens * self.output_price) / 1e6


class SolutionColumns(Settings):
    """Names of the columns."""

    solution: Text = "solution"
    """Column of the worked solution."""
    question: Text = "question"
    """Column of the question, by which rows belong to problems."""
    id: Text = "id"
    """Column of the problem's id, for a file without questions."""


class SolutionFile(Settings):
    """A file that has them already."""

    path: PathText
    """A .jsonl, .json, .csv or .parquet file, also gzipped; several rows of a problem are several tries."""
    columns: SolutionColumns = SolutionColumns()
    """Names of the columns."""
    verify: bool = True
    """Keep a solution only if the verifier accepts its final answer; false for solutions that do not end in it."""


class Solutions(Alternatives):
    """Who writes worked solutions for training problems that have none: exactly one of the keys."""

    local: Local | None = None
    """A model on this machine, in the rollout engine."""
    endpoint: Endpoint | None = None
    """An OpenAI-compatible endpoint."""
    file: SolutionFile | None = None
    """A file that has them already."""

    def outcome(self) -> dict[str, Any]:
        """Return the settings that decide which solutions there are: no prices, limits of rate, nor the key's name."""
        block = self.dump()
        for key in Endpoint.EXECUTION if self.endpoint else ():
            del block["endpoint"][key]
        return block

"""Reading config/claims.yaml: the keys of a claim with their types and meanings, and what each kind of test takes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdpg.artefacts import declared
from sdpg.artefacts.claims.kinds import KINDS
from sdpg.config import METHODS, ConfigError, nearest
from sdpg.config.files import read_mapping, show, shown

CLAIMS = METHODS.with_name("claims.yaml")
COMMON = frozenset({"id", "text", "source", "family", "test", "direction", "margin", "figure"})
Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Window = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class Claim(BaseModel):
    """One claim of the paper, as a test that can fail."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)

    id: Text
    """Its name, once in the file."""
    text: Text
    """What is claimed, as precisely as it is tested."""
    source: Text
    """Where the paper says so."""
    family: Annotated[list[Literal["matched", "published", "published data"]], Field(min_length=1)]
    """The families of experiment that can answer it; `published data` is the paper's own curves."""
    test: Literal["last", "mean", "change", "time_to", "proposition", "published"]
    """last: at the last checkpoint. mean: over a window. change: from one window to another. time_to: cost of getting to a
    level. proposition: Proposition 3.1 in float64. published: difference of the paper's curves."""
    direction: Literal["above", "below"]
    """The side of the margin that is claimed."""
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The smallest effect that counts, without a sign."""
    figure: str | None
    """The figure that shows it; null where none does."""
    data: Literal["evaluation", "training"] | None = None
    """evaluation: the checkpoints on the evaluation sets. training: the rollouts, metrics.jsonl."""
    methods: Annotated[list[str], Field(min_length=1, max_length=2)] | None = None
    """One method, or two: the first minus the second."""
    metric: str | list[str] | None = None
    """evaluation: accuracy or a metric of scores.csv. training: a column of metrics.jsonl. published: metrics of curves.csv."""
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    """Evaluation sets; without the key all of the scale."""
    combine: Literal["all", "any"] = "all"
    """all: the claim is about every evaluation set. any: about at least one."""
    window: Window | None = None
    """Steps k with a < k/T <= b."""
    before: Window | None = None
    """The window that a change starts from."""
    after: Window | None = None
    """The window that a change ends in."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The level to get to, as a share of the second method's mean over its last tenth."""
    relative: bool = False
    """Effect and margin are relative changes (0.1 is a tenth), tested on logarithms. Training data only."""
    axis: Literal["steps", "tokens", "compute"] = "steps"
    """What a cost is counted in: steps, sampled tokens, or FLOPs."""
    curves: (
        Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=2, max_length=2)] | None
    ) = None
    """Two curves of results/published/curves.csv as [figure, method]: the first minus the second."""


class Claims(BaseModel):
    """The file: the significance level of the family of all claims together, and the claims."""

    model_config = ConfigDict(extra="forbid")

    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    claims: Annotated[list[Claim], Field(min_length=1)]


def read_claims(path: Path = CLAIMS) -> tuple[float, list[dict[str, Any]]]:
    """Return (alpha, claims), each claim with the keys that it gives and those that have a default.

    Raises ConfigError: which claim, what is wrong, and the nearest valid name.
    """
    content = read_mapping(path)
    where = f"in {shown(path)}"
    try:
        found = Claims.model_validate(content)
    except ValidationError as problem:
        error = min(problem.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise ConfigError(f"{_problem(content, error)} ({where})") from None
    claims = [claim.model_dump(exclude_none=True) | {"figure": claim.figure} for claim in found.claims]
    seen: set[str] = set()
    for claim, given in zip(claims, content["claims"], strict=True):
        problem = f"the id {claim['id']!r} is there twice" if claim["id"] in seen else _misfit(given)
        if problem:
            raise ConfigError(f"claim {claim['id']}: {problem} ({where})")
        seen.add(claim["id"])
    return found.alpha, claims


def _misfit(claim: dict[str, Any]) -> str | None:
    """Return what is wrong between the claim's test and its other keys, or None."""
    kind = KINDS[claim["test"]]
    needed, allowed = kind.needs, COMMON | kind.needs | kind.takes
    for key in sorted(needed - claim.keys()):
        return f"test {claim['test']!r} needs the key {key!r}"
    for key in sorted(claim.keys() - allowed):
        return f"test {claim['test']!r} does not use the key {key!r}; it takes {', '.join(sorted(allowed - COMMON)) or 'none'}"
    known = {file.stem for file in METHODS.glob("*.yaml")}
    for method in claim.get("methods", []):
        if method not in known:
            return f"method {method!r} is unknown; {nearest(method, known)}"
    figures = [name.removeprefix("figures/") for name in declared() if name.startswith("figures/")]
    if claim["figure"] is not None and claim["figure"] not in figures:
        return f"figure: got {claim['figure']!r}; {nearest(str(claim['figure']), figures)}"
    if "methods" in claim and len(claim["methods"]) not in kind.methods:
        return f"test {claim['test']!r} takes {' or '.join(map(str, kind.methods))} methods, got {len(claim['methods'])}"
    for key in ("window", "before", "after"):
        if key in claim and claim[key][0] >= claim[key][1]:
            return f"{key} {claim[key]} is empty; expected [a, b] with a < b"
    if claim.get("relative") and claim.get("data") == "evaluation":
        return "relative goes with data: training"
    if (claim.get("relative") or kind.relative) and claim["margin"] >= 1 and claim["direction"] == "below":
        return f"a relative margin below must be less than 1, got {claim['margin']}"
    if claim.get("data") == "training" and {"tasks", "combine"} & claim.keys():
        return "tasks and combine go with data: evaluation; rollouts are of the training problems"
    return None


def _problem(content: Any, error: Any) -> str:
    """Return an error of validation in one line: "claim 2a: key 'margn' is unknown; did you mean 'margin'?"."""
    path = list(error["loc"])
    claim = ""
    if len(path) > 1 and path[0] == "claims":
        given = content["claims"][path[1]]
        name = given.get("id", f"number {path[1] + 1}") if isinstance(given, dict) else f"number {path[1] + 1}"
        claim, path = f"claim {name}: ", path[2:]
    key = next((str(part) for part in path if isinstance(part, str)), "the file")
    got = error["input"]
    match error["type"]:
        case "extra_forbidden":
            known = Claim.model_fields if claim else Claims.model_fields
            return f"{claim}key {key!r} is unknown; {nearest(key, known)}"
        case "missing":
            return f"{claim}key {key!r} is missing"
        case "literal_error":
            known = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            return f"{claim}{key}: got {show(got)}; {nearest(str(got), known)}"
    return f"{claim}{key}: got {show(got)}; {error['msg'][0].lower()}{error['msg'][1:]}"

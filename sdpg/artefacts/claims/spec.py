"""Reading config/claims.yaml: the keys of a claim with their types and meanings, and what each kind of test takes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdpg.artefacts import declared
from sdpg.artefacts.claims.kinds import KINDS
from sdpg.artefacts.claims.verdicts import thresholds
from sdpg.config import METHODS, ConfigError, nearest
from sdpg.config.files import read_mapping, show, shown

CLAIMS = METHODS.with_name("claims.yaml")
MOST_PRIMARY = 10
COMMON = frozenset({"id", "text", "source", "family", "test", "direction", "margin", "figure", "role", "effect", "needs"})
STATISTICAL = frozenset({"role", "effect", "needs"})  # keys of claims that are tested on runs
Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Window = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class Need(BaseModel):
    """A condition without which a claim cannot be tested."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)

    what: Literal["headroom", "entropy", "length", "rise", "pace"]
    """headroom: room for the paper's effect above the method's accuracy. entropy: some is left at the end, or accuracy does not
    explain it. length: right responses differ in length (90th over 10th percentile). rise: accuracy rises before it may fall.
    pace: some method of the scale gets far enough by the claim's window.
    """
    method: Text | None = None
    """The method that it is looked for in: the one that is compared with, or the only one; without the key (pace) all."""
    least: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The smallest number with which the claim can be tested. Without the key: of headroom the paper's effect, of pace half."""


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
    role: Literal["primary", "exploratory"] = "exploratory"
    """primary: at most ten, tested in the order of the file by the fallback procedure. exploratory: by Holm among themselves.
    """
    test: Literal["mean", "area", "change", "time_to", "collapse", "proposition", "published"]
    """mean: over a window. area: under the evaluation curve. change: from one window to another, in the median run. time_to:
    cost of getting to a level. collapse: share of runs that collapse (docs/metrics.md). proposition: Proposition
    3.1 in float64. published: difference of the paper's curves."""
    direction: Literal["above", "below"]
    """The side of the margin that is claimed."""
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The smallest effect that counts, without a sign: beyond it a claim is supported."""
    effect: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The paper's own effect, without a sign: short of half of it a claim is refuted. Without the key it cannot be."""
    needs: list[Need] = []
    """What must hold of these results for the claim to be testable by them."""
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
    after_rise: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What a run's accuracy (smoothed) must have risen by above its start for a collapse to count; without the key any does."""
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
    primary = [claim["id"] for claim in claims if claim["role"] == "primary"]
    if len(primary) > MOST_PRIMARY:
        raise ConfigError(f"{len(primary)} claims are primary, at most {MOST_PRIMARY} may be: {', '.join(primary)} ({where})")
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
    if claim["test"] in ("proposition", "published"):
        allowed -= STATISTICAL
    for key in sorted(needed - claim.keys()):
        return f"test {claim['test']!r} needs the key {key!r}"
    for key in sorted(claim.keys() - allowed):
        return f"test {claim['test']!r} does not use the key {key!r}; it takes {', '.join(sorted(allowed - COMMON)) or 'none'}"
    known = {file.stem for file in METHODS.glob("*.yaml")}
    needs = claim.get("needs", [])
    for method in [*claim.get("methods", []), *(need["method"] for need in needs if "method" in need)]:
        if method not in known:
            return f"method {method!r} is unknown; {nearest(method, known)}"
    for need in needs:
        if problem := _unfit(need, claim):
            return f"needs: {problem}"
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
    if claim.get("relative") or kind.relative:
        for key in ("margin", "effect"):
            if claim["direction"] == "below" and claim.get(key, 0) >= 1:
                return f"a relative {key} below must be less than 1, got {claim[key]}"
    margin, half = thresholds(claim, claim.get("relative", False) or kind.relative)
    if half is not None and half < margin:
        return f"half of effect {claim['effect']} lies below margin {claim['margin']}, so it could be supported and refuted"
    if kind.of == "collapse" and len(claim["methods"]) == 2 and claim["margin"]:
        return f"a collapse of two methods is tested against 0, got margin {claim['margin']}"
    if kind.of == "collapse" and claim["direction"] == "below":
        return "a collapse is claimed above: put the method that collapses first"
    if claim["test"] == "area" and claim.get("data") == "training":
        return "area goes with data: evaluation"
    if claim.get("data") == "training" and {"tasks", "combine"} & claim.keys():
        return "tasks and combine go with data: evaluation; rollouts are of the training problems"
    return None


def _unfit(need: dict[str, Any], claim: dict[str, Any]) -> str | None:
    """Return what is wrong between a condition and its claim, or None."""
    what = need["what"]
    if ("method" in need) == (what == "pace"):
        return f"{what} is of all methods, got the key 'method'" if what == "pace" else f"{what} needs the key 'method'"
    if "least" not in need and (what not in ("headroom", "pace") or "effect" not in claim):
        return f"{what} needs the key 'least'"
    if what in ("headroom", "pace") and "window" not in claim:
        return f"{what} is of a window, which test {claim['test']!r} has none of"
    if what == "pace" and (claim.get("data") != "training" or claim.get("relative")):
        return "pace goes with data: training, not relative"
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
            known = (Need if len(path) > 1 else Claim).model_fields if claim else Claims.model_fields
            return f"{claim}key {str(path[-1])!r} is unknown; {nearest(str(path[-1]), known)}"
        case "missing":
            return f"{claim}key {key!r} is missing"
        case "literal_error":
            known = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            return f"{claim}{key}: got {show(got)}; {nearest(str(got), known)}"
    return f"{claim}{key}: got {show(got)}; {error['msg'][0].lower()}{error['msg'][1:]}"

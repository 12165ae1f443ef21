"""What two runs of an experiment are compared by: of results, of a committed reference, or of a stranger's archive.

Every checkpoint's accuracy, the claims, and what both must share. What is read from a folder may come from
anyone: it is checked value by value before anything is computed or printed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sdpg.analysis.evaluations import task_scores
from sdpg.analysis.results import Results, require

CURVES, IDENTITY, CLAIMS = "accuracy.csv", "reference.json", "claims.json"
SCORES = "scores.csv"  # what CURVES is made from where it is missing: a reference made before
KEYS = ["method", "task", "step"]
TEXTS = {"method": str, "task": str}
LONGEST = 500  # characters of a name


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("no name has control characters")
    return text


Name = Annotated[str, Field(max_length=LONGEST), AfterValidator(_printable)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Identity(BaseModel):
    """What two runs must share: the accuracy's name, and the content of every evaluation set (SHA-256)."""

    accuracy: Name
    problems: dict[Name, Digest]


class Claim(BaseModel):
    """What is compared of a claim; claims.json says more."""

    model_config = ConfigDict(allow_inf_nan=False)
    id: Name
    claim: Name | None = None
    verdict: Name
    effect: Number | None = None
    estimate: Number | None = None
    error: Number | None = None
    df: Number | None = None


@dataclass(frozen=True)
class Outcome:
    """name: what it is called in messages. curves: KEYS and a column seed<n> for each seed. claims: None for none."""

    name: str
    identity: dict[str, Any]
    curves: pd.DataFrame
    claims: list[dict[str, Any]] | None


def outcome_of(results: Results) -> Outcome:
    """Read it from finished results."""
    return Outcome(str(results.root), identity(results), accuracy_curves(results), _claims(results.root))


def read_outcome(folder: Path, name: str | None = None) -> Outcome:
    """Read it from a folder's CURVES (or SCORES), IDENTITY and CLAIMS. name: in messages, the folder's by default.

    Raises ValueError naming file and value for anything that is not what this project writes.
    """
    name = name or str(folder)
    told = _checked(TypeAdapter(Identity), folder / IDENTITY, name)
    curves = folder / CURVES
    frame = _from_scores(folder / SCORES, told.accuracy, name) if not curves.is_file() and (folder / SCORES).is_file() else None
    return Outcome(name, told.model_dump(), _checked_curves(curves, name, frame), _claims(folder, name))


def accuracy_curves(results: Results) -> pd.DataFrame:
    """Return accuracy at every checkpoint: method, task, step, and a column seed<n> for each seed; empty from the step on at
    which a run ended early.
    """
    frames = []
    for method in results.methods:
        ended_S = results.ended(method)
        for task in results.tasks:
            scores = task_scores(results, method, task)
            means_SK = scores.values[results.accuracy].mean(axis=2)
            means_SK = np.where(scores.steps >= ended_S[:, None], np.nan, means_SK)
            frame = pd.DataFrame(means_SK.T, columns=[f"seed{seed}" for seed in results.seeds])
            frames.append(frame.assign(method=method, task=task, step=scores.steps.astype(int)))
    whole = pd.concat(frames, ignore_index=True)
    return whole[[*KEYS, *(column for column in whole if column not in KEYS)]]


def _from_scores(path: Path, accuracy: str, name: str) -> pd.DataFrame:
    """Return what CURVES would hold, from a scores.csv."""
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(("method", "task", "metric"), str))
        wide = frame[frame["metric"] == accuracy].pivot(index=KEYS, columns="seed", values="value").sort_index()
        return wide.rename(columns=lambda seed: f"seed{seed}").reset_index().rename_axis(columns=None)
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{name}: {path.name} is not what this project writes ({_line(error)})") from None


def identity(results: Results) -> dict[str, Any]:
    """Return what two runs must share to be compared, as in Identity."""
    digests = {}
    for task in results.tasks:
        path = results.root / "data" / "eval" / f"{task}.parquet"
        require(path)
        text = pd.read_parquet(path, columns=["id", "question", "answer"]).sort_values("id").to_json(orient="values")
        digests[task] = hashlib.sha256(text.encode()).hexdigest()
    return {"accuracy": results.accuracy, "problems": digests}


def _claims(folder: Path, name: str | None = None) -> list[dict[str, Any]] | None:
    path = folder / CLAIMS
    if not path.is_file():
        return None
    return [claim.model_dump() for claim in _checked(TypeAdapter(list[Claim]), path, name or str(folder))]


def _checked(kind: TypeAdapter, path: Path, name: str) -> Any:
    """Return a JSON file's content as `kind`."""
    try:
        return kind.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"])) or "all of it"
        raise ValueError(f"{name}: {path.name}, {_shown(at)}: got {_shown(first['input'])}; {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {path.name} is not what this project writes ({_line(error)})") from None


def _checked_curves(path: Path, name: str, frame: pd.DataFrame | None) -> pd.DataFrame:
    """Return CURVES, read from its file unless it is given."""

    def refuse(what: str) -> NoReturn:
        raise ValueError(f"{name}: {path.name} {what}")

    try:
        frame = (
            pd.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values=[""], float_precision="round_trip")
            if frame is None
            else frame
        )
    except (OSError, ValueError, OverflowError) as error:  # pandas' own are ValueErrors
        refuse(f"is not what this project writes ({_line(error)})")
    if missing := [column for column in KEYS if column not in frame]:
        refuse(f"lacks the columns {', '.join(missing)}")
    seeds = [column for column in frame if column not in KEYS]
    if bad := [column for column in seeds if not re.fullmatch(r"seed[0-9]{1,19}", column)]:
        refuse(f"has a column {_shown(bad[0])}, expected seed<n>")
    if not seeds or frame.empty:
        refuse("has no row" if seeds else "has no seed")
    for column in TEXTS:
        texts = frame[column]
        if texts.isna().any() or not texts.map(str.isprintable).all() or texts.str.len().max() > LONGEST:
            refuse(f"has an empty cell, control characters or a long text in column {column}")
    if not pd.api.types.is_integer_dtype(frame["step"]) or not frame["step"].between(0, 10**12).all():
        refuse("has a step that is no whole number")
    for column in seeds:
        if not pd.api.types.is_numeric_dtype(frame[column]) or not frame[column].dropna().between(0, 1).all():
            refuse(f"has values in {column} that are no accuracies, expected 0 to 1")
    if frame.duplicated(KEYS).any():
        refuse("has a step twice")
    return frame.sort_values("step", kind="stable")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if text.isprintable() else repr(text)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

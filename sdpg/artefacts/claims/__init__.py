"""The paper's claims (config/claims.yaml) put to a scale's results: claims.json and claims.md.

spec.py reads the claims, kinds.py says what each kind of test measures, runs.py reads it, verdicts.py decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sdpg.analysis.comparisons import Contrast, contrast
from sdpg.analysis.results import Results
from sdpg.artefacts.claims import proposition
from sdpg.artefacts.claims.kinds import KINDS, Claim
from sdpg.artefacts.claims.runs import NotRun, Runs
from sdpg.artefacts.claims.spec import CLAIMS, read_claims
from sdpg.artefacts.claims.table import markdown
from sdpg.artefacts.claims.verdicts import INCONCLUSIVE, NOT_RUN, REFUTED, SINGLE, SUPPORTED, Part, combine, decide, margin_of
from sdpg.artefacts.declare import PUBLISHED_CURVES, ArtefactSpec, analysis
from sdpg.io import write_atomic, write_json

ARTEFACT = ArtefactSpec(
    about="claims.json and claims.md: a verdict for each claim of the paper",
    reads=lambda files: [*files.evaluations, *files.metrics, PUBLISHED_CURVES],
    writes=("claims.json", "claims.md"),
    files=("config/claims.yaml",),
    uses=lambda config: analysis(config) | {"family": config.family},
    caption="Verdicts on the paper's claims (config/claims.yaml); docs/metrics.md says how they come about.",
    shown="md",
    category="Claims",
)

UNITS = {"response_length": "tokens", "length": "tokens", "entropy": "nats per token", "reward": "reward"}
Row = dict[str, Any]


def evaluate(results: Results, path: Path = CLAIMS) -> list[Row]:
    """Return one row per claim, in the order of the file; the keys are those of claims.json (docs/artefacts.md).

    Reads eval/, metrics.jsonl and results/published/curves.csv. Raises ConfigError for a mistake in the file of claims, and
    ValueError for a missing result or an unknown metric.
    """
    alpha, claims = read_claims(path)
    runs = Runs(results)
    rows, tested = [], []
    for claim in claims:
        row = _blank(claim, results)
        rows.append(row)
        try:
            if not {results.family, "published data"} & set(claim["family"]):
                raise NotRun(f"asks for the {row['family']} family; this scale is {results.family}")
            parts = _measure(runs, claim, row)
        except NotRun as why:
            row |= {"verdict": NOT_RUN, "reason": str(why)}
            continue
        if parts and len(results.seeds) > 1:
            tested.append((row, claim, combine(parts, claim["combine"])))
        elif parts:
            row |= _numbers(claim, combine(parts, claim["combine"]).part.up.effect)
            row |= {"verdict": INCONCLUSIVE, "reason": "one seed: nothing is known about the spread between runs"}
    decided = decide([combined for *_, combined in tested], alpha)
    for (row, claim, combined), (p_holm, verdict, reason) in zip(tested, decided, strict=True):
        row |= _numbers(claim, combined.part.up.effect, combined.part.up.interval())
        row |= {"p": combined.p, "p_holm": p_holm, "verdict": verdict, "reason": _where(combined.part, row) + reason}
    for row, claim in zip(rows, claims, strict=True):
        ended = sum(method in claim.get("methods", []) for method, _ in results.diverged)
        if ended and row["verdict"] != NOT_RUN:
            row["reason"] += f"; {ended} of {len(claim['methods']) * len(results.seeds)} runs diverged"
    return rows


def make(job) -> None:
    """Write claims.json and claims.md."""
    rows = evaluate(job.results)
    write_json(job.results.root / "claims.json", rows)
    with write_atomic(job.results.root / "claims.md") as file:
        file.write(markdown(rows, job.results, read_claims(CLAIMS)[0]))


def _blank(claim: Claim, results: Results) -> Row:
    """Return the row of a claim that is not measured yet."""
    compared = [" ".join(curve) for curve in claim.get("curves", [])] or claim.get("methods", [])
    family = results.family if results.family in claim["family"] else claim["family"][0]
    row = {
        "id": claim["id"],
        "claim": claim["text"],
        "source": claim["source"],
        "family": family,
        "comparison": " − ".join(compared) if compared else "computed from the definitions",
        "unit": _unit(claim),
        "direction": claim["direction"],
        "margin": claim["margin"],
        "axis": None if claim["test"] == "proposition" else claim["axis"],
        "figure": claim["figure"],
        "parts": [],
    }
    return row | dict.fromkeys(("effect", "low", "high", "p", "p_holm"))


def _measure(runs: Runs, claim: Claim, row: Row) -> list[Part]:
    """Return the parts to test, also noted in the row; for what is not tested by statistics none, and the row has its
    verdict.
    """
    if claim["test"] == "proposition":
        error = proposition.largest_error()
        held = error <= claim["margin"]
        reason = "exact up to rounding" if held else "the two sides differ"
        row |= {"effect": error, "verdict": SUPPORTED if held else REFUTED, "reason": reason}
        return []
    if claim["test"] == "published":
        row |= _published(runs, claim)
        return []
    on_sets = claim["test"] == "last" or claim.get("data") == "evaluation"
    tasks = claim.get("tasks", runs.results.tasks) if on_sets else [None]
    parts = [_part(runs, claim, task) for task in tasks]
    several = len(runs.results.seeds) > 1
    row["parts"] = [
        {"task": part.task, **_numbers(claim, part.up.effect, part.up.interval() if several else None)} for part in parts
    ]
    return parts


def _published(runs: Runs, claim: Claim) -> Row:
    """Return the differences of two of the paper's curves, one for each metric, and their mean."""
    levels = [[runs.published(*curve, metric, claim["window"]) for metric in claim["metric"]] for curve in claim["curves"]]
    effects = np.subtract(*levels)
    parts = [
        {"task": task, "effect": effect, "low": None, "high": None}
        for task, effect in zip(claim["metric"], effects.tolist(), strict=True)
    ]
    reason = "the paper's own curves" + (f", mean of {len(parts)} metrics" if len(parts) > 1 else "")
    return {"parts": parts, "effect": float(effects.mean()), "verdict": SINGLE, "reason": reason}


def _part(runs: Runs, claim: Claim, task: str | None) -> Part:
    values = KINDS[claim["test"]].values
    found = contrast(*(values(runs, claim, method, task) for method in claim["methods"]))
    sign = 1 if claim["direction"] == "above" else -1
    return Part(task, Contrast(sign * found.effect, found.error, found.df), margin_of(claim, _relative(claim)))


def _numbers(claim: Claim, effect: float, ends: tuple[float, float] | None = None) -> Row:
    """Return the effect, low and high as reported: turned back, and relative ones as such; None without an interval."""
    sign = -1 if claim["direction"] == "below" else 1
    back = np.expm1 if _relative(claim) else float
    low, high = sorted(float(back(sign * end)) for end in ends) if ends else (None, None)
    return {"effect": float(back(sign * effect)), "low": low, "high": high}


def _unit(claim: Claim) -> str:
    if _relative(claim):
        return "relative change"
    metrics = claim.get("metric", [])
    name = metrics if isinstance(metrics, str) else "".join(metrics[:1])
    return "absolute error" if claim["test"] == "proposition" else UNITS.get(name, "fraction")


def _relative(claim: Claim) -> bool:
    return claim["relative"] or KINDS[claim["test"]].relative


def _where(part: Part, row: Row) -> str:
    return f"{part.task}: " if len(row["parts"]) > 1 else ""

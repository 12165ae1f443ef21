"""The paper's claims (config/claims.yaml) put to a scale's results: claims.json and claims.md.

spec.py reads the claims, preconditions.py says whether these results can test one, kinds.py what each kind of test measures,
measure.py estimates, verdicts.py decides.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdpg.analysis.intervals import Contrast, Median
from sdpg.analysis.results import Results
from sdpg.artefacts.claims import preconditions, proposition
from sdpg.artefacts.claims.kinds import KINDS, Claim
from sdpg.artefacts.claims.measure import Measured, counts, known, measure, paired_p
from sdpg.artefacts.claims.runs import NotRun, Runs
from sdpg.artefacts.claims.spec import CLAIMS, read_claims
from sdpg.artefacts.claims.table import markdown
from sdpg.artefacts.claims.verdicts import (
    EXACT,
    NOT_RUN,
    NOT_TESTABLE,
    OPEN,
    PROCEDURES,
    PUBLISHED,
    REFUTED,
    SINGLE,
    SUPPORTED,
    combine,
    decide,
)
from sdpg.artefacts.declare import PUBLISHED_CURVES, ArtefactSpec, analysis
from sdpg.config.variants import own_methods
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
APART = {"proposition": EXACT, "published": PUBLISHED}  # tests that ask nothing of runs
ONE_RUN = "one run of each method: nothing is known about the spread between runs"
Row = dict[str, Any]


def evaluate(results: Results, path: Path = CLAIMS, runs: Runs | None = None) -> list[Row]:
    """Return one row per claim, in the order of the file; the keys are those of claims.json (docs/artefacts.md).

    Reads eval/, metrics.jsonl and results/published/curves.csv. Raises ConfigError for a mistake in the file of claims, and
    ValueError for a missing result or an unknown metric.
    """
    alpha, claims = read_claims(path)
    return judge(runs or Runs(results), claims, alpha)


def judge(runs: Runs, claims: list[Claim], alpha: float) -> list[Row]:
    """Return the rows of `evaluate` for these claims, whose primary ones are in the order in which they are tested."""
    results = runs.results
    rows = [_blank(claim, results) for claim in claims]
    measured = [_measure(runs, claim, row) for claim, row in zip(claims, rows, strict=True)]
    for role in PROCEDURES:
        chosen = [i for i, row in enumerate(rows) if row["role"] == role and row["verdict"] != NOT_RUN]
        asked = [combine([of.part for of in measured[i]], claims[i]["combine"]) if measured[i] else None for i in chosen]
        for i, combined, decision in zip(chosen, asked, decide(asked, alpha, role), strict=True):
            if combined is None:
                continue
            deciding = next(of for of in measured[i] if of.part is decision.part)
            rows[i] |= _estimate(claims[i], deciding, len(results.seeds))
            where = f"{deciding.part.task}: " if len(measured[i]) > 1 else ""
            if len(results.seeds) > 1:
                reason = decision.reason + _left_out(deciding, rows[i], len(results.seeds))
                rows[i] |= {"p": decision.p, "p_adjusted": decision.p_adjusted}
            else:
                reason = ONE_RUN
            rows[i] |= {"verdict": decision.verdict, "reason": where + reason}
    for row, claim in zip(rows, claims, strict=True):
        ended = sum(method in claim.get("methods", []) for method, _ in results.diverged)
        if ended and row["verdict"] != NOT_RUN:
            row["reason"] += f"; {ended} of {len(claim['methods']) * len(results.seeds)} runs diverged or were stopped"
    return rows


def make(job) -> None:
    """Write claims.json and claims.md. Runs at other settings (`sensitivity`) lend nothing to the scale's own claims."""
    rows = evaluate(replace(job.results, methods=tuple(own_methods(job.config))))
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
        "role": APART.get(claim["test"], claim["role"]),
        "test": claim["test"],
        "family": family,
        "comparison": " − ".join(compared) if compared else "computed from the definitions",
        "unit": _unit(claim),
        "direction": claim["direction"],
        "margin": claim["margin"],
        "paper": claim.get("effect"),
        "axis": None if claim["test"] == "proposition" else claim["axis"],
        "figure": claim["figure"],
        "verdict": OPEN,
        "reason": "",
        "parts": [],
        "preconditions": [],
        "collapsed": [],
        "units": [],
    }
    empty = ("effect", "low", "high", "estimate", "error", "df", "p", "p_adjusted", "p_collapse", "interaction")
    return row | dict.fromkeys(empty)


def _measure(runs: Runs, claim: Claim, row: Row) -> list[Measured]:
    """Return what is tested of the claim, also noted in the row; nothing where the row has its verdict without a test."""
    results = runs.results
    try:
        if not {results.family, "published data"} & set(claim["family"]):
            raise NotRun(f"asks for the {row['family']} family; this scale is {results.family}")
        if claim["test"] == "proposition":
            row |= _proposition(claim)
            return []
        if claim["test"] == "published":
            row |= _published(runs, claim)
            return []
        on_sets = claim.get("data") == "evaluation"
        tasks = claim.get("tasks", results.tasks) if on_sets else [None]
        parts = [measure(runs, claim, task) for task in tasks]
        found = preconditions.check(runs, claim)
    except NotRun as why:
        row |= {"verdict": NOT_RUN, "reason": str(why)}
        return []
    row["preconditions"] = [one._asdict() for one in found]
    several = len(results.seeds) > 1
    row["parts"] = [{"task": of.part.task, **_numbers(claim, of, several), "units": len(of.units)} for of in parts]
    if unmet := [str(one) for one in found if not one.met]:
        row |= {"verdict": NOT_TESTABLE, "reason": "; ".join(unmet)}
        row |= _estimate(claim, parts[0], len(results.seeds)) if len(parts) == 1 else {}
        return []
    return parts


def _proposition(claim: Claim) -> Row:
    error = proposition.largest_error()
    held = error <= claim["margin"]
    reason = "exact up to rounding" if held else "the two sides differ"
    return {"effect": error, "verdict": SUPPORTED if held else REFUTED, "reason": reason}


def _published(runs: Runs, claim: Claim) -> Row:
    """Return the differences of two of the paper's curves, one for each metric, and their mean."""
    levels = [[runs.published(*curve, metric, claim["window"]) for metric in claim["metric"]] for curve in claim["curves"]]
    effects = np.subtract(*levels)
    parts = [
        {"task": task, "effect": effect, "low": None, "high": None, "units": 1}
        for task, effect in zip(claim["metric"], effects.tolist(), strict=True)
    ]
    reason = "the paper's own curves" + (f", mean of {len(parts)} metrics" if len(parts) > 1 else "")
    return {"parts": parts, "effect": float(effects.mean()), "verdict": SINGLE, "reason": reason}


def _estimate(claim: Claim, of: Measured, runs: int) -> Row:
    """Return what the row says of the part that decides: as reported, and (estimate, error, df) on the scale of the test."""
    sign, up = -1 if claim["direction"] == "below" else 1, of.part.up
    row = _numbers(claim, of, runs > 1) | {"units": of.units, "collapsed": counts(of.fell, runs)}
    row["estimate"] = sign * up.effect if np.isfinite(up.effect) else None
    if runs > 1:
        row |= {"p_collapse": paired_p(of.fell, runs), "interaction": of.base._asdict() if of.base else None}
        if isinstance(up, Contrast) and known(up):
            row |= {"error": up.error, "df": None if np.isinf(up.df) else up.df}
    return row


def _numbers(claim: Claim, of: Measured, several: bool) -> Row:
    """Return the effect, low and high as reported: turned back, and relative ones as such; None without an interval."""
    sign, up = -1 if claim["direction"] == "below" else 1, of.part.up
    back = np.expm1 if claim["relative"] or KINDS[claim["test"]].relative else float
    ends = up.interval() if several and known(up) else (np.nan, np.nan)
    low, high = (None, None) if not np.isfinite(ends).all() else sorted(float(back(sign * end)) for end in ends)
    return {"effect": float(back(sign * up.effect)) if np.isfinite(up.effect) else None, "low": low, "high": high}


def _unit(claim: Claim) -> str:
    kind = KINDS[claim["test"]]
    if kind.of == "collapse":
        return "share of runs"
    if claim["relative"] or kind.relative:
        return "relative change"
    metrics = claim.get("metric", [])
    name = metrics if isinstance(metrics, str) else "".join(metrics[:1])
    return "absolute error" if claim["test"] == "proposition" else UNITS.get(name, "fraction")


def _left_out(of: Measured, row: Row, runs: int) -> str:
    """Return in words which runs a comparison of performance left out, and whether the base model matters."""
    text = ""
    if KINDS[row["test"]].of == "healthy" and len(of.units) < runs:
        each = ", ".join(f"{method} {count}" for method, count in of.left.items() if count)
        text = f"; {runs - len(of.units)} of {runs} units left out, where a run collapsed ({each})"
    if any(of.flat.values()):
        text = "; collapsed without having risen so far, not counted: " + ", ".join(
            f"{method} {count}" for method, count in of.flat.items() if count
        )
    if isinstance(of.part.up, Median) and of.part.up.missing:
        text = f"; {of.part.up.missing} of {runs} runs ended before, and count as what would speak against either verdict"
    if of.never and any(of.never.values()):
        text += "; never got there: " + ", ".join(
            f"{method} in {count} of {len(of.units)}" for method, count in of.never.items()
        )
    if of.base and of.base.p <= 0.05:
        text += f"; depends on the base model (F({of.base.df1}, {of.base.df2}) = {of.base.F:.1f}, p = {of.base.p:.2g})"
    return text

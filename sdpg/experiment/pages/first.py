"""README's first screen: the picture, six methods, the verdicts in one line, and how it was made."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from sdpg.artefacts import declared
from sdpg.artefacts.claims.verdicts import NOT_RUN, NOT_TESTABLE, OPEN, REFUTED, SUPPORTED
from sdpg.experiment.pages.read import Reference, References, label, not_run
from sdpg.markdown import table

SCALE = "cpu"
METHODS = ("sdpg-ufkl", "sdpg-urkl", "rpg", "grpo", "rlsd", "opcd")
PICTURES = ("contrasts", "training_curves")  # the first that the reference has
VERDICTS = (SUPPORTED, REFUTED, NOT_TESTABLE, OPEN, NOT_RUN)


def picture(references: References, up: str) -> str:
    """Return the figure of the primary contrasts, with its caption, of which README has the first sentence."""
    of = references.get(SCALE)
    if of is None:
        return not_run(SCALE)
    name = next((name for name in PICTURES if (of.folder / "figures" / f"{name}.png").is_file()), None)
    if name is None:
        return f"No figure is in the reference of `{SCALE}`."
    item = declared().get(f"figures/{name}")
    said = item.caption if item else f"Figure {name}."
    said = said if up else said.partition(". ")[0].rstrip(".") + "."  # on the first screen, its first sentence
    return f"![Figure {name} of scale {SCALE}]({up}results/reference/{SCALE}/figures/{name}.png)\n\n*{said.strip()}*"


def six(references: References, up: str) -> str:
    """Return six methods: accuracy of the healthy runs, how many are healthy, and what a run costs."""
    of = references.get(SCALE)
    if of is None:
        return not_run(SCALE)
    task = of.tasks[0]
    rows = []
    for method in METHODS:
        entry = of.entry(method, task)
        rows.append([label(method), *(("not run",) * 3 if entry is None else (most(entry), healthy(entry), cost(of, method)))])
    base = f"; before training {of.base[task]:.3f}" if task in of.base else ""
    return (
        table(["method", "accuracy [95% interval]", "healthy runs", "cost"], rows, right=3)
        + f"\n\nScale `{SCALE}`, set `{task}`: accuracy is the mean of the second half's checkpoints over the runs "
        f"that did not collapse{base}; cost is the FLOPs of a run over GRPO's. "
        f"All methods at all scales: [docs/results.md]({up}docs/results.md)."
    )


def verdicts(references: References, up: str) -> str:
    """Return one line: of the primary claims, how many have which verdict, by scale."""
    said = []
    for scale in references.scales:
        of = references.get(scale)
        if of is not None and of.primary:
            counts = Counter(row["verdict"] for row in of.primary)
            said.append(f"at `{scale}` " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]))
    missing = [f"`{scale}`" for scale in references.scales if references.get(scale) is None]
    text = (
        f"Of the primary claims of the paper: {'; '.join(said)}."
        if said
        else "No claim of the paper has been tested yet by the present rules."
    )
    return text + (f" Not run yet: {', '.join(missing)}." if missing else "")


def made(references: References, up: str) -> str:
    """Return for each reference when, where and from which commit it was made, and whether it is stale."""
    lines = []
    for scale in references.scales:
        of = references.get(scale)
        lines.append(f"- {how(of) if of else not_run(scale)}")
    return "\n".join(lines)


def how(of: Reference) -> str:
    """Return one reference's line."""
    told = of.made
    took = f", {told.minutes:.0f} minutes" if told.minutes is not None else ""
    where = " / ".join(told.processors) or "an unknown machine"
    cores = f"{told.cores} cores" if told.cores else "cores"
    when = f"at {of.standing.made_at('`')}, {told.date or 'date unknown'}{took}"
    text = f"`{of.scale}`: {told.runs} runs by `{told.command}` {when} on {cores} of {where}; "
    if of.standing.current:
        return text + "code and config are still those that made it."
    return text + f"**stale: changed since: {of.standing.since}**."


def accuracy(entry: dict) -> str:
    """Return the accuracy of the healthy runs with its interval, or that there is none."""
    if pd.isna(entry["healthy"]):
        return "none is healthy"
    return f"{entry['healthy']:.3f} [{entry['healthy_low']:.3f}, {entry['healthy_high']:.3f}]"


def most(entry: dict) -> str:
    """Return the accuracy of the healthy runs; where most runs collapsed, first of all what all of them end at."""
    end = f"{entry['last']:.3f} at the end, all runs; " if 2 * entry["collapsed"] > entry["runs"] else ""
    return f"{end}{'healthy ones ' if end and not pd.isna(entry['healthy']) else ''}{accuracy(entry)}"


def healthy(entry: dict) -> str:
    """Return how many runs did not collapse."""
    return f"{entry['runs'] - entry['collapsed']:.0f} of {entry['runs']:.0f}"


def cost(of: Reference, method: str) -> str:
    """Return the relative FLOPs of a whole run."""
    ratio = of.cost(method)
    return "all ended early" if method not in of.spent.index else "not recorded" if ratio is None else f"{ratio:.2f}"

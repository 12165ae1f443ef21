"""What runs take: measured where there is a reference, else by `sdpg plan`, and said to be so."""

from __future__ import annotations

from sdpg.config import Config, resolve
from sdpg.experiment.machine import card, placement
from sdpg.experiment.pages.read import References
from sdpg.experiment.plan_time import BANDWIDTH_SHARE, MFU, Rates, disk_bytes, unit_hours
from sdpg.experiment.planner import make_plan
from sdpg.markdown import table

SMALL_CARDS = {"gsm8k": "l4", "gsm8k-qwen3": "l4"}  # of 24 GB; every other scale with a GPU is for an H100
PLANNED = (
    *("gsm8k", "gsm8k-80gb", "gsm8k-qwen3"),
    *("qwen3-1.7b", "qwen3-1.7b-released", "qwen3-1.7b-matched"),
    *("qwen3-4b", "qwen3-4b-released", "qwen3-4b-matched"),
)
README = (
    ("a laptop", "cpu"),
    ("a laptop", "lm"),
    ("one GPU", "gsm8k"),
    ("one GPU", "gsm8k-80gb"),
    ("eight GPUs", "qwen3-1.7b"),
    ("eight GPUs", "qwen3-4b"),
)


def costs(references: References, up: str) -> str:
    """Return what a laptop, one GPU and eight of them take for what."""
    rows = [
        [machine, f"`{scale}`", _runs(resolve(scale)), _hardware(scale), time(references, scale)] for machine, scale in README
    ]
    return table(["on", "scale", "training runs", "machine", "time"], rows)


def scales(references: References, up: str) -> str:
    """Return every scale that has been run to its end, with its minutes, and those that have not."""
    rows = []
    for scale in dict.fromkeys([*references.scales, *PLANNED]):
        of = references.get(scale)
        rows.append([f"`{scale}`", _runs(resolve(scale)) if of is None else str(of.made.runs), time(references, scale)])
    return table(["scale", "training runs", "time of all of it"], rows)


def planned(references: References, up: str) -> str:
    """Return the plans of the scales for GPUs: hours and disk."""
    rows = []
    for scale in PLANNED:
        hours, disk = _plan(resolve(scale))
        rows.append([f"`{scale}`", _hardware(scale), _runs(resolve(scale)), _short(hours), _short(disk)])
    return table(["scale", "machine", "runs", "GPU-hours", "disk, GB"], rows, right=3)


def jobs(references: References, up: str) -> str:
    """Return where the time of each reference went, by rule."""
    parts = []
    for scale in references.scales:
        of = references.get(scale)
        if of is None or not of.made.rules:
            parts.append(f"Scale `{scale}`: not measured.\n")
            continue
        heavy = sorted(of.made.rules.items(), key=lambda item: -item[1].seconds)
        rows = [[f"`{rule}`", str(of.count), _short(of.median), f"{of.seconds:,.0f}"] for rule, of in heavy[:6]]
        rest = [of for _, of in heavy[6:]]
        if rest:
            rows.append(["all other", str(sum(of.count for of in rest)), "", f"{sum(of.seconds for of in rest):,.0f}"])
        where = f"{of.made.minutes:.0f} minutes on {of.made.cores} cores of {' / '.join(of.made.processors)}, {of.made.date}"
        parts.append(f"Scale `{scale}`: {where}.\n\n{table(['rule', 'jobs', 'median seconds', 'sum'], rows, right=3)}\n")
    return "\n".join(parts)


def time(references: References, scale: str) -> str:
    """Return how long a scale takes: as measured, or as planned, which is said."""
    of = references.get(scale)
    if of is not None:
        return "not measured" if of.made.minutes is None else f"{of.made.minutes:.0f} min, measured"
    config = resolve(scale)
    if not config.resources.gpus:
        return "not measured yet"
    hours, _ = _plan(config)
    world = config.resources.gpus * config.resources.nodes
    return f"{_short(hours / world)} h, planned; nobody has run it"


def _plan(config: Config) -> tuple[float, float]:
    """Return GPU-hours and GB on disk."""
    on = card(SMALL_CARDS.get(config.name), None)
    plan = make_plan(config, gpu=on, place=placement(config, on))
    return unit_hours(plan, Rates(MFU, BANDWIDTH_SHARE)), sum(disk_bytes(plan).values()) / 1e9


def _hardware(scale: str) -> str:
    gpus = resolve(scale).resources.gpus
    if not gpus:
        return "2 cores, no GPU"
    gib = 24 if scale in SMALL_CARDS else 80
    return f"{gpus} x {gib} GB"


def _runs(config: Config) -> str:
    return str(len(config.methods) * len(config.seeds))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"

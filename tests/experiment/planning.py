"""Plans of scales, for the tests of the planner."""

from functools import cache
from pathlib import Path

from sdpg.config import resolve
from sdpg.experiment.machine import card, placement
from sdpg.experiment.planner import make_plan, memory_items

ROOT = Path(__file__).parents[2]
SCALES = ("cpu", "smoke", "lm", "paper-qwen3-1.7b", "paper-qwen3-4b", "matched", "released-qwen3-4b")


@cache
def resolved(scale):
    return resolve(scale)


def plan_of(scale, gpus=None, memory=80, nodes=None, gpu=None, methods=None, overrides=None, **options):
    config = resolve(scale, overrides) if overrides else resolved(scale)
    return make_plan(
        config, gpu=card(gpu, memory), place=placement(config, card(gpu, memory), gpus, nodes), methods=methods, **options
    )


def job_of(scale, method="sdpg-ufkl", **options):
    return plan_of(scale, methods=[method], **options).jobs[0]


def gb(job, *words):
    """Sum of the items whose names have one of the words, in GB."""
    return sum(item.bytes for item in memory_items(job) if any(word in item.name for word in words)) / 1e9

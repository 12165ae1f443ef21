"""The fake results tree, for the figures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "analysis"))

from fake_results import write_analysis, write_results  # noqa: E402

from sdpg.artefacts.figures import SHOWN  # noqa: E402

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"


def build(root: Path, **options):
    """A tree with score files and summaries, and the project's published reference data."""
    made = replace(write_results(root, **options), published=PUBLISHED)
    write_analysis(made)
    return made


@pytest.fixture
def make_tree(tmp_path):
    return lambda **options: build(tmp_path / "fake", **options)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Three methods, three seeds, two sets, smoothed rollout metrics; read only."""
    methods = ("sdpg-ufkl", "grpo", "opcd")
    return build(tmp_path_factory.mktemp("results") / "fake", methods=methods, steps=80, every=20, problems=6)


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """Every method of the figures that compare certain ones, two seeds, on the paper's sets; read only."""
    methods = tuple(dict.fromkeys(method for shown in SHOWN.values() for method in shown))
    return build(
        tmp_path_factory.mktemp("comparison") / "fake",
        methods=methods,
        seeds=(0, 1),
        tasks=("aime24", "aime25", "amc23"),
        steps=80,
        every=20,
        problems=3,
        lm_eval=False,
    )

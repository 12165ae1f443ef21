"""Fixtures over the fake results tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdpg.analysis.reference import make_reference
from tests.analysis.fake_results import write_analysis, write_claims, write_extras, write_problems, write_results
from tests.making import make

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
FIGURES = ("figures/training_curves", "figures/final_accuracy", "figures/beta_schedule")


@pytest.fixture
def results(tmp_path):
    """A fresh small tree with its score files, for tests that change files."""
    made = write_results(tmp_path / "fake", methods=("sdpg-ufkl", "grpo"), seeds=(0, 1), steps=4, every=2, problems=4)
    write_analysis(made)
    return made


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """Four methods, three seeds, two sets, with scores and figures; read only."""
    made = replace(write_results(tmp_path_factory.mktemp("results") / "fake"), published=PUBLISHED)
    write_analysis(made)
    for name in FIGURES:
        make(name, made)
    return made


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """(results, path of their report.html, folder of references): everything that the page shows, a reference too."""
    folder = tmp_path_factory.mktemp("report")
    made = write_results(folder / "fake", seeds=(0, 1))
    write_analysis(made)
    for name in FIGURES:
        make(name, made)
    write_claims(made)
    write_problems(made)
    make("samples", made)
    write_extras(made)
    make_reference(made, folder / "references" / made.name, ["scores.csv", "claims.json"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdpg.artefacts.report.FOLDER", folder / "references")
        (page,) = make("report", made)
    return made, page, folder / "references"

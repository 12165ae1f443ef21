"""The fake results trees that the figures are drawn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sdpg.artefacts import declared
from tests.analysis.fake_results import write_analysis, write_problems, write_results
from tests.artefacts.drawings import COMPARED, FIGURES, SHOWN, VARIED
from tests.making import make

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
TRIALS = [  # method, trial, train.lr, beta_base, chosen; two seeds each
    ("sdpg-ufkl", 0, 3e-4, 1.0, 0),
    ("sdpg-ufkl", 1, 5e-4, 1.0, 1),
    ("sdpg-ufkl", 2, 5e-4, 0.3, 0),
    ("sdpg-ufkl", 3, 8e-4, 0.0, 0),
    ("grpo", 0, 3e-4, None, 1),
    ("grpo", 1, 8e-4, None, 0),
]


def build(root: Path, **options):
    """Return a tree with score files and summaries, and the project's published reference data."""
    made = replace(write_results(root, **options), published=PUBLISHED)
    write_analysis(made)
    write_problems(made)
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


def write_trials(root: Path) -> None:
    """Write sweep/tuned.csv with TRIALS."""
    rows = [(*trial[:4], seed, 0.1 * i + 0.02 * seed, 0.5, trial[4]) for i, trial in enumerate(TRIALS) for seed in (0, 1)]
    columns = ["method", "trial", "train.lr", "beta_base", "seed", "score", "last", "chosen"]
    (root / "sweep").mkdir()
    pd.DataFrame(rows, columns=columns).to_csv(root / "sweep" / "tuned.csv", index=False)


@pytest.fixture
def swept(tree, tmp_path):
    """The trials of a sweep, for tests that change files."""
    write_trials(tmp_path)
    return replace(tree, root=tmp_path)


def write_varied(tmp_path_factory):
    """Return a tree of two methods, also at another learning rate, with what is made of that (VARIED)."""
    made = write_results(tmp_path_factory.mktemp("varied") / "fake", methods=COMPARED, steps=80, every=20, problems=6)
    make("sensitivity", made, **VARIED)
    return made


@pytest.fixture(scope="session")
def trees(tree, comparison, tmp_path_factory):
    """Figure -> the tree that it is drawn from; read only."""
    sweep = tmp_path_factory.mktemp("sweep")
    write_trials(sweep)
    found = dict.fromkeys(FIGURES, tree) | dict.fromkeys((*SHOWN, "figures/decomposition"), comparison)
    varied = dict.fromkeys(("sensitivity", "figures/sensitivity", "tables/sensitivity"), write_varied(tmp_path_factory))
    return found | varied | {"figures/tuning": replace(tree, root=sweep)}


@pytest.fixture(scope="session")
def drawn(trees):
    """Figure -> what its module draws: the picture and the numbers in it."""
    return {name: declared()[name].module.draw(trees[name]) for name in FIGURES}

"""The fake results trees that the figures are drawn from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sdpg.artefacts import declared
from tests.analysis.fake_results import claim, write_analysis, write_problems, write_results
from tests.artefacts.drawings import COMPARED, SHOWN, VARIED
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
NONE = dict.fromkeys(("effect", "low", "high"))
CLAIMS = [  # one of every kind and verdict
    claim(
        "gate",
        test="collapse",
        unit="share of runs",
        margin=0,
        paper=1.0,
        collapsed=[
            {"method": "sdpg-no-gate", "collapsed": 9, "runs": 10, "low": 0.555, "high": 0.9975},
            {"method": "sdpg-urkl", "collapsed": 1, "runs": 10, "low": 0.0025, "high": 0.445},
        ],
    ),
    claim(
        "early",
        claim="It is early ahead (steps 26 to 50)",
        unit="fraction",
        effect=0.02,
        low=0.005,
        high=0.035,
        verdict="refuted",
    ),
    claim("end", unit="fraction", verdict="open", parts=[{"task": "chain", "effect": 0.08}, {"task": "far", "effect": 0.2}]),
    claim(
        "entropy", unit="relative change", effect=0.5, low=0.2, high=40.0, margin=0.1, paper=2.6, verdict="not testable here"
    ),
    claim("length", unit="relative change", effect=-0.2, low=-0.3, high=-0.1, margin=0.02, paper=0.227, direction="below"),
    claim("single", unit="fraction", low=None, high=None, verdict="open"),
    claim("absent", unit="fraction", collapsed=[], verdict="not run at this scale", **NONE),
    claim("other", role="exploratory", unit="fraction"),
]


def build(root: Path, **options):
    """Return a tree with score files and summaries, and the project's published reference data."""
    made = replace(write_results(root, **options), published=PUBLISHED)
    write_analysis(made)
    write_problems(made)
    (root / "claims.json").write_text(json.dumps(CLAIMS))
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


class Drawn(dict):
    """Figure -> what its module draws, the picture and the numbers in it; drawn when it is first asked for."""

    def __init__(self, tree_of):
        super().__init__()
        self.tree_of = tree_of

    def __missing__(self, name):
        self[name] = declared()[name].module.draw(self.tree_of(name))
        return self[name]


@pytest.fixture(scope="session")
def varied(tmp_path_factory):
    return write_varied(tmp_path_factory)


@pytest.fixture(scope="session")
def tree_of(request, tmp_path_factory):
    """Function: artefact -> the tree that it is made from; read only."""

    def found(name):
        if name in (*SHOWN, "figures/decomposition"):
            return request.getfixturevalue("comparison")
        if name in ("sensitivity", "figures/sensitivity", "tables/sensitivity"):
            return request.getfixturevalue("varied")
        tree = request.getfixturevalue("tree")
        if name != "figures/tuning":
            return tree
        sweep = tmp_path_factory.mktemp("sweep")
        write_trials(sweep)
        return replace(tree, root=sweep)

    return found


@pytest.fixture(scope="session")
def drawn(tree_of):
    return Drawn(tree_of)

"""The words in which an artefact declares itself: what it reads, writes and depends on, when it is planned, its caption.

Each artefact is one module of this package with `ARTEFACT = FigureSpec(...)`, or another of the kinds below: one expression in
the names of this file. The workflow reads these expressions at every start of Snakemake without importing the modules, which
would load pandas and matplotlib; so an expression may use nothing else of its module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpg.config import analysis_config
from sdpg.config.decomposition import chain_methods
from sdpg.config.variants import own_methods
from sdpg.io import project_file

if TYPE_CHECKING:
    from sdpg.config.settings import Config

PAPER = "arXiv 2606.04036v1"  # the version whose claims and numbers these are
PUBLISHED_CURVES = project_file("results/published/curves.csv")
PUBLISHED_TABLES = project_file("results/published/tables.csv")


@dataclass(frozen=True)
class Files:
    """Names the files of one scale's results, as paths from the project's folder.

    made: the files that another planned artefact writes, by its name. several: names of planned artefacts that begin so.
    """

    config: Config
    root: str
    made: Callable[[str], list[str]]
    several: Callable[[str], list[str]]

    def runs(self, pattern: str, seeds: Iterable[int] | None = None) -> list[str]:
        """Return `pattern` with its {method} and {seed}, for every run. seeds: of these alone."""
        chosen = self.config.seeds if seeds is None else seeds
        runs = [(method, seed) for method in self.config.methods for seed in chosen]
        return [f"{self.root}/{pattern}".format(method=method, seed=seed) for method, seed in runs]

    @property
    def records(self) -> list[str]:
        """Every run's run.json."""
        return self.runs("runs/{method}/seed{seed}/run.json")

    @property
    def metrics(self) -> list[str]:
        """Every run's metrics.jsonl."""
        return self.runs("runs/{method}/seed{seed}/metrics.jsonl")

    @property
    def checkpoints(self) -> list[str]:
        """Every run's list of checkpoints."""
        return self.runs("runs/{method}/seed{seed}/checkpoints/checkpoints.json")

    @property
    def evaluations(self) -> list[str]:
        """Every run's responses on every evaluation set."""
        folder = "eval/{method}/seed{seed}/"
        return [path for task in self.config.data.evaluation for path in self.runs(f"{folder}{task}.parquet")]

    def evaluations_of(self, methods: Iterable[str]) -> list[str]:
        """Return the responses of some methods' runs on every evaluation set."""
        chosen = tuple(f"{self.root}/eval/{method}/" for method in methods)
        return [path for path in self.evaluations if path.startswith(chosen)]

    @property
    def lm_eval(self) -> list[str]:
        """The lm_eval.json of every run that lm-eval is for; none where the scale runs no lm-eval."""
        return self.runs("eval/{method}/seed{seed}/lm_eval.json", self.config.lm_eval_seeds)

    @property
    def base_lm_eval(self) -> list[str]:
        """The lm_eval.json of every base model that lm-eval is for."""
        return [f"{self.root}/eval/base{i}/lm_eval.json" for i in self.config.lm_eval_bases]

    @property
    def base_reports(self) -> list[str]:
        """What was measured of every base model."""
        return [f"{self.root}/model/base{i}.json" for i in self.bases]

    @property
    def bases(self) -> list[int]:
        """Numbers of the base models that the runs start from."""
        return self.config.bases

    @property
    def data_report(self) -> str:
        """What was counted of the problems."""
        return f"{self.root}/data/report.json"

    @property
    def trained(self) -> list[str]:
        """What there is of the runs when all are finished: checkpoints, and evaluations where the scale has them."""
        if not evaluated(self.config):
            return [*self.records, *self.checkpoints]
        return [*self.checkpoints, *self.evaluations, *self.lm_eval, *self.base_lm_eval]

    @property
    def reference(self) -> list[str]:
        """The committed reference of the scale and what is compared with it; nothing where there is none."""
        folder = project_file(f"results/reference/{self.config.name}")
        found = sorted(str(path) for path in Path(folder).glob("*.*"))
        return [*found, *self.evaluations] if found else []

    @property
    def all_made(self) -> list[str]:
        """The files of every planned artefact that reads this scale, except the manifest."""
        return [path for name in self.several("") if name != "manifest" for path in self.made(name)]


def analysis(config: Config) -> Any:
    """Return what analysis takes from the config: methods, seeds, sets, evaluation, base models."""
    return analysis_config(config)


def nothing(config: Config) -> Any:
    """Return the config part of an artefact that reads published numbers alone: none."""
    return {}


def has_chain(config: Config) -> bool:
    """Return whether the scale is evaluated and has at least two methods of config/decomposition.yaml."""
    return evaluated(config) and len(set(chain_methods()) & set(config.methods)) > 1


def compared(config: Config) -> list[str]:
    """Return the methods that are compared with each other: not those that `sensitivity` adds."""
    return own_methods(config)


def evaluated(config: Config) -> bool:
    """Return whether the scale's runs are evaluated: every scale but a sweep."""
    return config.sweep is None


@dataclass(frozen=True, kw_only=True)
class ArtefactSpec:
    """Files that are made from results. Its module has `make(job)`, which writes them (see `sdpg.artefacts.Job`).

    reads: the input files. writes: names below the scale's folder. about: one line for the plan and the docs. files: patterns
    of project files, beside the modules that it imports, whose content it depends on. uses: the part of the config that it
    depends on. planned: whether a scale has it. shown: the ending of the file that Snakemake's own report shows, with the
    caption; category: the heading there.
    """

    reads: Callable[[Files], Iterable[str]]
    about: str = ""
    writes: tuple[str, ...] = ()
    caption: str = ""
    files: tuple[str, ...] = ()
    uses: Callable[[Config], Any] = analysis
    planned: Callable[[Config], bool] = evaluated
    shown: str = ""
    category: str = ""

    maker = "make"

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return the names of the files below the scale's folder; name: of the artefact."""
        return self.writes


@dataclass(frozen=True, kw_only=True)
class SummarySpec(ArtefactSpec):
    """A tidy CSV between the score files and what is drawn. Its module has `summarise(results) -> DataFrame`."""

    maker = "summarise"

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return <name>.csv."""
        return (f"{name}.csv",)


@dataclass(frozen=True, kw_only=True)
class FigureSpec(ArtefactSpec):
    """A picture with its numbers. Its module has `draw(results) -> (Figure, DataFrame)`.

    methods: the methods that it compares; it is then planned where the config has two or more. place: its rank in the report;
    figures below 10 come before the tables.
    """

    methods: tuple[str, ...] = ()
    place: int = 99
    shown: str = "png"
    category: str = "Figures"

    maker = "draw"

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return the picture as PDF and PNG, and the numbers in it as CSV."""
        return tuple(f"{name}.{kind}" for kind in ("pdf", "png", "csv"))


@dataclass(frozen=True, kw_only=True)
class TableSpec(ArtefactSpec):
    """A table. Its module has `build(results) -> Table`; its caption here is the module's docstring.

    place: its rank in the report.
    """

    place: int = 99
    shown: str = "csv"
    category: str = "Tables"

    maker = "build"

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return the table as Markdown, LaTeX and CSV."""
        return tuple(f"{name}.{kind}" for kind in ("md", "tex", "csv"))


@dataclass(frozen=True, kw_only=True)
class AcrossSpec(ArtefactSpec):
    """An artefact of several scales, those that the config lists under `matrix`. Its module has `make(cells, folder)`.

    reads: the input files of one of these scales. writes: names below results/<scale>-<artefact>.
    """

    planned: Callable[[Config], bool] = lambda config: bool(config.matrix)

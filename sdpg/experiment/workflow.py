"""What the rules of the workflow are made from: a scale's files, the steps of its artefacts, and what each job depends on."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sdpg import locks
from sdpg.artefacts import Declared, files_of, planned
from sdpg.artefacts.declare import AcrossSpec, Files
from sdpg.artefacts.sound import called, inputs
from sdpg.config import base_index, data_config, resolve, run_config
from sdpg.config.command import assignment
from sdpg.config.files import scale_path
from sdpg.config.methods import algorithm_files
from sdpg.config.parts import PARTS
from sdpg.core.trackers import check_trackers
from sdpg.experiment import builds, solutions, written
from sdpg.experiment.inputs import check_model, content_params, engines_of, model_files, package_file
from sdpg.experiment.own_tokenizer import tokenizer_files
from sdpg.io import ROOT, check_folder, kind_of
from sdpg.provenance.records import code_params, config_param
from sdpg.provenance.sources import stage_sources
from sdpg.rollout.engines import engine_file, lm_eval_engine
from sdpg.tasks.sources import KINDS, check_source, own_code, own_files, source_file
from sdpg.tasks.task import OWN_VERIFIER
from sdpg.tasks.verifiers import verifier_file

RESULTS = Path("results")
DATABASE = RESULTS / ".snakemake.db"
# The module that a stage starts from: what it reaches by imports is what the stage depends on.
STAGES = {
    "data": "sdpg/experiment/problems.py",
    "solutions": "sdpg/experiment/solutions.py",
    "base_model": "sdpg/experiment/base_model.py",
    "train": "sdpg/experiment/compose.py",
    "evaluate": "sdpg/evaluation/run.py",
}


def template_file(template: str) -> str:
    """Return where a prompt template lies, as from the project: in sdpg/tasks/templates, or the user's own file."""
    own = template.endswith((".yaml", ".yml"))
    return os.path.relpath(template, ROOT) if own else f"sdpg/tasks/templates/{template}.yaml"


def training_sources(config: Any, algorithm: str) -> tuple[list[str], list[str]]:
    """Return the files that a run depends on: those of every method with this engine, and those of its method alone."""
    methods = set(algorithm_files().values())
    shared = stage_sources(
        STAGES["train"],
        without=methods,
        extra=[template_file(config.task.template), engine_file(config.train.engine), *verifier_files(config)],
    )
    return shared, stage_sources(algorithm_files()[algorithm], without=set(shared) | methods - {algorithm_files()[algorithm]})


def verifier_files(config: Any) -> list[str]:
    """Return the files of the verifiers that a task judges with."""
    return [verifier_file(name) for name in (config.task.verifier, *OWN_VERIFIER.values())]


def source_files(config: Any) -> list[str]:
    """Return the files of the sources that the problems come from."""
    sources = _sources(config).values()
    kinds = {source.kind for source in sources} | {data_config(config)["forgetting"]} & set(KINDS)
    pins = {file for source in sources for file in own_code(source.dump())}
    return [*(source_file(kind) for kind in sorted(kinds)), *sorted(pins)]


def _sources(config: Any) -> dict[str, Any]:
    """Return the entries of `data` by the names that errors give them."""
    data, parts = config.data, ("validation", "evaluation")
    held_out = {f"{part}.{name}": source for part in parts for name, source in getattr(data, part).items()}
    return {"train": data.train, **held_out}


def evaluation_sources(config: Any, stage: str = "evaluate") -> list[str]:
    """Return the files that evaluations depend on, or lm-eval in jobs of its own: engines, verifier, lm-eval's bundled task."""
    engine, apart = config.evaluation.engine, config.lm_eval_apart and stage == "evaluate"
    lm_eval = None if apart else config.evaluation.lm_eval
    names = dict.fromkeys([*[engine] * (stage == "evaluate"), *([lm_eval_engine(engine)] if lm_eval else [])])
    bundled = [f"sdpg/evaluation/tasks/{lm_eval.forgetting}.{kind}" for kind in ("yaml", "jsonl") if lm_eval]
    extra = [template_file(config.task.template), *verifier_files(config), *map(engine_file, names), *bundled]
    return stage_sources(STAGES["evaluate"], extra=extra)


class Step(NamedTuple):
    """The rule of one artefact: the directives that the workflow gives it. rule: its name; name: the artefact's."""

    rule: str
    name: str
    reads: list[str]
    writes: list[str]
    shown: str
    category: str
    log: str
    benchmark: str
    code: list[str]
    config: str
    caption: str
    message: str

    def part(self, wildcards) -> str:
        """Return the part of the config that it depends on. A function: Snakemake takes braces in strings for wildcards."""
        return self.config


class Scale:
    """One scale of the workflow, by its source (name or file) and the overrides.

    first: the names of its rules have no prefix: its targets are `train`, `figures` and so on.
    """

    def __init__(self, source: str, overrides: Mapping[str, Any], *, first: bool = True):
        self.source, self.overrides = source, dict(overrides)
        self.config = resolve(source, overrides)
        self.name = self.config.name
        self.prefix = "" if first else f"{self.name}_"
        self.root = f"{RESULTS}/{self.name}"
        self.files: Files = files_of(self.config)
        self.template = template_file(self.config.task.template)

    def rule(self, name: str) -> str:
        """Return the name of one of its rules."""
        return self.prefix + name

    def log(self, name: str) -> str:
        """Return where a job's output is kept."""
        return f"{self.root}/logs/{name}.log"

    def benchmark(self, name: str) -> str:
        """Return where Snakemake keeps a job's time and memory."""
        return f"{self.root}/benchmarks/{name}.tsv"

    def command(self, *words: str) -> Callable[[Any, int], str]:
        """Return the command line of `sdpg` as a param: a function of `threads`, whose value Snakemake does not compare.

        What a job depends on stands in its other params, so that another path of Python makes no other result.
        """

        def command(wildcards, threads):
            chosen = [f"--set={assignment(key, value)}" for key, value in self.overrides.items()]
            line = [sys.executable, "-u", "-m", "sdpg", *words, "--scale", self.source, *chosen]
            return shlex.join([*line, "--threads", str(threads)])

        return command

    def own_files(self) -> list[str]:
        """Return the user's own files that the problems depend on: data, and the model's tokenizer. Their content decides."""
        mirror = self.config.data.mirror
        data = [file for source in _sources(self.config).values() for file in own_files(source.dump(), mirror)]
        return [*data, *tokenizer_files(self.config.model)]

    def own_model(self) -> list[str]:
        """Return the files of the user's own model directory, if the scale names one."""
        folder = self.config.model.pretrained
        return [str(path) for path in model_files(Path(folder))] if folder and kind_of(folder) == "folder" else []

    def own_content(self, stage: str) -> list[str]:
        """Return the params by which a stage (data, base_model, solutions) depends on the content of the user's own files."""
        if stage == "solutions":
            return content_params([*self.own_files(), *solutions.own_files(self.config)])
        return content_params(self.own_files() if stage == "data" else [*self.own_model(), *package_file(self.config.model)])

    @cached_property
    def solutions(self) -> list[str]:
        """The file of worked solutions, where the scale has some written."""
        return [f"{self.root}/{written.FOLDER}/{written.TABLE}"] if written.wanted(self.config) else []

    def check(self) -> None:
        """Raise ValueError or OSError for what can be known to be wrong before any work: trackers, model, where results go."""
        check_trackers(self.config.track)
        builds.check_build(self.config)
        if self.config.model.pretrained:
            check_model(self.config.model.pretrained, engines_of(self.config))
        for name, source in _sources(self.config).items():
            check_source(source.dump(), name, self.config.data.mirror)
        self.own_files()
        solutions.check(self.config)
        names = [*self.files.records, *self.files.trained, *self.files.base_reports, *self.sets("evaluation")]
        names += [*self.sets("validation"), *self.forgetting, self.files.data_report, f"{self.root}/{locks.FOLDER}/x"]
        names += self.solutions
        names += [self.log(f"{job}/x") for job in ("base_model", "train", "evaluate", "lm_eval")]
        names += [name for step in self.steps for name in (*step.writes, step.log)]
        names += [name.replace("/logs/", "/benchmarks/") for name in names if "/logs/" in name]
        for folder in dict.fromkeys(Path(name).parent for name in names):
            check_folder(folder)

    @cached_property
    def forgetting(self) -> list[str]:
        """The problems of the task that training leaves alone, where the data rule makes them."""
        name = data_config(self.config)["forgetting"]
        bundled = name and (ROOT / f"sdpg/evaluation/tasks/{name}.yaml").is_file()
        return [f"{self.root}/data/forgetting/{name}.parquet"] if name and not bundled else []

    def sets(self, part: str) -> list[str]:
        """Return the files of the problem sets of `evaluation` or `validation`."""
        folder = {"evaluation": "eval", "validation": "validation"}[part]
        return [f"{self.root}/data/{folder}/{name}.parquet" for name in getattr(self.config.data, part)]

    def base(self, wildcards) -> str:
        """Return the report of the base model that a run starts from."""
        return f"{self.root}/model/base{base_index(self.config, int(wildcards.seed))}.json"

    def code(self, stage: str) -> list[str]:
        """Return the params by which a stage depends on its code."""
        if stage == "train":
            first = next(iter(self.config.methods))
            return stamp(stage, training_sources(self.config, self.algorithm(first))[0])
        if stage in ("evaluate", "lm_eval"):
            return stamp(stage, evaluation_sources(self.config, stage))
        extra = [self.template]
        if stage in ("data", "base_model", "solutions"):
            extra += [*source_files(self.config), *verifier_files(self.config)]
        if stage == "solutions":
            local = self.config.data.solutions.local
            extra += [*solutions.prompt_file(self.config), *([engine_file(local.engine)] if local else [])]
        return stamp(stage, stage_sources(STAGES[stage], extra=extra))

    def algorithm(self, method: str) -> str:
        """Return the registered algorithm of a method."""
        return run_config(self.config, method, 0).dump()["algorithm"]["algorithm"]

    def method_code(self, wildcards) -> list[str]:
        """Return the params by which a run depends on its method's files."""
        return code_params(training_sources(self.config, self.algorithm(wildcards.method))[1])

    def part(self, stage: str) -> Callable[..., str]:
        """Return what gives the part of the config that a job of the stage depends on, as a param, from its wildcards."""
        return lambda wildcards: config_param(PARTS[stage](self.config, dict(wildcards.items())))

    @cached_property
    def steps(self) -> list[Step]:
        """The rules of the artefacts that this scale has."""
        return [self._step(item) for item in planned(self.config).values() if not isinstance(item.spec, AcrossSpec)]

    def _step(self, item: Declared) -> Step:
        return Step(
            rule=self.rule(item.name.replace("/", "_")),
            name=item.name,
            reads=inputs(item.spec, self.files, item.file),
            writes=[f"{self.root}/{output}" for output in item.outputs],
            shown=next((f"{self.root}/{file}" for file in item.outputs if file.endswith(f".{item.spec.shown}")), ""),
            category=item.spec.category,
            log=self.log(item.name),
            benchmark=self.benchmark(item.name),
            code=stamp(item.name, artefact_sources(item)),
            config=called(lambda config: config_param(item.spec.uses(config)), self.config, item.file, "uses"),
            caption=item.caption,
            message=f"[{self.name}] {_title(item)}",
        )

    def takes(self, stage: str, *, one: bool = False) -> dict[str, Any]:
        """Return what a base_model, train or evaluate job takes, in the words of Snakemake and its Slurm plugin.

        one: it has one engine alone.
        """
        resources = self.config.resources
        gpus = {"train": self.gpus, "evaluate": resources.gpus}.get(stage, 1)
        takes = {
            "mem_mb": resources.mem_mb,
            "gpu": min(1 if one else gpus, self.gpus),
            "nodes": resources.nodes if stage == "train" else 1,
            "runtime": getattr(resources.runtime, stage),
        }
        if takes["nodes"] > 1:
            # `mpi` stands for: the command starts srun itself, on one task a node (sdpg/experiment/launch.py). `gres` is what
            # each node gives; `gpu` is all together, which Slurm might share out unevenly.
            takes |= {"mpi": "srun", "tasks": resources.nodes, "tasks_per_gpu": 0}
            takes |= {"gres": f"gpu:{resources.gpus}"} if resources.gpus else {}
        return takes

    @property
    def threads_of_one(self) -> int:
        """CPU threads of a job with one engine: its share, where a run has several GPUs."""
        return max(1, self.config.resources.threads // max(1, self.config.resources.gpus))

    @property
    def gpus(self) -> int:
        """GPUs of a training job, on all its nodes."""
        return self.config.resources.gpus * self.config.resources.nodes

    @property
    def lm_eval(self) -> bool:
        """Whether an evaluation's job runs lm-eval too, on the last checkpoint."""
        return self.config.evaluation.lm_eval is not None and not self.config.lm_eval_apart

    @property
    def other_cells(self) -> list[str]:
        """The scales that it lists under `matrix`, without itself."""
        own = scale_path(self.source).resolve()
        return [cell for cell in self.config.matrix if scale_path(cell).resolve() != own]

    @property
    def finished(self) -> list[str]:
        """Everything that the scale leaves."""
        return [*self.files.trained, *self.made("")]

    @property
    def ready(self) -> str:
        """What is said when everything is there."""
        sweep = f"what was chosen: {self.root}/sweep/tuned.yaml"
        shown = sweep if self.config.sweep else f"all of it on one page: {self.root}/report.html"
        return f"[{self.name}] everything is up to date; {shown}"

    @property
    def title(self) -> str:
        """What a run of Snakemake opens with."""
        methods, seeds = list(self.config.methods), self.config.seeds
        return (
            f"\nScale {self.name}: {', '.join(methods)}; seeds {', '.join(map(str, seeds))}; {len(methods) * len(seeds)} "
            f"training runs of {self.config.train.steps} steps; results in {self.root}/\n"
        )

    def made(self, prefix: str) -> list[str]:
        """Return the files of all artefacts whose name begins so."""
        return [path for name in self.files.several(prefix) for path in self.files.made(name)]


class Matrix:
    """The artefacts of several scales side by side: those that the first scale lists under `matrix`, the first one too."""

    def __init__(self, first: Scale, others: Iterable[Scale]):
        by_file = {scale_path(scale.source).resolve(): scale for scale in [first, *others]}
        self.cells = [by_file[scale_path(cell).resolve()] for cell in first.config.matrix]
        self.scale = first

    @property
    def steps(self) -> list[Step]:
        """The rules of the artefacts, whose files lie in results/<scale>-<artefact>."""
        across = [item for item in planned(self.scale.config).values() if isinstance(item.spec, AcrossSpec)]
        return [self._step(item) for item in across]

    def _step(self, item: Declared) -> Step:
        folder = f"{self.scale.root}-{item.name}"
        step = self.scale._step(item)
        reads = [path for cell in self.cells for path in inputs(item.spec, cell.files, item.file)]
        writes = [f"{folder}/{output}" for output in item.outputs]
        return step._replace(
            shown=next(file for file in writes if file.endswith(f".{item.spec.shown}")),
            rule=f"{item.name}_table",
            reads=reads,
            writes=writes,
            log=f"{folder}/logs/{item.name}.log",
            benchmark=f"{folder}/benchmarks/{item.name}.tsv",
            message=f"[{item.name}] {item.about}",
        )


def stamp(stage: str, files: Iterable[str]) -> list[str]:
    """Return the params that say which stage a job is of, and make it depend on the content of source files."""
    return [f"stage={stage}", *code_params(files)]


@cache
def artefact_sources(item: Declared) -> list[str]:
    """Return the files that an artefact depends on: its module with what that imports, and those that it declares."""
    extra = [path.relative_to(ROOT).as_posix() for pattern in item.spec.files for path in sorted(ROOT.glob(pattern))]
    return stage_sources(item.file, extra=extra)


def _title(item: Declared) -> str:
    """Return "figure cost", "table main", "stability.csv", or what the artefact says of itself."""
    kind, _, name = item.name.rpartition("/")
    return item.spec.about or (f"{kind.removesuffix('s')} {name}" if kind else f"{name}.csv")

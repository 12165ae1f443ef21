"""The artefacts as they declare themselves: what may stand in a declaration, who has which, and that all inputs are made."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from sdpg import artefacts
from sdpg.artefacts import declared, files_of, planned
from sdpg.artefacts.declare import AcrossSpec, ArtefactSpec, FigureSpec
from sdpg.config import resolve
from sdpg.experiment.workflow import Scale, artefact_sources
from sdpg.io import ROOT
from sdpg.provenance.sources import PLUMBING
from tests.artefacts.drawings import VARIED
from tests.making import config_of, job_of, make

SCALES = ("smoke", "cpu", "cpu-sweep", "cpu-decomposition", "cpu-published", "cpu-sensitivity", "lm")
SWEEP = {"sweep": {"trials": {"grpo": [{"train": {"lr": 1e-4}}, {"train": {"lr": 2e-4}}]}, "inherit": {}}}
HEAVY = (  # what the rules write that make data and models, train and evaluate
    "data/eval/*.parquet",
    "data/report.json",
    "model/base?.json",
    "runs/*/seed*/run.json",
    "runs/*/seed*/metrics.jsonl",
    "runs/*/seed*/checkpoints/checkpoints.json",
    "eval/*/seed*/*.parquet",
    "eval/*/seed*/lm_eval.json",
    "eval/base?/lm_eval.json",
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Declare an artefact with this text in a project that has no other -> what is found there."""
    folder = tmp_path / "sdpg" / "artefacts" / "figures"
    folder.mkdir(parents=True)
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    monkeypatch.setattr(artefacts, "FOLDER", folder.parent)

    def declare(text: str):
        (folder / "mine.py").write_text(f'"""Mine.\n\nMore of it.\n"""\n\nNAME = "x.csv"\nARTEFACT = {text}\n')
        return declared.__wrapped__()

    return declare


def test_a_declaration_is_read_without_importing_its_module(project):
    found = project('FigureSpec(reads=lambda files: [path for path in files.made("scores")], place=3)')
    assert list(found) == ["figures/mine"]
    item = found["figures/mine"]
    assert (item.file, item.about, item.spec.place) == ("sdpg/artefacts/figures/mine.py", "Mine.", 3)
    assert item.outputs == ("figures/mine.pdf", "figures/mine.png", "figures/mine.csv")


@pytest.mark.parametrize(
    "text",
    [
        "FigureSpec(reads=lambda files: [], files=(NAME,))",
        "FigureSpec(reads=lambda files: [NAME])",  # seen now, not when the plan is made
        "FigureSpec(reads=lambda files: [f'{NAME}/{part}' for part in files.records])",
        "FigureSpec(reads=lambda files: [], planned=lambda config: NAME in config.methods)",
    ],
)
def test_a_name_of_the_module_is_refused(project, text):
    with pytest.raises(ValueError, match="sdpg/artefacts/figures/mine.py, ARTEFACT: .*'NAME' is unknown; .*/declare.py"):
        project(text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("FigureSpec(read=lambda files: [])", "mine.py, ARTEFACT: .* unexpected keyword argument 'read'"),
        ("FigureSpec()", "mine.py, ARTEFACT: .*missing .*'reads'"),
        ("('a', 'b')", "mine.py, ARTEFACT: got tuple, expected one of the kinds in declare.py"),
        ("FigureSpec(reads=[])", r"mine.py, ARTEFACT, reads: got \[\], expected a function"),
        ("FigureSpec(reads=lambda files: [], planned=True)", "mine.py, ARTEFACT, planned: got True, expected a function"),
        ("FigureSpec(reads=lambda files: [], methods='grpo')", "mine.py, ARTEFACT, methods: got 'grpo', expected a tuple"),
        ("FigureSpec(reads=lambda files: [], place='first')", "mine.py, ARTEFACT, place: got 'first', expected a number"),
        ("FigureSpec(reads=lambda files: [], caption=3)", "mine.py, ARTEFACT, caption: got 3, expected text"),
        ("FigureSpec(reads=lambda files: [], shown='gif')", "mine.py, ARTEFACT, shown: got 'gif', expected the ending of one"),
        ("FigureSpec(reads=lambda files: [], files=('sdpg/none/*.py',))", "'sdpg/none/.*' is no file of the project"),
        ("FigureSpec(reads=lambda files: [], files=('/etc/hosts',))", "'/etc/hosts' is no file of the project"),
        ("ArtefactSpec(reads=lambda files: [])", "mine.py, ARTEFACT, writes: got nothing"),
        ("ArtefactSpec(reads=lambda files: [], writes=('a.csv', 'a.csv'))", "writes: names a file twice: a.csv, a.csv"),
        *(
            (
                f"ArtefactSpec(reads=lambda files: [], writes=({out!r},))",
                "writes: got .*, expected a name below the scale's folder",
            )
            for out in ("../a.csv", "/tmp/a.csv", "a/../../b.csv", ".", "runs/a.csv", "eval/a.csv", "./a.csv", "a//b.csv")
        ),
    ],
)
def test_a_wrong_declaration_is_refused(project, text, message):
    with pytest.raises(ValueError, match=message):
        project(text)


@pytest.mark.parametrize(
    "name, nearest", [("figures/costs", "figures/cost"), ("tables/mian", "tables/main"), ("stabilty", "stability")]
)
def test_an_unknown_artefact_is_refused_with_the_nearest(tree, name, nearest):
    with pytest.raises(ValueError, match=f"there is no artefact '{name}'; did you mean '{nearest}'"):
        make(name, tree)


def test_methods_that_no_one_has_are_refused_and_those_of_a_scale_are_not(project, monkeypatch, tree):
    config = config_of(replace(tree, methods=("grpo", "own")))
    for methods, fits in (("grpo", "gropo"), False), (("grpo", "own"), True), (("grpo", "sdpg-open"), True):
        found = project(f"FigureSpec(reads=lambda files: [], methods={methods})")
        monkeypatch.setattr(artefacts, "declared", lambda found=found: found)
        if fits:
            assert set(planned(config)) == ({"figures/mine"} if "own" in methods else set())
            continue
        with pytest.raises(ValueError, match="mine.py, ARTEFACT, methods: there is no method 'gropo'; did you mean 'grpo'"):
            planned(config)


def test_two_that_write_the_same_file_are_refused(monkeypatch, tree):
    one, other = declared()["scores"], declared()["cost"]
    other = replace(other, spec=ArtefactSpec(reads=lambda files: [], writes=("scores.csv",)))
    monkeypatch.setattr(artefacts, "declared", lambda: {"scores": one, "cost": other})
    with pytest.raises(ValueError, match=f"{one.file} and {other.file} both write scores.csv; rename one"):
        planned(config_of(tree))


@pytest.mark.parametrize(
    ("field", "function", "message"),
    [
        ("reads", lambda files: files.nothing, "ARTEFACT, reads: AttributeError: 'Files' object has no attribute 'nothing'"),
        ("reads", lambda files: {}["a"], "ARTEFACT, reads: KeyError: 'a'"),
        ("reads", lambda files: "scores.csv", "ARTEFACT, reads: got 'scores.csv', expected a list of paths"),
        ("reads", lambda files: None, "ARTEFACT, reads: got None, expected a list of paths"),
        ("reads", lambda files: [Path("a")], "ARTEFACT, reads: got .*, expected a list of paths"),
        ("reads", lambda files: [["a"]], "ARTEFACT, reads: got .*, expected a list of paths"),
        ("uses", lambda config: config.nothing, "ARTEFACT, uses: AttributeError"),
        ("uses", lambda config: config, "ARTEFACT, uses: TypeError: .* not JSON serializable"),
        ("planned", lambda config: 1 / 0, "ARTEFACT, planned: ZeroDivisionError"),
    ],
)
def test_a_function_of_a_declaration_that_fails_is_named(monkeypatch, field, function, message):
    item = declared()["scores"]
    broken = replace(item, spec=replace(item.spec, **{field: function}))
    monkeypatch.setattr(artefacts, "declared", lambda: {"scores": broken})
    with pytest.raises(ValueError, match=f"{item.file}, {message}"):
        list(Scale("smoke", {}).steps)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("figures/cost", None, r"draw\(\) returned NoneType, expected \(Figure, DataFrame\)"),
        ("figures/cost", ("a", "b"), r"draw\(\) returned \(str, str\), expected \(Figure, DataFrame\)"),
        ("tables/cost", "| a |", r"build\(\) returned str, expected a Table"),
        ("cost", [1], r"summarise\(\) returned list, expected a DataFrame"),
        ("claims", None, r"make\(\) did not write claims.json, claims.md, which ARTEFACT names under writes"),
    ],
)
def test_what_a_function_returns_is_checked(monkeypatch, tree, tmp_path, name, value, message):
    item = declared()[name]
    monkeypatch.setattr(item.module, item.spec.maker, lambda _: value)
    with pytest.raises(ValueError, match=f"{item.file}: {message}"):
        make(name, replace(tree, root=tmp_path / tree.name))


@pytest.mark.parametrize("name", declared())
def test_every_artefact_has_what_its_kind_needs(name):
    item = declared()[name]
    assert callable(getattr(item.module, item.spec.maker))
    assert item.outputs and all(not output.startswith("/") for output in item.outputs)
    assert 10 < len(item.about) < 140 and "\n" not in item.about
    assert not item.spec.shown or [output for output in item.outputs if output.endswith(f".{item.spec.shown}")]
    if isinstance(item.spec, FigureSpec):
        assert len(item.spec.caption) > 60
        assert item.spec.place > 0
    for pattern in item.spec.files:
        assert list(ROOT.glob(pattern)), f"{pattern} is no file of the project"


@pytest.mark.parametrize("kind", ["figures/", "tables/"])
def test_no_two_have_the_same_place_in_the_report(kind):
    for scale in SCALES:
        places = [item.spec.place for name, item in planned(resolve(scale)).items() if name.startswith(kind)]
        assert len(places) == len(set(places))


# --- which artefacts a scale has ---------------------------------------------------------------------------------------


def test_what_is_planned_follows_the_methods(tree):
    def have(*methods):
        return set(planned(config_of(replace(tree, methods=methods))))

    alone = have("grpo")
    compare = {"figures/ablations", "figures/self_distillation", "figures/decomposition", "decomposition"}
    assert not compare & alone
    assert {"scores", "claims", "figures/final_accuracy", "tables/main", "report", "manifest"} <= alone
    assert have("grpo", "dapo") == alone
    assert have("grpo", "opcd") - alone == {"figures/self_distillation"}
    assert have("sdpg-no-gate", "sdpg-urkl") - alone == {"figures/ablations"}
    assert have("grpo", "sdpg-urkl") - alone == compare


def test_what_is_planned_follows_lm_eval(tree):
    with_it, without = (set(planned(config_of(replace(tree, lm_eval=block)))) for block in (tree.lm_eval, None))
    assert with_it - without == {"tables/lm_eval"}
    assert without < with_it


def test_lm_eval_of_some_seeds_is_read_of_these_alone(tree):
    config = config_of(replace(tree, methods=("grpo", "opcd"), seeds=(4, 5, 6), lm_eval=tree.lm_eval | {"seeds": 2}))
    files = files_of(config)
    expected = [f"eval/{method}/seed{seed}/lm_eval.json" for method in ("grpo", "opcd") for seed in (4, 5)]
    assert files.lm_eval == [f"{files.root}/{name}" for name in expected]
    assert files.base_lm_eval == [f"{files.root}/eval/base0/lm_eval.json"]
    assert {*files.lm_eval, *files.base_lm_eval} < set(files.trained) and len(files.evaluations) == 6 * len(tree.tasks)


def test_a_sweep_has_its_own_and_nothing_that_needs_evaluations(tree):
    config = config_of(tree, **SWEEP)
    assert set(planned(config)) == {"tuning", "figures/tuning", "manifest"}
    assert not {"tuning", "figures/tuning"} & set(planned(config_of(tree)))


def test_the_matrix_is_planned_where_the_scale_lists_its_cells(tree):
    assert "matrix" in planned(resolve("cpu"))
    assert "matrix" not in planned(config_of(tree))
    assert "matrix" not in {*planned(resolve("smoke")), *planned(resolve("cpu-stressed"))}


def test_a_declaration_may_carry_its_type(project, tmp_path):
    assert project("FigureSpec(reads=lambda files: [], place=3)")["figures/mine"].spec.place == 3
    file = tmp_path / "sdpg" / "artefacts" / "figures" / "mine.py"
    file.write_text(file.read_text().replace("ARTEFACT =", "ARTEFACT: FigureSpec ="))
    assert declared.__wrapped__()["figures/mine"].spec.place == 3


def test_an_artefact_of_several_scales_is_not_made_of_one(tree):
    with pytest.raises(ValueError, match="'matrix' is of several scales"):
        make("matrix", tree)


@pytest.mark.parametrize("name", declared())
def test_some_scale_has_every_artefact(name):
    assert any(name in planned(resolve(scale)) for scale in SCALES)


# --- what they read and write ------------------------------------------------------------------------------------------


def within(scale: str):
    """Return the artefacts of one scale, its files, and artefact -> the paths that it reads and writes."""
    config = resolve(scale)
    items = {name: item for name, item in planned(config).items() if not isinstance(item.spec, AcrossSpec)}
    files = files_of(config)
    reads = {name: list(item.spec.reads(files)) for name, item in items.items()}
    return items, files, reads, {name: files.made(name) for name in items}


@pytest.mark.parametrize("scale", SCALES)
def test_all_that_is_read_is_made_by_a_rule_or_committed(scale):
    _, files, reads, writes = within(scale)
    made = {path for paths in writes.values() for path in paths}
    for name, paths in reads.items():
        for path in set(paths) - made:
            heavy = any(fnmatch(path, f"{files.root}/{pattern}") for pattern in HEAVY)
            committed = path.startswith(("results/published/", "results/reference/")) and (ROOT / path).is_file()
            assert heavy or committed, f"{name} reads {path}, which nothing makes"


@pytest.mark.parametrize("scale", SCALES)
def test_no_artefact_reads_what_is_made_from_it(scale):
    _, _, reads, writes = within(scale)
    by_path = {path: name for name, paths in writes.items() for path in paths}
    order = {name: {by_path[path] for path in paths if path in by_path} for name, paths in reads.items()}
    assert list(TopologicalSorter(order).static_order())[-1] == "manifest"  # raises CycleError


@pytest.mark.parametrize("scale", SCALES)
def test_no_two_artefacts_write_one_file(scale):
    _, _, _, writes = within(scale)
    paths = [path for several in writes.values() for path in several]
    assert len(paths) == len(set(paths))


def test_the_matrix_reads_what_each_of_its_cells_has():
    config = resolve("cpu")
    assert len(config.matrix) > 1
    for cell in config.matrix:
        files = files_of(resolve(cell))
        reads = declared()["matrix"].spec.reads(files)
        own = [f"results/{cell}/scores.csv", f"results/{cell}/intervals.csv"]
        assert {*own, *files.metrics, *files.runs("runs/{method}/seed{seed}/run.json")} == set(reads)


def test_files_lie_in_the_folder_that_is_asked_for(tree):
    job = job_of(tree)
    assert job.files.root == tree.root.as_posix()
    assert job.files.made("tables/main") == [f"{tree.root}/tables/main.{kind}" for kind in ("md", "tex", "csv")]
    assert job.files.made("tuning") == []


@pytest.mark.parametrize("name", declared())
def test_an_artefact_depends_on_its_module_and_on_the_files_that_it_names(name):
    item = declared()[name]
    sources = artefact_sources(item)
    assert sources[0] == item.file
    named = {path.relative_to(ROOT).as_posix() for pattern in item.spec.files for path in ROOT.glob(pattern)}
    assert {file for file in named if not file.startswith(PLUMBING)} <= set(sources)


def test_captions_of_tables_are_their_docstrings(tree):
    for name in ("tables/main", "tables/cost"):
        assert declared()[name].caption.startswith(declared()[name].about)


# What tests/analysis makes: a sweep's choice, and what needs everything else.
MADE_ELSEWHERE = ("tuning", "report", "manifest")


@pytest.mark.parametrize("name", [name for name in declared() if name not in MADE_ELSEWHERE])
def test_what_it_reads_is_all_that_it_needs(tree_of, comparison, tmp_path, name):
    """Made in a folder that holds nothing else, without the published data unless it reads them."""
    item = declared()[name]
    there = comparison if name == "decomposition" else tree_of(name)
    more = SWEEP if name == "figures/tuning" else VARIED if name.endswith("sensitivity") else {}
    files = job_of(there, **more).files
    reads = list(item.spec.reads(files))
    for path in (Path(path) for path in reads if path.startswith(files.root)):
        if path.is_file():  # the base models' lm-eval may be missing
            copy = tmp_path / "fake" / path.relative_to(files.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path)
    published = there.published if any(path.startswith("results/published/") for path in reads) else tmp_path / "none"
    results = replace(there, root=tmp_path / "fake", published=published)
    across = isinstance(item.spec, AcrossSpec)
    folder = tmp_path / "across" if across else results.root
    paths = artefacts.make_across(name, [results], folder) if across else make(name, results, **more)
    assert paths == [folder / output for output in item.outputs]
    assert all(path.stat().st_size > 40 for path in paths)

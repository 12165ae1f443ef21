"""Public data sets pinned by commit and content: copies of every layout, other content, no network, other commits."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import datasets
import pandas as pd
import pytest

from sdpg.config import ConfigError, resolve
from sdpg.config.parts import data_config
from sdpg.experiment.plan_time import problems as planned_problems
from sdpg.experiment.workflow import Scale
from sdpg.io import ROOT
from sdpg.tasks import pinned
from sdpg.tasks.sources import build_source, check_source, own_files
from sdpg.types import Problem

STAND_INS = ROOT.parent / "shared" / "data"
here = pytest.mark.skipif(not STAND_INS.is_dir(), reason="needs copies of the public data sets in ../shared/data")
ROWS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(3, 7) for b in (11, 1200)]
WORKED = [{"prompt": row["question"], "label": f"One adds.\n#### {row['answer']}"} for row in ROWS]


def problems_of(rows: list[dict]) -> list[Problem]:
    return [Problem(str(i), row["question"], row["answer"], "", "") for i, row in enumerate(rows)]


@pytest.fixture
def sums(tmp_path, monkeypatch):
    """A data set `sums`, whose rows on the hub are WORKED; returns how to change its file."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setattr(pinned, "FOLDER", folder)
    facts = {
        "title": "Sums",
        "licence": "none",
        "hub": "someone/sums",
        "revision": "0123456789" * 4,
        "columns": {"question": "prompt", "answer": "label"},
        "answer_after": "####",
        "splits": {"train": {"rows": len(ROWS), "sha256": pinned.content_hash(problems_of(ROWS))}},
    }

    def write(**changed) -> None:
        (folder / "sums.yaml").write_text(json.dumps({**facts, **changed}))
        pinned._read.cache_clear()

    write()
    return write


def hub(monkeypatch, rows) -> list[tuple]:
    """Have the hub serve these rows, or raise; returns what it is asked for."""
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    match path.suffix:
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case ".gz":
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def refused(mirror: Path | None = None, **options) -> str:
    with pytest.raises(ValueError) as error:
        build_source({"dataset": "sums", **options}, "train", str(mirror) if mirror else None)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- content


@pytest.mark.parametrize(
    ("a", "b"),
    [("025", "25"), ("25.0", "25"), ("1,000", "1000"), ("-0", "0"), ("+7", "7"), (" 7 ", "7"), ("1,234,567", "1234567")],
)
def test_spellings_of_an_answer_are_one(a, b):
    assert pinned.answer_key(a) == pinned.answer_key(b)


@pytest.mark.parametrize(
    ("a", "b"), [("2.5", "25"), ("1,00", "100"), ("-7", "7"), ("10", "1"), (r"\frac{1}{2}", "12"), ("25.5", "25")]
)
def test_different_answers_are_not(a, b):
    assert pinned.answer_key(a) != pinned.answer_key(b)


def test_the_hash_is_of_what_problems_say():
    problems = problems_of(ROWS)
    shuffled = random.Random(0).sample(problems, len(problems))
    spaced = [Problem("x", f" {p.question.replace(' ', '  ')}\n", f" {p.answer}.0", "solved", "y") for p in problems]
    assert pinned.content_hash(problems) == pinned.content_hash(shuffled) == pinned.content_hash(spaced)
    for change in (problems[:-1], [*problems, problems[0]], problems_of([*ROWS[:-1], {**ROWS[-1], "answer": "8"}])):
        assert pinned.content_hash(change) != pinned.content_hash(problems)


# --- copies


@pytest.mark.parametrize("rows", [ROWS, WORKED], ids=["own names", "the hub's names"])
@pytest.mark.parametrize(
    "file",
    ["sums.jsonl", "sums-train.json", "sums/train.csv", "math/sums.parquet", "sums-train.jsonl.gz", "more/sums-train.jsonl"],
)
def test_a_copy_of_the_same_content_serves(sums, tmp_path, monkeypatch, file, rows):
    """Whatever its place, format, columns and order, the problems are those of the hub."""
    hub(monkeypatch, WORKED)
    from_hub = build_source({"dataset": "sums"}, "train")
    asked = hub(monkeypatch, ConnectionError("no network"))
    write_rows(tmp_path / "mirror" / file, random.Random(1).sample(rows, len(rows)))
    copied = build_source({"dataset": "sums"}, "train", str(tmp_path / "mirror"))
    assert not asked
    facts = [(p.id, p.question, p.answer, p.source) for p in copied]
    assert facts == [(p.id, p.question, p.answer, p.source) for p in from_hub]
    assert copied[0].id == "train-000000" and copied[0].source == "sums/train@012345678901"
    if rows is WORKED:
        assert copied == from_hub and copied[0].solution == "One adds."


def test_a_source_names_its_own_mirror_and_a_limit(sums, tmp_path):
    write_rows(tmp_path / "sums.jsonl", ROWS)
    some = build_source({"dataset": "sums", "mirror": str(tmp_path), "limit": 3}, "train", "/nowhere")
    every = build_source({"dataset": "sums", "mirror": str(tmp_path)}, "train")
    assert some == every[:3] and len(every) == len(ROWS)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:-1], "got 7 rows, expected 8"),
        ([*ROWS, ROWS[0]], "got 9 rows, expected 8"),
        ([*ROWS[:-1], {**ROWS[-1], "answer": "8"}], "got 8 rows with the content"),
        ([{"problem": "?", "answer": "1"}], "has no column"),
    ],
)
def test_a_copy_of_other_content_is_refused(sums, tmp_path, rows, said):
    write_rows(tmp_path / "sums.jsonl", rows)
    text = refused(tmp_path)
    assert said in text and "sums.jsonl" in text and "config/datasets/sums.yaml pins" in text and "`path:`" in text


def test_the_worked_solutions_of_a_copy_are_those_that_are_pinned(sums, tmp_path):
    solved = [{**row, "solution": "One <<1+1=2>>adds."} for row in ROWS]
    right = [Problem("", row["question"], row["answer"], "One  adds.\n", "") for row in ROWS]
    pin = {"rows": len(ROWS), "sha256": pinned.content_hash(right), "solutions": pinned.solutions_hash(right)}
    sums(splits={"train": pin})
    for rows, solution in ((solved, "One adds."), (WORKED, "One adds."), (ROWS, "")):  # none: data.missing_solutions
        write_rows(tmp_path / "sums.jsonl", rows)
        assert {p.solution for p in build_source({"dataset": "sums"}, "train", str(tmp_path))} == {solution}
    for wrong in ("One guesses.", ""):
        write_rows(tmp_path / "sums.jsonl", [*solved[:-1], {**solved[-1], "solution": wrong}])
        text = refused(tmp_path)
        assert "sums.jsonl: got worked solutions with the content" in text and f"expected {pin['solutions'][:16]}" in text


def test_a_mirror_that_is_none_is_refused_at_the_dry_run(sums, tmp_path):
    with pytest.raises(ValueError, match=r"data\.train: mirror: .*nowhere is no folder"):
        check_source({"dataset": "sums"}, "train", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"data\.train: mirror: ~nobody-of-that-name/x is no folder"):
        check_source({"dataset": "sums"}, "train", "~nobody-of-that-name/x")
    check_source({"dataset": "sums"}, "train", str(tmp_path))  # without a file of it: the hub is asked later
    check_source({"chain": {"operations": [2], "count": 1, "seed": 0}}, "train", str(tmp_path / "nowhere"))


# --- the hub


def test_the_hub_is_asked_for_the_pinned_commit(sums, monkeypatch):
    asked = hub(monkeypatch, WORKED)
    sums(subset="main")
    build_source({"dataset": "sums"}, "train")
    assert asked == [(("someone/sums", "main"), {"split": "train", "revision": "0123456789" * 4})]


def test_other_content_of_the_hub_is_refused(sums, monkeypatch):
    """As after a push over a branch, where no commit is known."""
    sums(revision=None)
    hub(monkeypatch, WORKED)
    assert build_source({"dataset": "sums"}, "train")[0].source == "sums/train"
    hub(monkeypatch, [{**WORKED[0], "label": "#### 1"}, *WORKED[1:]])
    assert "sums/train of the hub (someone/sums) is not what config/datasets/sums.yaml pins: got 8 rows with" in refused()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("Couldn't reach\nthe Hub"), "ConnectionError: Couldn't reach the Hub"),
        (FileNotFoundError("Revision 0123 does not exist"), "Revision 0123 does not exist"),
        (ValueError('Unknown split "train"'), 'Unknown split "train"'),
    ],
)
def test_without_the_hub_one_is_told_what_to_do(sums, monkeypatch, tmp_path, error, said):
    hub(monkeypatch, error)
    text = refused()
    assert said in text and "sums-train.jsonl" in text and "data.mirror" in text
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    assert f"data.mirror, {mirror}, has no sums-train.jsonl (or .json, .csv, .parquet); it is empty" in refused(mirror)
    (mirror / "main").mkdir()
    (mirror / "sums-train.txt").write_text("")
    assert "has no sums-train.jsonl (or .json, .csv, .parquet); it has main/, sums-train.txt" in refused(mirror)


# --- the file of a data set


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"revision": "main"}, "revision: got 'main'"),
        ({"splits": {"train": {"rows": 8, "sha": "x"}}}, "splits.train.sha: got 'x'"),
        ({"revision": None, "splits": {"train": {"rows": 8}}}, "neither a revision nor a sha256"),
        ({"splits": {}}, "splits: got {}"),
        ({"splits": {"train": {"rows": 0}}}, "splits.train.rows: got 0"),
        ({"hbu": "x"}, "hbu: got 'x'"),
    ],
)
def test_a_file_that_pins_nothing_is_refused(sums, changed, said):
    sums(**changed)
    with pytest.raises(ValueError, match=r"config/datasets/sums\.yaml") as error:
        pinned.load_dataset("sums")
    assert said in str(error.value)


@pytest.mark.parametrize("name", pinned.available())
def test_every_data_set_is_pinned_and_has_a_licence(name):
    found = pinned.load_dataset(name)
    assert found.licence and all(split.rows for split in found.splits.values())
    assert all(split.sha256 for split in found.splits.values()) or name == "dapo-math-17k"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dataset": "gsm8"}, "got {'dataset': 'gsm8'}, expected one of aime24, aime25"),
        ({"dataset": "gsm8k"}, "expected one of train, test as `split` of data set gsm8k"),
        ({"dataset": "gsm8k", "split": "dev"}, "'split': 'dev'}, expected one of train, test"),
        ({"dataset": "aime24", "subset": "x"}, "subset goes with"),
        ({"dataset": "../x"}, "'../x'}, expected one of aime24"),
    ],
)
def test_what_does_not_exist_is_refused_by_the_config(entry, said):
    with pytest.raises(ConfigError) as error:
        resolve("cpu", {"data.evaluation.more": entry})
    assert said in str(error.value) and "data.evaluation.more" in str(error.value)


def test_where_copies_lie_changes_no_result():
    scale, other = resolve("gsm8k"), resolve("gsm8k", {"data.mirror": "/somewhere"})
    assert data_config(scale) == data_config(other)
    assert "mirror" not in resolve("cpu").data.dump()


def test_the_content_of_a_copy_counts_where_no_hash_pins_it(sums, tmp_path):
    write_rows(tmp_path / "sums.jsonl", ROWS)
    assert own_files({"dataset": "sums"}, str(tmp_path)) == []
    sums(splits={"train": {"rows": 8}})
    assert own_files({"dataset": "sums"}, str(tmp_path)) == [str(tmp_path / "sums.jsonl")]
    assert own_files({"dataset": "sums"}, str(tmp_path / "nowhere")) == []


def test_another_pin_makes_the_problems_again():
    first = Scale("gsm8k", {}).code("data")
    assert any("config/datasets/gsm8k.yaml" in param for param in first)


def test_a_plan_knows_how_many_problems_there_are():
    data = resolve("gsm8k").data
    assert planned_problems(data.evaluation["gsm8k"]) == 1319
    assert planned_problems(resolve("gsm8k", {"data.evaluation.gsm8k.limit": 10}).data.evaluation["gsm8k"]) == 10


# --- the real sets


REAL = [("aime24", None), ("aime25", None), ("amc23", None), ("gsm8k", "train"), ("gsm8k", "test")]


@here
@pytest.mark.parametrize(("name", "split"), REAL)
def test_the_copies_at_hand_are_what_is_pinned(name, split):
    problems = build_source({"dataset": name, "split": split}, "train", str(STAND_INS))
    assert len(problems) == next(s.rows for n, s in pinned.load_dataset(name).splits.items() if split in (n, None))
    if name == "gsm8k":
        assert all(p.solution and "<<" not in p.solution for p in problems)


@here
def test_a_part_of_dapo_is_not_the_whole(tmp_path):
    write_rows(tmp_path / "dapo-math-17k.jsonl", [json.loads(x) for x in (STAND_INS / "dapo/processed.jsonl").open()])
    with pytest.raises(ValueError, match="got 8 rows, expected 14116"):
        build_source({"dataset": "dapo-math-17k"}, "train", str(tmp_path))

"""Data sets: the users' own files, errors that name the row or column, and sets that share no problem."""

import json

import pandas as pd
import pytest

from sdpg.tasks.chain import chain_problems, work
from sdpg.tasks.cleaning import content_key
from sdpg.tasks.data import build_data, load_problems, save_problems
from sdpg.tasks.sources import build_source
from tests.scale import CHAIN, config_of

QUESTION = "6-2*9+5?"


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(train, template="chain", verifier="chain", validation=None, lm_eval=None, **evaluation):
    data = {"train": train, "evaluation": evaluation or {"chain": CHAIN}, "validation": validation or {}}
    return config_of(task={"template": template, "verifier": verifier}, data=data, evaluation={"lm_eval": lm_eval})


def test_training_loses_what_evaluation_has(tmp_path):
    evaluation = {"chain": {"operations": [3], "count": 20, "seed": 2}}
    planted = build_source(evaluation, "evaluation.chain")[3].question
    answer = work(planted)[1]
    rows = [
        {"question": f"  {planted.replace('+', ' + ')} ", "answer": answer},  # the same but for white space
        {"question": QUESTION, "answer": "1"},
        {"question": QUESTION.replace("+", " +"), "answer": "1"},  # twice in the set
    ]
    report = build_data(config({"path": jsonl(tmp_path / "train.jsonl", rows)}, chain=evaluation), tmp_path / "data")
    assert report["train"]["overlap_removed"] == 1 and report["train"]["duplicates_removed"] == 1
    assert report["train"]["removed_ids"] == ["train-000000"]
    assert report == json.loads((tmp_path / "data" / "report.json").read_text())
    train = load_problems(tmp_path / "data" / "train.parquet")
    held_out = load_problems(tmp_path / "data" / "eval" / "chain.parquet")
    assert [p.question for p in train] == [QUESTION] and len(held_out) == 20
    assert not {content_key(p.question) for p in train} & {content_key(p.question) for p in held_out}
    assert report["overlap_remaining"] == 0


def test_validation_shares_no_problem_with_training_or_evaluation(tmp_path):
    source = {"chain": {"operations": [2], "count": 60, "seed": 1}}
    watched = {"watched": {"chain": {"operations": [2], "count": 100, "seed": 1}}}
    several = config({"chain": {"operations": [2], "count": 150, "seed": 1}}, validation=watched, chain=source)
    report = build_data(several, tmp_path)
    assert report["validation"]["watched"]["overlap_removed"] == 60  # the same seed draws the same problems first
    files = ("train.parquet", "validation/watched.parquet", "eval/chain.parquet")
    train, validation, evaluation = ({content_key(p.question) for p in load_problems(tmp_path / file)} for file in files)
    assert (len(train), len(validation), len(evaluation)) == (50, 40, 60)
    assert not train & validation and not train & evaluation and not validation & evaluation


def test_generated_sets_are_disjoint_even_with_the_same_seed(tmp_path):
    same = {"chain": {"operations": [2], "count": 100, "seed": 1}}
    with pytest.raises(ValueError, match="data.train has no problem left"):
        build_data(config(same, chain=same), tmp_path)
    assert not list(tmp_path.iterdir())  # nothing half-written
    more = {"chain": {"operations": [2], "count": 150, "seed": 1}}
    report = build_data(config(more, chain=same), tmp_path)
    assert report["train"]["overlap_removed"] == 100 and report["train"]["problems"] == 50


def test_questions_that_the_prompt_answers_are_in_no_set(tmp_path):
    rows = [{"question": q, "answer": "42"} for q in ("What is 27 + 15?", "What is 1 + 41?")]
    path = {"path": jsonl(tmp_path / "rows.jsonl", rows)}
    other = {"path": jsonl(tmp_path / "other.jsonl", [{"question": "What is 2 + 2?", "answer": 4}])}
    report = build_data(config(other, template="addition-3shot", verifier="exact", sums=path), tmp_path / "data")
    assert report["evaluation"]["sums"]["shown_in_prompt"] == 1 and report["evaluation"]["sums"]["problems"] == 1


def test_parquet_round_trip(tmp_path):
    problems = chain_problems([2, 3], 10, seed=0)
    save_problems(tmp_path / "x.parquet", problems)
    assert load_problems(tmp_path / "x.parquet") == problems


def test_own_jsonl_without_solution(tmp_path):
    rows = [{"id": "a-1", "question": "How many?", "answer": 204}, {"id": "a-2", "question": "x {y}", "answer": "1"}]
    problems = build_source(
        {"path": jsonl(tmp_path / "own.jsonl", rows), "columns": {"solution": "solution"}}, "evaluation.own"
    )
    assert [(p.id, p.question, p.answer, p.solution) for p in problems] == [
        ("a-1", "How many?", "204", ""),
        ("a-2", "x {y}", "1", ""),
    ]


def test_own_parquet_with_other_columns_and_a_limit(tmp_path):
    frame = pd.DataFrame({"problem": ["a?", "b?", "c?"], "final": [1, 2, 3], "work": ["x", None, "z"]})
    frame.to_parquet(tmp_path / "own.parquet")
    columns = {"question": "problem", "answer": "final", "solution": "work"}
    problems = build_source({"path": str(tmp_path / "own.parquet"), "columns": columns, "limit": 2}, "train")
    assert [(p.id, p.question, p.answer, p.solution) for p in problems] == [
        ("train-000000", "a?", "1", "x"),
        ("train-000001", "b?", "2", ""),
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "own.jsonl is empty"),
        ('{"question": "a?", "anwser": 1}\n', {}, r"no column 'answer' for answer \(did you mean 'anwser'\?\).*'question'"),
        ('{"question": "a?", "answer": 1}\n', {"columns": {"solution": "work"}}, "no column 'work' for solution"),
        ('{"question": "a?", "answer": 1}\n{"question": null, "answer": 1}\n', {}, "row 2: question .*is empty; got None"),
        ('{"question": "a?", "answer": 1}\n{"question": "b?"}\n', {}, "row 2: answer .*is empty"),
        ('{"question": ["a"], "answer": 1}\n', {}, "row 1: question .*must be text or a number, got list"),
        ('{"question": "a?"\n', {}, "line 1 is not JSON"),
        ("[1]\n", {}, "line 1: got list, expected a JSON object"),
    ],
)
def test_bad_files_are_named(tmp_path, content, options, message):
    path = tmp_path / "own.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"data.train: .*{message}"):
        build_source({"path": str(path), **options}, "train")


def test_bad_sources_are_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        build_source({"path": str(tmp_path / "no.jsonl")}, "train")
    with pytest.raises(ValueError, match="needs `revision`"):
        build_source({"path": "someone/something"}, "train")
    with pytest.raises(ValueError, match="must end in .jsonl, .json, .csv or .parquet"):
        build_source({"path": str(tmp_path)}, "train")
    with pytest.raises(ValueError, match="got nothing; expected exactly one of chain"):
        build_source({}, "train")
    with pytest.raises(ValueError, match="data.train: chain: .*lenght"):
        build_source({"chain": {"operations": [2], "count": 1, "seed": 0, "lenght": 3}}, "train")
    (tmp_path / "bad.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match="could not be read as parquet"):
        build_source({"path": str(tmp_path / "bad.parquet")}, "train")
    with pytest.raises(ValueError, match="`sdpg data --scale NAME` makes it"):
        load_problems(tmp_path / "train.parquet")


def test_ids_that_were_asked_for_must_differ(tmp_path):
    rows = [{"id": 1, "question": "1+1?", "answer": 2}, {"id": 1, "question": "1+2?", "answer": 3}]
    path = jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(ValueError, match="data.train: problem ids must differ, got '1' more than once, in rows 1, 2 "):
        build_data(config({"path": path, "columns": {"id": "id"}}), tmp_path / "data")
    build_data(config({"path": path}), tmp_path / "data")  # a column that happens to be called id
    assert [p.id for p in load_problems(tmp_path / "data" / "train.parquet")] == ["train-000000", "train-000001"]


def test_the_untouched_skill_is_written_for_the_forgetting_measure(tmp_path):
    source = {"chain": {"operations": [2], "count": 3, "seed": 1}}
    train = {"chain": {"operations": [3], "count": 3, "seed": 1}}
    build_data(config(train, lm_eval={"forgetting": "reverse"}, chain=source), tmp_path / "a")
    assert all(p.source == "reverse" for p in load_problems(tmp_path / "a" / "forgetting" / "reverse.parquet"))
    for lm_eval in (None, {"forgetting": None}, {"forgetting": "common_knowledge"}):
        build_data(config(train, lm_eval=lm_eval, chain=source), tmp_path / "b")
        assert not (tmp_path / "b" / "forgetting").exists()

"""The layouts that data sets come in: as published, in every kind of file, with what cannot be meant named by row."""

import gzip
import json
import sys
from decimal import Decimal
from types import SimpleNamespace

import pandas as pd
import pytest

from sdpg.tasks.sources import build_source
from tests.tasks.test_task_data import jsonl

BEFORE = "Solve the problem. The last line should be of the form Answer: $Answer."
AFTER = 'Remember to put your answer on its own line after "Answer:".'
CHAT = [{"role": "user", "content": f"{BEFORE}\n\nIs $x$ {{even}}?\n\n{AFTER}"}]
STRIP = {"prefix": BEFORE, "suffix": f"{AFTER}\n"}
GSM8K = {
    "question": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether in April "
    "and May.\n#### 72",
}  # MIT
VERL = {"prompt": CHAT, "reward_model": {"ground_truth": "34", "style": "rule"}, "extra_info": {"index": "row-0"}}


def read(path, **options):
    return build_source({"path": str(path), **options}, "train")


def one(tmp_path, row, **options):
    (problem,) = read(jsonl(tmp_path / "rows.jsonl", [row]), **options)
    return problem


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "Is $x$ {even}?", "solution": "34", "data_source": "math_dapo"}, {"answer": "solution"}),
        ({"prompt": CHAT, "label": "34"}, {"answer": "label"}),
        ({"prompt": json.dumps(CHAT), "label": 34.0}, {"answer": "label"}),
        (VERL, {"answer": "reward_model.ground_truth"}),
        (VERL | {"reward_model": json.dumps(VERL["reward_model"])}, {"answer": "reward_model.ground_truth"}),
        ({"prompt": CHAT, "answers": ["34", "35"]}, {"answer": "answers.0"}),
        ({"prompt": CHAT, "a.b": "34", "a": {"b": "35"}}, {"answer": "a.b"}),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": CHAT[0]["content"]}]}], "a": 34}, {"answer": "a"}),
    ],
)
def test_layouts_as_they_are_published(tmp_path, row, columns):
    strip = STRIP if "Solve" in str(row) else {}
    problem = one(tmp_path, row, columns={"question": "prompt", **columns}, **strip)
    assert (problem.question, problem.answer, problem.solution) == ("Is $x$ {even}?", "34", "")


def test_an_answer_after_a_mark_leaves_the_solution_without_calculator_marks(tmp_path):
    problem = one(tmp_path, GSM8K, answer_after="####")
    assert problem.answer == "72"
    assert problem.solution == (
        "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether in April and May."
    )
    assert one(tmp_path, GSM8K | {"solution": "Own."}, answer_after="####").solution == "Own."


def test_a_chats_system_turn_is_dropped_by_name_alone(tmp_path):
    row = {"prompt": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "1+1?"}], "answer": 2}
    with pytest.raises(ValueError, match="row 1: question .*has a system turn.*`system_turn: drop`"):
        one(tmp_path, row, columns={"question": "prompt"})
    assert one(tmp_path, row, columns={"question": "prompt"}, system_turn="drop").question == "1+1?"


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (
            {"question": [*CHAT, {"role": "assistant", "content": "No."}]},
            {},
            "one turn, the user's; got the turns user, assistant",
        ),
        ({"question": [{"role": "user", "content": [{"type": "image"}]}]}, {}, "parts of other kinds"),
        ({"question": "Is it?"}, STRIP, "row 1: question .*does not begin with `prefix`.*'Is it\\?'"),
        ({"question": f"{BEFORE} Is it?"}, STRIP, "row 1: question .*does not end with `suffix`"),
        ({"question": f"{BEFORE}{AFTER}"}, STRIP, "row 1: question .*is empty"),
        ({"answer": "42"}, {"answer_after": "####"}, "row 1: answer .*has no '####' .answer_after.*'42'"),
        ({"answer": "So it is.\n####"}, {"answer_after": "####"}, "row 1: answer .*is empty"),
        ({"answer": True}, {}, "row 1: answer .*must be text or a number, got True"),
        ({"answer": float("nan")}, {}, "row 1: answer .*is empty; got None"),
        ({"answer": "nan"}, {}, "row 1: answer .*is empty; got 'nan'"),
        ({"answer": float("-inf")}, {}, "row 1: answer .*is empty; got None"),
        ({"answer": {"ground_truth": 1}}, {}, "got mapping of 'ground_truth'; name an entry"),
        ({"answer": "\ud800"}, {}, "row 1: answer .*surrogate"),
        ({"question": {"text": 1}}, {"columns": {"question": "question.txt"}}, "has no column 'question.txt' for question"),
        ({"question": "{broken"}, {"columns": {"question": "question.text"}}, "has no column 'question.text' for question"),
        ({"id": None}, {"columns": {"id": "id"}}, "row 1: id .*is empty"),
        ({}, {"subset": "main"}, "subset: got 'main', but .* is a file"),
        ({}, {"split": "test"}, "split: got 'test', but .* is a file"),
        ({}, {"revision": "abc"}, "revision: got 'abc', but .* is a file"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, row, options, message):
    with pytest.raises(ValueError, match=f"^data.train: .*{message}") as error:
        one(tmp_path, {"question": "a?", "answer": 1} | row, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72.0, "72"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (1e3, "1000"),
        (10**20, "1" + "0" * 20),
        (" 7 ", "7"),
        (1e22, "1" + "0" * 22),
    ],
)
def test_numbers_are_written_as_people_do(tmp_path, value, text):
    assert one(tmp_path, {"question": "a?", "answer": value}).answer == text


def test_empty_solutions_are_empty_whatever_stands_for_them(tmp_path):
    (tmp_path / "x.jsonl").write_text(
        '{"question": "a?", "answer": 1, "solution": NaN}\n\n{"question": "b?", "answer": 2, "solution": Infinity}\n'
        '{"question": "c?", "answer": 3, "solution": null}\n{"question": "d?", "answer": 4}\n'
        '{"question": "e?", "answer": 5, "solution": "nan"}\n{"question": "f?", "answer": 6, "solution": " NaN"}\n'
    )
    assert [p.solution for p in read(tmp_path / "x.jsonl")] == [""] * 6
    frame = pd.DataFrame({"question": ["a?"], "answer": [Decimal("72.00")], "solution": [float("nan")]})
    frame.to_parquet(tmp_path / "x.parquet")
    (problem,) = read(tmp_path / "x.parquet")
    assert (problem.answer, problem.solution) == ("72", "")


def write(path, kind, packed, rows):
    text = {
        "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "json": json.dumps(rows, ensure_ascii=False, indent=1),
        "data": json.dumps({"data": rows}),
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "csv": pd.DataFrame(rows).to_csv(index=False),
    }.get(kind)
    content = text.encode() if text is not None else pd.DataFrame(rows).to_parquet()
    path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("jsonl", "jsonl"),
        ("jsonl", "JSONL"),
        ("json", "json"),
        ("data", "json"),
        ("lines", "json"),
        ("csv", "csv"),
        ("parquet", "Parquet"),
    ],
)
def test_every_kind_of_file_is_read_alike(tmp_path, kind, ending, packed):
    rows = [
        {"question": 'What, "é"?\n1 1/2', "answer": "1/2", "solution": "Halve."},
        {"question": "b?", "answer": "7", "solution": ""},
    ]
    path = tmp_path / f"own.{ending}{packed}"
    write(path, kind, bool(packed), rows)
    found = [(p.id, p.question, p.answer, p.solution) for p in read(path)]
    assert found == [("train-000000", 'What, "é"?\n1 1/2', "1/2", "Halve."), ("train-000001", "b?", "7", "")]


def test_nested_parquet_with_chats(tmp_path):
    pd.DataFrame([VERL, VERL]).to_parquet(tmp_path / "verl.parquet")
    columns = {"question": "prompt", "answer": "reward_model.ground_truth", "id": "extra_info.index"}
    problems = read(tmp_path / "verl.parquet", columns=columns, limit=1, **STRIP)
    assert [(p.id, p.question, p.answer) for p in problems] == [("row-0", "Is $x$ {even}?", "34")]
    with pytest.raises(ValueError, match="no column 'promt' .*did you mean 'prompt'.*'reward_model'"):
        read(tmp_path / "verl.parquet", columns=columns | {"question": "promt"})


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_text_and_other_encodings_are_named(tmp_path, kind):
    path = tmp_path / f"own.{kind}"
    write(path, kind, False, [{"question": "Wie groß?", "answer": "1"}])
    plain = path.read_text()
    path.write_text(plain, encoding="utf-8-sig")
    assert [p.question for p in read(path)] == ["Wie groß?"]
    path.write_text(plain, encoding="latin-1")
    line = {"jsonl": 1, "json": 3, "csv": 2}[kind]
    with pytest.raises(ValueError, match=f"own.{kind}, line {line} is not UTF-8: byte 0xdf .*save the file as UTF-8"):
        read(path)
    path.write_text(plain, encoding="utf-16")
    with pytest.raises(ValueError, match=f"own.{kind}, line 1 is not UTF-8: .*looks like UTF-16"):
        read(path)
    path.write_text(plain, encoding="utf-32")
    with pytest.raises(ValueError, match=f"own.{kind}, line 1 is not UTF-8: .*looks like UTF-32"):
        read(path)
    path.write_text(plain, encoding="utf-16-le")
    with pytest.raises(ValueError, match=f"own.{kind}, line 1 has bytes of 0 .*save the file as UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"question": "a?", "answer": 1, "answer": 2}\n', "line 1: key 'answer' stands twice"),
        ("x.jsonl", "[" * 100_000, "line 1.*nested too deep"),
        ("x.jsonl", '{"question": "a?", "answer": ' + "1" * 5000 + "}", "line 1: .*digits"),
        ("x.json", "", "x.json is empty"),
        ("x.json", "[]", "x.json is empty"),
        (
            "x.json",
            '{"question": ["a?"], "answer": [1]}',
            "got dict with keys 'question', 'answer', expected a list of objects",
        ),
        ("x.json", '[{"question": "a?"},\n {"question": }]', "line 2 is not JSON: Expecting value at place 15"),
        ("x.json", "[1]", "row 1: got int, expected a JSON object"),
        ("x.csv", "", "x.csv is empty"),
        ("x.csv", "question,answer\na,b?,1\n", r"row 1 \(line 2\) has 3 cells, expected 2"),
        ("x.csv", 'question,answer\n"a?\nb,1\n', r"row 1 \(line 3\) is not CSV"),
        ("x.csv", "question,answer,answer\na?,1,2\n", "column 'answer' stands twice"),
        ("x.csv", "question,answer\na?,nan\n", "row 1: answer .*is empty"),
        ("x.csv", "question;answer\na?;1\n", "no column 'question' .*it has 'question;answer'"),
        ("x.jsonl.gz", "not packed", "x.jsonl.gz could not be read: Not a gzipped file"),
        ("x.parquet.gz", "not packed", "x.parquet.gz could not be read"),
        ("x.xlsx", "PK", "must end in .jsonl, .json, .csv or .parquet, or one of these and .gz"),
    ],
)
def test_broken_files_are_named_by_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"^data.train: .*{message}") as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    packed = gzip.compress(b'{"question": "a?", "answer": 1}\n' * 1000)
    (tmp_path / "x.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="x.jsonl.gz could not be read: Compressed file ended"):
        read(tmp_path / "x.jsonl.gz")


def test_a_hub_set_gets_its_subset_split_and_revision(monkeypatch):
    asked = []

    def load_dataset(name, subset, *, split, revision):
        asked.append((name, subset, split, revision))
        return [GSM8K | {"key": "a"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    options = {"subset": "main", "split": "test", "revision": "740312add88f", "answer_after": "####", "columns": {"id": "key"}}
    (problem,) = read("openai/gsm8k", **options)
    assert asked == [("openai/gsm8k", "main", "test", "740312add88f")]
    assert (problem.id, problem.answer, problem.source) == ("a", "72", "openai/gsm8k/main@740312add88f")

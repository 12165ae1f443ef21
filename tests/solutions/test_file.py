"""Worked solutions from a user's file, and the settings, prompts and plans of all writers."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sdpg.config import base_config, data_config, evaluation_config, resolve, run_config, solutions_config
from sdpg.experiment import solutions
from sdpg.experiment.workflow import Scale
from sdpg.solutions.prompt import answer_form, load_prompt
from sdpg.types import Problem
from tests.scale import message
from tests.solutions.scripted import asked_of, rows, scale_of, write_scale

ROOT = Path(__file__).resolve().parents[2]


def written(tmp_path, lines, *, name="own.jsonl", **more) -> tuple[dict, pd.DataFrame]:
    """Run the rule on a file of these rows (or this text)."""
    path = tmp_path / name
    path.write_text(lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines))
    problems = more.pop("problems", 3)
    solutions.make_solutions(scale_of(tmp_path, {"file": {"path": str(path), **more}}, problems=problems), tmp_path / "out")
    folder = tmp_path / "out" / "solutions"
    return json.loads((folder / "report.json").read_text()), pd.read_parquet(folder / "solutions.parquet")


def right(row) -> str:
    return f"Added: \\boxed{{{row['answer']}}}"


def test_rows_belong_to_problems_by_question_and_the_first_right_one_counts(tmp_path):
    first, second, third = rows(3)
    lines = [
        {"question": first["question"], "solution": "\\boxed{0}"},
        {"question": f"  {first['question']} ", "solution": right(first)},
        {"question": second["question"], "solution": "\\boxed{0}"},
        {"question": "Another one?", "solution": "\\boxed{0}"},
        {"question": third["question"], "solution": None},
    ]
    report, table = written(tmp_path, lines)
    assert table[["id", "try", "solution", "model"]].values.tolist() == [["train-000000", 2, right(first), "own.jsonl"]]
    assert report["accepted"] == 1 and report["without"] == 2 and report["rejected"] == {"wrong answer": 2}
    assert report["matched"] == 2 and report["in_the_file"] == 3 and report["writer"] == "file"


def test_rows_belong_by_id_where_there_is_no_question(tmp_path):
    lines = [{"uid": f"train-{i:06d}", "text": right(row)} for i, row in enumerate(rows(3))]
    report, table = written(tmp_path, lines, columns={"id": "uid", "solution": "text"})
    assert report["accepted"] == 3 and report["matched_by"] == "id" and set(table["try"]) == {1}


def test_the_answers_of_a_journal_are_such_a_file(tmp_path):
    lines = [{"event": "asked", "id": "x"}]
    lines += [{"event": "answered", "id": f"train-{i:06d}", "text": right(row)} for i, row in enumerate(rows(3))]
    assert written(tmp_path, lines, columns={"solution": "text"})[0]["accepted"] == 3


def test_solutions_that_do_not_end_in_the_answer_are_taken_where_the_scale_says_so(tmp_path):
    lines = [{"question": row["question"], "solution": "Count on your fingers."} for row in rows(3)]
    assert written(tmp_path, lines, verify=False)[0]["accepted"] == 3
    assert written(tmp_path, lines)[0]["rejected"] == {"wrong answer": 3}


@pytest.mark.parametrize(
    ("lines", "name", "expected"),
    [
        ('{"question": "What is 2 + 1?", "solution": "a"}\n{"question": "Wha', "own.jsonl", "own.jsonl, line 2 is not JSON"),
        ("question,solution\nWhat,", "own.csv", "has no solution in a column 'solution'"),
        ("PAR1 half of it", "own.parquet", "own.parquet could not be read as parquet"),
        ("", "own.jsonl", "is empty: got 0 rows"),
        ([{"question": "Who?", "solution": "a"}], "own.jsonl", "none of the 1 questions of own.jsonl is one of the 3 problems"),
        ([{"id": "z", "solution": "a"}], "own.jsonl", "(first: 'train-000000'); compare the ids"),
        ([{"question": "Who?", "answer": "a"}], "own.jsonl", "no solution in a column 'solution'; it has 'question', 'answer'"),
        ([{"solution": "a"}], "own.jsonl", "no solution in a column 'question or id'"),
        ([{"question": "", "solution": "a"}], "own.jsonl", "row 1: question (column 'question') is empty"),
        ([{"question": "Who?", "solution": ["a"]}], "own.jsonl", "row 1: column 'solution'"),
    ],
)
def test_a_file_that_is_none_is_refused_by_row(tmp_path, lines, name, expected):
    with pytest.raises(ValueError) as error:
        written(tmp_path, lines, name=name)
    said = str(error.value)
    assert said.startswith("data.solutions.file") and expected in " ".join(said.split()) and "\n" not in said
    assert not (tmp_path / "out" / "solutions" / "solutions.parquet").exists()


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"file": {"path": "nowhere.jsonl"}}, "data.solutions.file.path: nowhere.jsonl does not exist"),
        ({"file": {"path": "notes.txt"}}, "must end in one of .jsonl"),
        ({"local": {"model": "./nowhere"}}, "data.solutions.local.model: ./nowhere does not exist"),
        (asked_of("http://h/v1", prompt="workd"), "there is no such prompt (did you mean 'worked'?)"),
        (asked_of("http://h/v1", prompt="mine-own.yaml"), "the file does not exist (looked in "),
    ],
)
def test_what_is_not_there_is_refused_by_a_dry_run(tmp_path, block, expected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scale = Scale(str(write_scale(tmp_path, block)), {})
    with pytest.raises(ValueError) as error:
        scale.check()
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({}, "data.solutions: got nothing, expected exactly one of local, endpoint, file"),
        ({"local": {"model": "m"}, "file": {"path": "x"}}, "expected exactly one of local, endpoint, file"),
        ({"vllm": {"model": "m"}}, "config key 'data.solutions.vllm' is unknown"),
        ({"local": {"model": "m", "temperature": 0}}, "data.solutions.local.tries is 4, but temperature is 0"),
        ({"local": {"model": "m", "temperature": 3}}, "samples at temperatures from 0.01 to 2.0"),
        ({"local": {"model": "m", "engine": "vlm"}}, "data.solutions.local.engine: got 'vlm', expected one of"),
        (asked_of("http://h/v1", max_cost=None), "data.solutions.endpoint.max_cost: got None, expected number >= 0"),
        (asked_of("ftp://h/v1"), "base_url: got 'ftp://h/v1', expected a URL such as https://host/v1"),
        (asked_of("http://h:port/v1"), "expected a URL such as"),
        (asked_of("http://[::1/v1"), "expected a URL such as"),
        (asked_of("http://a..b/v1"), "expected a URL such as"),
        (asked_of("http:///v1"), "expected a URL such as"),
        (asked_of("http://h/v1?key=1"), "expected a URL such as"),
        (asked_of("http://h/v1/chat/completions"), "expected the URL without /chat/completions"),
        (asked_of("http://h/v1", extra={"model": "x"}), "expected fields other than model"),
        (asked_of("http://h/v1", tries=0), "data.solutions.endpoint.tries: got 0, expected integer >= 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, block, expected):
    assert expected in message(write_scale(tmp_path, block))


def test_prices_are_asked_for(tmp_path):
    block = asked_of("http://h/v1")
    for key in ("input_price", "output_price", "max_cost", "model", "base_url"):
        short = {"endpoint": {k: v for k, v in block["endpoint"].items() if k != key}}
        assert f"config key 'data.solutions.endpoint.{key}' is missing" in message(write_scale(tmp_path, short))


@pytest.mark.parametrize(
    ("template", "verifier", "form"),
    [
        ("boxed", "math-verify", "\\boxed{42}"),
        ("boxed", "exact", "\\boxed{42}"),
        ("plain", "exact", "Answer: 42"),
        ("plain", "math-verify", "Answer: \\boxed{42}"),
        ("chain", "chain", "# 42"),
    ],
)
def test_the_writer_is_asked_for_the_form_that_the_verifier_reads(tmp_path, template, verifier, form):
    config = scale_of(tmp_path, asked_of("http://h/v1"), task={"template": template, "verifier": verifier})
    assert answer_form(config.task) == form
    prompt = load_prompt("worked", show_answer=False, task=config.task)
    text = prompt.of(Problem("1", "Is {form} \\frac{1}{2} {answer}?", "7", "", "x"))
    assert "Is {form} \\frac{1}{2} {answer}?" in text and f"in the form\n{form}\n" in text and "7" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt: '{question} {form}'\nother: x", "expected prompt and prompt_with_answer"),
        ("prompt_with_answer: '{question}'", "expected prompt and"),
        ("prompt: '{question}'", "prompt has no {form} in it"),
        ("prompt: '{question} {form} {answer}'", "show_answer is false"),
        ("prompt: [", "is not valid YAML"),
        ("- a", "has list; expected"),
        ("prompt: 3", "expected prompt and"),
    ],
)
def test_a_prompt_that_is_none_is_refused(tmp_path, text, expected):
    own = tmp_path / "own.yaml"
    own.write_text(text)
    config = scale_of(tmp_path, asked_of("http://h/v1", prompt=str(own)))
    with pytest.raises(ValueError) as error:
        solutions.check(config)
    assert expected in str(error.value) and str(own) in str(error.value) and "\n" not in str(error.value)


def test_the_block_in_the_docs_is_valid_with_each_writer(tmp_path):
    text = (ROOT / "docs" / "solutions.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    kinds = set()
    for taken in (
        block,
        *(re.sub(r"endpoint:.*?\}\n", "", block.replace(f"# {k}", k), flags=re.DOTALL) for k in ("local", "file")),
    ):
        solutions_block = yaml.safe_load(taken)["data"]["solutions"]
        kinds.add(scale_of(tmp_path, solutions_block).data.solutions.kind)
    assert kinds == {"endpoint", "local", "file"}


def test_nothing_but_the_solutions_depends_on_who_writes_them_and_they_not_on_prices(tmp_path):
    with_block, without = scale_of(tmp_path, asked_of("http://h/v1")), scale_of(tmp_path, None)
    for part in (data_config, evaluation_config, lambda c: base_config(c, 0), lambda c: run_config(c, "sdpg-ufkl", 0).dump()):
        assert part(with_block) == part(without)
    same = asked_of("http://h/v1", max_cost=7, input_price=3, requests_per_minute=1, retries=0, key_env="OTHER", timeout=1)
    assert solutions_config(scale_of(tmp_path, same)) == solutions_config(with_block)
    assert solutions_config(scale_of(tmp_path, asked_of("http://h/v1", model="n"))) != solutions_config(with_block)


def test_the_rule_is_planned_where_a_teacher_reads_solutions(tmp_path):
    block = asked_of("http://h/v1")
    path = write_scale(tmp_path, block)
    assert Scale(str(path), {}).solutions == ["results/mine/solutions/solutions.parquet"]
    assert Scale(str(path), {"methods": ["grpo"]}).solutions == []
    assert Scale(str(path), {"task.template": "boxed-answer-hint"}).solutions == []
    assert Scale(str(path), {"data.solutions": None}).solutions == []
    assert resolve(path, {"data.solutions": None}).dump() == scale_of(tmp_path, None).dump()
    write_scale(tmp_path, block)
    code = Scale(str(path), {}).code("solutions")
    assert any("sdpg/solutions/worked.yaml" in param for param in code)
    assert not any("sdpg/solutions/" in param for param in Scale(str(path), {}).code("data"))

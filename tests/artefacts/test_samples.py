"""samples.html: right and wrong responses of every method, escaped, on one page."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from sdpg.artefacts.samples import LONGEST, chosen
from tests.analysis.fake_results import write_problems, write_results
from tests.analysis.test_report import Page
from tests.making import make

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }} \x1b[31m \u202egnp & \"'"


@pytest.fixture
def tree(tmp_path):
    made = write_results(
        tmp_path / "fake",
        methods=("sdpg-ufkl", "grpo"),
        seeds=(3, 4),
        tasks=("a", "b"),
        steps=40,
        every=10,
        problems=6,
        samples=8,
    )
    write_problems(made)
    return made


def edit(tree, method: str, task: str, **columns) -> None:
    path = tree.eval_dir(method, 3) / f"{task}.parquet"
    pd.read_parquet(path).assign(**columns).to_parquet(path)


def page_of(tree) -> str:
    (path,) = make("samples", tree)
    return path.read_text(encoding="utf-8")


def test_every_method_set_and_checkpoint_is_there_with_right_and_wrong(tree):
    for method in tree.methods:
        for task in tree.tasks:
            there = pd.read_parquet(tree.eval_dir(method, 3) / f"{task}.parquet")
            entries = chosen(tree, method, task)
            assert [(e["step"], e["wanted"]) for e in entries] == [(s, w) for s in (0, 20, 40) for w in ("right", "wrong")]
            for e in entries:
                rows = there[(there["step"] == e["step"]) & (there["correct"] == (e["wanted"] == "right"))]
                assert (e["count"], e["of"]) == (len(rows), 48)
                first = rows.sort_values(["problem_id", "sample"]).iloc[0]
                assert (e["problem"], e["sample"]) == (first["problem_id"], first["sample"])
                assert e["question"] == f"{e['problem']}?" and e["answer"] == "1" and e["text"] == "1+1=2"
    page = page_of(tree)
    assert page.count("<details>") == 2 * 2 * 6 and all(f">{method}</h2>" in page for method in tree.methods)


def test_the_page_is_self_contained_well_formed_and_does_nothing(tree):
    edit(tree, "grpo", "a", text=HOSTILE, unjudged="<b>no</b>", correct=False)
    page = page_of(tree)
    parsed = Page(page)
    assert not {"script", "img", "b"} & set(parsed.tags)
    assert set(parsed.links) <= {"report.html", "#method-1", "#method-2"} and "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "{{ 7 * 7 }}" in page
    assert r"\x1b[31m \u202egnp &amp;" in page and "could not be judged: &lt;b&gt;no&lt;/b&gt;" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)
    assert page.count("none is right") == 3 and "(0 of 48 are right)" in page


def test_long_responses_are_cut_and_one_checkpoint_is_shown_once(tree):
    for task in tree.tasks:
        path = tree.eval_dir("grpo", 3) / f"{task}.parquet"
        frame = pd.read_parquet(path)
        frame[frame["step"] == 0].assign(text="x" * (LONGEST + 17)).to_parquet(path)
    entries = chosen(tree, "grpo", "a")
    assert len(entries) == 2 and entries[0]["text"].endswith("x\n[17 more characters: sdpg show]")
    assert len(entries[0]["text"]) < LONGEST + 50


def test_a_problem_that_the_data_no_longer_have_is_said_so(tree):
    path = tree.root / "data" / "eval" / "a.parquet"
    pd.read_parquet(path).iloc[:0].to_parquet(path)
    assert "not among the problems of this scale any more" in page_of(tree)

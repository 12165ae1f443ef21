"""The tables: layout, which cells are bold, and the three file formats."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from sdpg.artefacts import declared
from sdpg.artefacts.tables import lm_eval, main, power
from sdpg.artefacts.tables.layout import Cell, Table, latex_escape, to_latex, to_markdown, write
from sdpg.artefacts.tables.main import told_apart
from sdpg.io import sha256
from tests.making import make

TABLES = [name for name in declared() if name.startswith("tables/") and name != "tables/sensitivity"]  # which needs variants


def rows_of(markdown: str) -> list[list[str]]:
    """Cells of a pipe table, header first, the rule left out."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if not line.startswith("| ---")]


@pytest.mark.parametrize("name", TABLES)
def test_three_files(full, tmp_path, name):
    paths = make(name, full, tmp_path)
    assert [path.name for path in paths] == [f"{name.partition('/')[2]}.{kind}" for kind in ("md", "tex", "csv")]
    assert all(path.stat().st_size > 100 for path in paths)
    first = [sha256(path) for path in paths]
    assert [sha256(path) for path in make(name, full, tmp_path)] == first


def test_main_has_the_layout_of_table_1(full, tmp_path):
    make("tables/main", full, tmp_path)
    header, *body = rows_of((tmp_path / "main.md").read_text())
    names = ("Last", "Best", "Healthy", "Collapsed")
    assert header == ["method", *(f"{task}: {name}" for task in ("chain", "chain-long") for name in names)]
    assert [row[0] for row in body] == ["base model (step 0)", *full.methods]
    latex = (tmp_path / "main.tex").read_text()
    assert r"\multicolumn{4}{c}{chain} & \multicolumn{4}{c}{chain-long} \\" in latex
    assert "method & Last & Best & Healthy & Collapsed & Last" in latex
    assert latex.count("{") == latex.count("}")
    with open(tmp_path / "main.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)].count("grpo") == 2


def test_main_numbers_are_means_over_seeds_of_scores(full):
    scores = full.scores.query("metric == 'mean@8'")
    data = main.build(full).data.set_index(["method", "task"])
    for (method, task), group in scores.groupby(["method", "task"]):
        by_step = group.pivot(index="step", columns="seed", values="value")
        assert data.loc[(method, task), "last"] == pytest.approx(by_step.iloc[-1].mean())
        assert data.loc[(method, task), "best"] == pytest.approx(by_step.iloc[1:].max().mean())
    base = scores.query("step == 0 and task == 'chain'")["value"].mean()
    assert data.loc[("base", "chain"), "last"] == pytest.approx(base)


def test_main_caption_says_how(full):
    caption = main.build(full).caption
    for words in (
        "mean@8",
        "3 seeds",
        "bootstrap over seeds and problems",
        "test set",
        "Bold",
        "Holm-adjusted",
        "McNemar",
        "≈",
    ):
        assert words in caption


def test_only_what_is_shown_to_be_best_is_bold_and_what_cannot_be_told_from_it_is_marked():
    healthy = {"a": 0.6, "b": 0.59, "c": 0.3}
    assert told_apart(healthy, {("a", "b"), ("a", "c")}) == ("a", set())
    assert told_apart(healthy, {("a", "c"), ("b", "c")}) == (None, {"a", "b"})
    assert told_apart(healthy, {("b", "c")}) == (None, {"a", "b"})  # a has not been told from anything, c is worse than b
    assert told_apart(healthy, set()) == (None, set())
    assert told_apart(healthy, {("b", "a"), ("b", "c")}) == ("b", set())  # fewer collapses, at nearly the same height
    assert told_apart({"a": 0.5}, set()) == (None, set())
    assert told_apart(healthy, set(), few={"b"}) == (None, {"a", "c"})  # most of b's runs collapsed
    assert told_apart(healthy, {("b", "c")}, few={"a"}) == (None, set())  # one alone needs no mark
    assert told_apart(healthy, {("a", "b"), ("a", "c")}, few={"a"}) == ("a", set())


@pytest.mark.parametrize(
    ("change", "bold"),
    [
        ({"p_holm": 0.05, "difference": 0.1}, "sdpg-ufkl"),
        ({"p_holm": 0.05, "difference": -0.1}, "grpo"),
        ({"p_holm": 0.051, "difference": 0.1}, None),
        ({"p_holm": 1.0, "other_collapsed": 2, "p_collapse_holm": 0.05}, "sdpg-ufkl"),
        ({"p_holm": 0.01, "difference": -0.1, "other_collapsed": 2, "p_collapse_holm": 0.01}, None),  # each better in one
    ],
)
def test_bold_follows_the_comparisons(results, change, bold):
    quiet = {"p_holm": 1.0, "p_collapse_holm": 1.0, "collapsed": 0, "other_collapsed": 0}
    results.comparisons.assign(**quiet | change).to_csv(results.root / "comparisons.csv", index=False)
    cells = dict(main.build(replace(results)).rows)
    assert [method for method in results.methods if cells[method][2].bold] == ([bold] if bold else [])
    assert not any(cells[method][i].bold for method in results.methods for i in (0, 1, 3))
    assert not any("≈" in cells[method][2].text for method in results.methods)  # of two, either one is told apart or none


def test_collapses_are_counted_beside_performance(results):
    path = results.root / "scores.csv"
    scores = pd.read_csv(path)
    grpo = (scores["method"] == "grpo") & (scores["metric"] == "mean@8")
    scores.loc[grpo & (scores["step"] == 2), "value"] = 0.5
    scores.loc[grpo & (scores["step"] == 4), "value"] = 0.5
    scores.loc[grpo & (scores["step"] == 4) & (scores["seed"] == 1), "value"] = 0.0
    scores.to_csv(path, index=False)
    cells = dict(main.build(replace(results)).rows)
    assert cells["grpo"][3].text == "1 of 2 [0.01, 0.99]"
    assert cells["sdpg-ufkl"][3].text == "0 of 2 [0.00, 0.84]"


def test_main_without_step_zero_has_no_base_row(results):
    for name in ("scores", "intervals"):
        path = results.root / f"{name}.csv"
        frame = pd.read_csv(path)
        frame[frame["step"] != 0].to_csv(path, index=False)
    assert [label for label, _ in main.build(replace(results)).rows] == ["sdpg-ufkl", "grpo"]


def test_lm_eval_stands_beside_vllm(full):
    table = lm_eval.build(full)
    assert table.columns == [
        ("chain", "lm-eval accuracy"),
        ("chain", "vLLM mean@8"),
        ("chain", "difference"),
        ("chain-long", "lm-eval accuracy"),
        ("chain-long", "vLLM mean@8"),
        ("chain-long", "difference"),
        ("reverse (not trained on)", "lm-eval accuracy"),
    ]
    row = table.data.query("method == 'grpo' and task == 'chain'").iloc[0]
    vllm = full.scores.query("method == 'grpo' and task == 'chain' and metric == 'mean@8' and step == 40")["value"].mean()
    assert (row["lm_eval"], row["stderr"], row["other"]) == pytest.approx((0.57, 0.02, vllm))
    assert "first 64 problems" in table.caption
    assert "no values of the base model" in table.caption
    assert lm_eval.build(replace(full, engine="in-process")).columns[1] == ("chain", "in-process mean@8")


def test_lm_eval_shows_forgetting_against_the_base_model(results):
    path = results.root / "eval" / "base0" / "lm_eval.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"results": {"reverse": {"accuracy,none": 0.9}}}))
    table = lm_eval.build(results)
    assert table.columns[-3:] == [
        ("reverse (not trained on)", name) for name in ("lm-eval accuracy", "base model", "difference")
    ]
    assert dict(table.rows)["grpo"][-1].text == "−0.330"  # 0.57 - 0.90


def test_lm_eval_of_some_seeds_says_so_and_compares_these_alone(full, tmp_path):
    root = shutil.copytree(full.root, tmp_path / "fake")
    few = replace(full, root=root, lm_eval=full.lm_eval | {"seeds": 1})
    assert (few.lm_eval_seeds, full.lm_eval_seeds) == ((0,), (0, 1, 2))
    scores = few.scores
    scores[(scores["seed"] == 0) | ~scores["metric"].str.startswith("lm_eval")].to_csv(root / "scores.csv", index=False)
    table = lm_eval.build(replace(few))
    row = table.data.query("method == 'grpo' and task == 'chain'").iloc[0]
    of_seed = scores.query("method == 'grpo' and task == 'chain' and step == 40 and seed == 0").set_index("metric")["value"]
    assert (row["lm_eval"], row["other"]) == pytest.approx((of_seed["lm_eval_accuracy"], of_seed["mean@8"]))
    assert "All of it is of seed 0 of each method, out of 3: evaluation.lm_eval.seeds leaves out the others." in table.caption
    assert "out of 3" not in lm_eval.build(full).caption
    two = lm_eval.build(replace(full, lm_eval=full.lm_eval | {"seeds": 3})).caption
    assert two == lm_eval.build(full).caption
    with pytest.raises(ValueError, match=r"there for the seeds \[0\], expected \[0, 1\]"):
        lm_eval.build(replace(few, lm_eval=full.lm_eval | {"seeds": 2}))


def test_lm_eval_of_some_seeds_needs_their_base_models_alone(results):
    few = replace(results, bases=(0, 1), lm_eval=results.lm_eval | {"seeds": 1})
    path = results.root / "eval" / "base0" / "lm_eval.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"results": {"reverse": {"accuracy,none": 0.9}}}))
    scores = results.scores
    scores[(scores["seed"] == 0) | ~scores["metric"].str.startswith("lm_eval")].to_csv(results.root / "scores.csv", index=False)
    assert few.lm_eval_bases == (0,)
    assert ("reverse (not trained on)", "base model") in lm_eval.build(replace(few)).columns


def test_lm_eval_left_out_gives_a_table_that_says_so(results, tmp_path):
    paths = make("tables/lm_eval", replace(results, lm_eval=None), tmp_path)
    assert "not run at this scale" in paths[0].read_text()
    assert "multicolumn" not in paths[1].read_text()


def test_missing_lm_eval_values_are_named(results):
    scores = results.scores
    scores[~scores["metric"].str.startswith("lm_eval")].to_csv(results.root / "scores.csv", index=False)
    with pytest.raises(ValueError, match="scores.csv has no lm-eval values"):
        lm_eval.build(replace(results))
    scores[(scores["seed"] != 1) | (scores["method"] != "grpo")].to_csv(results.root / "scores.csv", index=False)
    with pytest.raises(ValueError, match=r"lm_eval_accuracy of grpo on chain is there for the seeds \[0\], expected \[0, 1\]"):
        lm_eval.build(replace(results))


def test_missing_intervals_are_named(results):
    results.intervals.query("method != 'grpo'").to_csv(results.root / "intervals.csv", index=False)
    with pytest.raises(ValueError, match="intervals.csv has no mean@8 of grpo on chain"):
        main.build(replace(results))


def test_power_is_that_of_the_design_and_says_what_it_assumes(full):
    table = power.build(full)
    heads = [(f"{n} units", k) for n in (3, 5) for k in ("alone", "first of 10")]
    assert table.columns[:4] == heads
    row = full.power.query("task == 'chain' and measure == 'late' and units == 10 and comparisons == 1").iloc[0]
    label, cells = table.rows[0]
    assert label == f"chain: mean of the late checkpoints (SD {row['sd']:.3f})"
    assert cells[4].text == f"{row['detectable']:.3f}"
    for words in ("80%", "two-sided", "first of ten", "3 runs", "not that of any difference seen"):
        assert words in table.caption


def test_power_with_one_seed_says_so(results):
    results.power.iloc[:0].to_csv(results.root / "power.csv", index=False)
    table = power.build(replace(results))
    assert table.rows == []
    assert "the spread between two seeds" in table.caption


def test_special_characters_survive_in_every_format(tmp_path):
    nasty = r"a|b_50%&$#{}~^\<>"
    table = Table(f"Caption {nasty}", "method", [(nasty, "x")], [(nasty, [Cell("1", bold=True)])], pd.DataFrame({"m": [nasty]}))
    assert rows_of(to_markdown(table))[1][0].replace(r"\|", "|") == nasty
    latex = to_latex(table, "x")
    assert r"a|b\_50\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}" in latex
    assert r"\textbf{1}" in latex
    assert pd.read_csv(write(table, tmp_path, "nasty")[2])["m"].item() == nasty


def test_latex_escapes_once():
    assert latex_escape("\\_") == r"\textbackslash{}\_"
    assert latex_escape("0.1 ± 0.2–0.3 −1") == r"0.1 $\pm$ 0.2--0.3 $-$1"

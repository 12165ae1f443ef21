"""The waterfall: its bars add up, merge what is missing, follow the config, and have the intervals of every comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sdpg.analysis.collapse import collapse
from sdpg.analysis.comparisons import Outcome, compare, pool
from sdpg.artefacts import declared, decomposition
from sdpg.artefacts.decomposition import Step, joined, levels, present_steps, published_rows, together, waterfall
from sdpg.artefacts.scores import make_scores
from sdpg.config import ConfigError, resolve
from sdpg.config.decomposition import PATH, chain_methods, read_decomposition
from sdpg.config.diff import complete, difference
from tests.analysis.fake_results import write_analysis, write_results
from tests.making import make

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
CHAIN = ("grpo", "rpg", "sdpg-open", "sdpg-no-schedule", "sdpg-urkl")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    made = write_results(
        tmp_path_factory.mktemp("chain") / "fake", methods=CHAIN, seeds=(0, 1), problems=40, steps=4, every=2, lm_eval=False
    )
    made = replace(made, published=PUBLISHED)
    write_analysis(made)
    return made


def labels(results, methods) -> list[tuple[str, str | None]]:
    steps = present_steps(read_decomposition()["chain"], replace(results, methods=methods))
    return [(step.change, step.method) for step in steps]


def test_the_whole_chain_has_a_bar_for_each_change(tree):
    assert chain_methods() == list(CHAIN)
    assert labels(tree, CHAIN) == [
        ("GRPO", "grpo"),
        ("anchor form", "rpg"),
        ("clipping (one update per batch)", None),
        ("group std (the same in both)", None),
        ("distillation (ungated, constant beta)", "sdpg-open"),
        ("gate", "sdpg-no-schedule"),
        ("schedule", "sdpg-urkl"),
    ]


def test_a_change_whose_method_is_missing_is_merged_with_the_next(tree):
    at_cpu = labels(tree, tuple(resolve("cpu").methods))
    assert [change for change, method in at_cpu if method] == [
        "GRPO",
        "anchor form",
        "distillation (ungated, constant beta) and gate",
        "schedule",
    ]
    assert labels(tree, ("grpo", "sdpg-urkl"))[-1] == (
        "anchor form, distillation (ungated, constant beta), gate and schedule",
        "sdpg-urkl",
    )
    # Later ends: no bar of zero hangs at the end; and what leads to the first method is no part of it.
    assert labels(tree, ("grpo", "rpg")) == [("GRPO", "grpo"), ("anchor form", "rpg")]
    assert [method for _, method in labels(tree, ("rpg", "sdpg-urkl")) if method] == ["rpg", "sdpg-urkl"]
    with pytest.raises(ValueError, match="the decomposition needs two or more of grpo, .*; the config of .* has grpo, opcd"):
        labels(tree, ("grpo", "opcd"))


def test_what_is_not_zero_under_this_config_is_merged_too(tree, tmp_path):
    path = tree.run_dir("grpo", 0) / "run.json"
    original = path.read_text()
    info = json.loads(original)
    try:
        info["config"]["train"]["updates_per_batch"] = 8
        path.write_text(json.dumps(info))
        changes = [change for change, _ in labels(tree, CHAIN)]
        assert "clipping and distillation (ungated, constant beta)" in changes
        assert "group std (the same in both)" in changes
        del info["config"]["train"]["updates_per_batch"]
        path.write_text(json.dumps(info))
        with pytest.raises(ValueError, match="run.json has no train.updates_per_batch, which config/decomposition.yaml"):
            labels(tree, CHAIN)
    finally:
        path.write_text(original)


def test_lists_in_words():
    assert [joined(list(x)) for x in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


BARS = [Step("A", "a"), Step("to b", "b"), Step("nothing", None), Step("to c", "c")]


def runs(fell=()) -> dict[str, Outcome]:
    """Scores of three methods with five units and eight problems; those of `fell`, (method, unit), collapsed."""
    rng, found = np.random.default_rng(0), {}
    for name in "abc":
        ends = np.array([[0.6, 0.1 if (name, unit) in fell else 0.6] for unit in range(5)])
        found[name] = Outcome(rng.random((5, 8)), collapse(ends, np.array([0, 10])))
    return found


def test_the_bars_add_up_and_each_has_the_interval_of_every_comparison():
    outcomes = runs()
    rows = waterfall(BARS, outcomes, range(5))
    kinds, changes, methods, before, effect, low, high, units = map(list, zip(*rows, strict=True))
    means = {name: of.x_SP.mean() for name, of in outcomes.items()}
    assert (kinds, changes) == (["start", "change", "none", "change"], ["A", "to b", "nothing", "to c"])
    assert methods == ["a", "b", None, "c"]
    np.testing.assert_allclose(np.cumsum(effect), [means["a"], means["b"], means["b"], means["c"]])
    np.testing.assert_allclose(before, [0, *np.cumsum(effect)[:-1]])
    assert (low[0], high[0], effect[2], low[2]) == (None, None, 0, None)
    assert units == [5, 5, None, 5]
    found = compare("c", "b", outcomes, pool(outcomes), range(5)).difference
    assert (effect[3], low[3], high[3]) == (found.effect, *found.interval())
    entries = [{"change": "x", "first": "a", "last": "c"}, {"change": "y", "first": "a", "last": "z"}]
    (both,) = together(entries, outcomes, range(5), levels(rows))
    found = compare("c", "a", outcomes, pool(outcomes), range(5)).difference
    assert both == ("together", "x", "c", means["a"], found.effect, *found.interval(), 5)
    assert both[4] == pytest.approx(effect[1] + effect[3])


def test_the_interval_is_that_of_comparisons_csv_also_beside_methods_that_are_no_part_of_it(tmp_path):
    """A method outside of the chain lends its error to both; one at other settings (`sensitivity`) to neither."""
    methods = ("grpo", "rlsd", "rpg", "sdpg-urkl", "grpo.train.lr-2e-06")
    made = write_results(tmp_path / "fake", methods=methods, seeds=(0, 1, 2, 3), problems=6, steps=4, every=2, lm_eval=False)
    made = replace(made, published=PUBLISHED)
    own = replace(made, own=methods[:4])
    ends = []
    for results in (own, replace(made, methods=methods[:4]), replace(made, methods=("grpo", "rpg", "sdpg-urkl")), made):
        comparisons = make_scores(results)[2].query("measure == 'late'").set_index(["task", "method", "other"])
        bars = decomposition.summarise(results).query("source == 'runs' and kind == 'change'")
        spans = comparisons[["low", "high"]].to_numpy()
        for low, high in bars[["low", "high"]].to_numpy():  # the same pair's, which may stand the other way round
            assert (np.isclose(spans, [low, high]) | np.isclose(spans, [-high, -low])).all(axis=1).any()
        ends.append((bars[["low", "high"]].to_numpy(), set(comparisons.index.get_level_values("method")), len(comparisons)))
    assert np.allclose(ends[0][0], ends[1][0]) and ends[0][1:] == ends[1][1:]
    assert not np.allclose(ends[0][0], ends[2][0]) and not np.allclose(ends[0][0], ends[3][0])


def test_a_collapsed_run_makes_no_bar_and_without_pairs_a_bar_has_no_interval():
    outcomes = runs([("b", 1)])
    rows = waterfall(BARS, outcomes, range(5))
    kept = [0, 2, 3, 4]
    assert rows[1][4] == pytest.approx((outcomes["b"].x_SP - outcomes["a"].x_SP)[kept].mean()) and rows[1][-1] == 4
    assert rows[3][3] == pytest.approx(rows[1][3] + rows[1][4])  # begins where the bar before ends
    outcomes = runs([("b", unit) for unit in range(4)])
    bar = waterfall(BARS, outcomes, range(5))[1]
    assert bar[4] == pytest.approx(outcomes["b"].x_SP[4].mean() - outcomes["a"].x_SP.mean())
    assert bar[5:] == (None, None, 1)


def test_the_file_agrees_with_the_scores(tree):
    frame = decomposition.read(tree)
    assert (frame["before"] + frame["difference"]).between(0, 1).all()
    last = tree.scores.query("step == 4 and metric == 'mean@8'").groupby(["task", "method"])["value"].mean()
    for task in tree.tasks:
        rows = frame[(frame["source"] == "runs") & (frame["task"] == task)]
        for row in rows[rows["method"].notna()].itertuples():
            assert row.before + row.difference == pytest.approx(last[task, row.method])
        pairs = rows[rows["kind"] == "together"].set_index("change")["difference"]
        assert pairs["all changes together"] == pytest.approx(last[task, "sdpg-urkl"] - last[task, "grpo"])
        assert pairs["distillation, gate and schedule together"] == pytest.approx(last[task, "sdpg-urkl"] - last[task, "rpg"])
        bars = rows[rows["kind"].isin(["change", "together"])]
        assert (bars["low"] < bars["high"]).all()


def test_the_published_bars_are_the_published_numbers(tree):
    rows = pd.DataFrame(published_rows(tree, read_decomposition()["published"]), columns=decomposition.COLUMNS)
    assert rows["low"].isna().all()  # single runs
    levels = rows.assign(after=rows["before"] + rows["difference"]).set_index(["task", "method", "kind"])["after"]
    # What results/published/README.md and the text of the paper's Figure 5 give, averaged over steps 330 to 400.
    for task, without, whole in (("aime24", 0.378, 0.379), ("aime25", 0.318, 0.291), ("amc23", 0.838, 0.848)):
        assert levels[task, "sdpg-urkl-beta0", "change"] == pytest.approx(without, abs=5e-4)
        assert levels[task, "sdpg-urkl", "change"] == pytest.approx(whole, abs=5e-4)
        assert levels[task, "sdpg-urkl", "together"] == pytest.approx(whole, abs=5e-4)
    assert rows.query("kind == 'start' and task == 'aime24'")["difference"].item() == pytest.approx(0.295, abs=5e-4)


def test_a_published_curve_that_is_not_there_is_named(tree):
    plan = {"steps": [330, 400], "chain": [{"change": "x", "figure": "fig5", "method": "grpo"}] * 2}
    with pytest.raises(ValueError, match="curves.csv has no aime24 of grpo in fig5"):
        published_rows(tree, plan)


def test_too_few_methods_make_no_file(results):
    with pytest.raises(ValueError, match="the decomposition needs two or more"):
        make("decomposition", replace(results, published=PUBLISHED))
    assert not (results.root / "decomposition.csv").exists()


# --- config/decomposition.yaml and the scale that runs it ----------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("change: gate,", "chnge: gate,", r"mine.yaml, chain.5.chnge: got .*not permitted|chain.5.change: .*required"),
        ("steps: [330, 400]", "steps: [330]", r"published.steps: got \[330\]; List should have at least 2 items"),
        ("method: rpg}", "method: grpo}", "chain names a method twice .*; name each once"),
        ("first: rpg", "first: rgp", "together names rgp, which chain does not have"),
        ("{change: GRPO, method: grpo}\n  -", "{change: GRPO, zero_when: {a: 1}, note: x}\n  -", "chain.0"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, old, new, message):
    text = PATH.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_decomposition(path)


def test_the_scale_runs_the_whole_chain_and_each_method_changes_what_it_says():
    config = resolve("cpu-decomposition")
    assert tuple(config.methods) == CHAIN
    blocks = {method: complete(config, method) for method in CHAIN}
    changed = [{key for key, _, _ in difference(blocks[a], blocks[b])} for a, b in zip(CHAIN, CHAIN[1:], strict=False)]
    schedule = {"algorithm.T_warm", "algorithm.T_decay"}
    assert all(key.startswith("algorithm.") for key in changed[0]) and "algorithm.anchor" in changed[0]
    assert changed[1] == {"algorithm.beta_base", "algorithm.gate", *schedule}
    assert changed[2] == {"algorithm.gate"}
    assert changed[3] == schedule
    grpo, rpg = blocks["grpo"]["algorithm"], blocks["rpg"]["algorithm"]
    assert grpo["kl_coef"] == rpg["alpha"]  # the anchor's form changes, not its weight
    assert config.train.updates_per_batch == 1 and grpo["normalise_std"]


def test_the_scale_has_the_values_that_cpu_runs_with():
    config, cpu = resolve("cpu-decomposition"), resolve("cpu")
    for method in set(CHAIN) & set(cpu.methods):
        assert difference(complete(config, method), complete(cpu, method), ignore=("name", "scale")) == []
    urkl = complete(cpu, "sdpg-urkl")
    for key in ("beta_base", "alpha"):
        assert complete(config, "sdpg-open")["algorithm"][key] == urkl["algorithm"][key]


def test_the_captions_steps_are_the_configs():
    first, last = yaml.safe_load(PATH.read_text(encoding="utf-8"))["published"]["steps"]
    assert f"steps {first} to {last}" in declared()["figures/decomposition"].caption

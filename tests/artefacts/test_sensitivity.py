"""Which conclusions change with a setting: simulated runs in which they do, do not, and are not decided; figure and table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sdpg.artefacts import planned, sensitivity, write_csv
from sdpg.artefacts.claims import evaluate, judge
from sdpg.artefacts.figures import sensitivity as figure_of
from sdpg.artefacts.sensitivity import ALIKE, ALONE, CHANGES, SAME, UNDECIDED, Put, conclusion, of_runs, tables
from sdpg.artefacts.tables import sensitivity as table_of
from sdpg.artefacts.tables.layout import to_latex
from sdpg.config.variants import Setting
from sdpg.io import read_json
from tests.analysis.fake_claims import ALL, ALPHA, BASE, FakeRuns, quick, rises_then_falls, usual
from tests.artefacts.drawings import COMPARED, VARIED, all_axes_are_labelled, lines, nothing_overlaps, texts_of
from tests.making import config_of, make

METHODS = ("sdpg-urkl", "sdpg-ufkl", "rpg", "grpo")
RATES = {1.5e-4: False, 3e-4: True, 6e-4: False}


def put(value: float, own: bool, lead, units: int, setting: str = "train.lr", falls=()) -> Put:
    """Return the claims as decided by runs in which SDPG-URKL is ahead by lead(unit) throughout, and some units of SDPG-UFKL
    fall.
    """
    curves = {method: {metric: usual(metric) for metric in BASE} | {"accuracy": quick} for method in METHODS}
    curves["sdpg-urkl"]["accuracy"] = lambda t, s: quick(t, s) + lead(s)
    curves["sdpg-ufkl"]["accuracy"] = lambda t, s: (rises_then_falls if s in falls else quick)(t, s)
    runs = FakeRuns(curves, units, seed=int(1e5 * value))
    names = {method: method if own else f"{method}.{setting}-{value:g}" for method in METHODS}
    return Put(Setting(setting, value, own, names), runs, judge(runs, of_runs(ALL, METHODS), ALPHA))


def rates(leads, units: int = 5, **more) -> list[Put]:
    return [put(value, own, lead, units, **more) for (value, own), lead in zip(RATES.items(), leads, strict=True)]


def found_in(puts, folder):
    """Return sensitivity.csv and sensitivity_changes.csv as they are read back, and results that have them."""
    for name, frame in zip(sensitivity.ARTEFACT.writes, tables(puts, of_runs(ALL, METHODS)), strict=True):
        write_csv(frame, folder / name)
    results = replace(puts[0].runs.results, root=folder)
    return *sensitivity.read(results), results


@pytest.mark.parametrize(
    "verdicts, expected",
    [
        (("supported", "supported", "refuted"), CHANGES),
        (("refuted", "open", "supported"), CHANGES),
        (("supported", "supported", "supported"), SAME),
        (("refuted", "open", "refuted"), ALIKE),
        (("supported", "supported", "not testable here"), ALIKE),
        (("open", "supported", "open"), ALONE),
        (("open", "open", "not testable here"), UNDECIDED),
    ],
)
def test_an_open_verdict_is_no_change(verdicts, expected):
    assert conclusion(verdicts) == expected


def test_a_conclusion_that_changes_with_the_rate_is_named_with_where_it_holds(tmp_path):
    puts = rates([lambda s: 0.25, lambda s: 0.25, lambda s: 0.0])
    points, changes, results = found_in(puts, tmp_path)
    rows = changes.set_index("claim")
    for claim in ("1a", "1f", "2a", "6a"):
        assert rows.loc[claim, ["supported", "refuted", "conclusion"]].tolist() == ["1.5e-4 and 3e-4", "6e-4", CHANGES]
        assert rows.loc[claim, "difference"] == pytest.approx(-0.25, abs=0.03)
        assert rows.loc[claim, "high"] < 0 and rows.loc[claim, "end"] == "6e-4"
    for claim in ("1b", "1e", "2d"):  # the other methods are alike at every rate
        assert rows.loc[claim, ["refuted", "conclusion"]].tolist() == ["1.5e-4, 3e-4 and 6e-4", SAME]
    own = points.query("claim == '1a' and own == 1").iloc[0]
    (row,) = (row for row in puts[1].rows if row["id"] == "1a")
    assert own["value"] == 3e-4
    assert own[["effect", "low", "high"]].tolist() == pytest.approx([row["effect"], row["low"], row["high"]])
    claim = next(claim for claim in ALL if claim["id"] == "1a")
    assert own[["margin", "half"]].tolist() == [claim["margin"], claim["effect"] / 2]
    said = figure_of.says(results)
    assert "With another learning rate, changes: 2a (supported at 1.5e-4 and 3e-4, refuted at 6e-4), " in said
    assert "does not change: 1b, 1e, 2d." in said and said.startswith(" 5 units")
    table = table_of.build(results)
    bold = [label for label, cells in table.rows if cells[-1].bold]
    assert any(label.startswith("learning rate: 1a sdpg-urkl − grpo (accuracy, evaluation, steps 41 to 80)") for label in bold)
    assert len(bold) == (changes["conclusion"] == CHANGES).sum()
    assert "changes: 2a, 6a, 1a" in table.caption and to_latex(table, "sensitivity")


def test_a_conclusion_that_does_not_change_is_not_said_to(tmp_path):
    points, changes, results = found_in(rates([lambda s: 0.25] * 3), tmp_path)
    fast = changes["claim"].str.startswith("2c")  # of their five units, all say the same
    assert set(changes[~fast]["conclusion"]) == {SAME} and set(changes[fast]["conclusion"]) == {UNDECIDED}
    assert changes["start"].eq("").all() and changes["difference"].isna().all()
    assert "changes: none; does not change: 2a, 6a, 1a" in figure_of.says(results)
    assert not any(cells[-1].bold for _, cells in table_of.build(results).rows)


def test_what_few_units_do_not_decide_is_said_to_be_undecided_and_collapses_are_counted(tmp_path):
    wild = [lambda s: 0.25, lambda s: 0.25, lambda s: 0.3 * (s % 2)]
    puts = rates(wild)
    puts += [put(1.0, True, wild[0], 5, "beta_base"), put(3.0, False, wild[0], 5, "beta_base", falls=range(4))]
    points, changes, results = found_in(puts, tmp_path)
    rows = changes.set_index(["setting", "claim"])
    assert rows.loc[("train.lr", "1a"), ["not_decided", "conclusion"]].tolist() == ["6e-4", ALIKE]
    assert rows.loc[("beta_base", "1b"), ["not_decided", "conclusion"]].tolist() == ["3", ALONE]
    fallen = points.query("setting == 'beta_base' and claim == '1b' and value == 3").iloc[0]
    assert fallen[["first_collapsed", "second_collapsed", "runs"]].tolist() == [4, 0, 5]
    assert fallen[["effect", "low"]].isna().all()
    figure, data = figure_of.draw(results)
    (panel,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("(d) SDPG-UFKL − GRPO [1b]")]
    texts = [text.get_text() for text in panel.texts]
    assert {"4, 0", "?", "decided\nat one value alone"} <= set(texts)
    assert len(lines(panel, "_point")) == 4 and len(data.query("claim == '1b'")) == 5
    assert [text.get_text() for text in panel.get_xticklabels()] == ["1.5e-4", "3e-4", "6e-4", "1", "3"]
    assert texts_of(figure)[:3] == ["supported", "refuted", "not decided there"]
    all_axes_are_labelled(figure)
    nothing_overlaps(figure)
    assert len({look[:3] for look in figure_of.LOOKS.values()}) == 4
    assert len({(look.marker, look.fill) for look in figure_of.LOOKS.values()}) == 4  # told apart without colour


def test_verdicts_may_change_where_the_effects_cannot_be_told_apart(tmp_path):
    leads = [lambda s: 0.12, lambda s: 0.12, lambda s: 0.18 * (s % 2)]
    _, changes, results = found_in(rates(leads, units=10), tmp_path)
    row = changes.set_index("claim").loc["2a"]
    assert row["conclusion"] == CHANGES and row["low"] < 0 < row["high"]
    assert f"refuted at 6e-4; {sensitivity.APART})" in figure_of.says(results)


def test_the_scales_own_value_is_decided_as_its_claims_are(tree_of, tmp_path):
    """From files, each setting from its own runs; runs at other values lend no error to the scale's claims."""
    results = tree_of("sensitivity")
    points, _ = sensitivity.read(results)
    assert dict(points.groupby("value")["own"].first()) == {1e-6: 1, 2e-6: 0}
    rows = {row["id"]: row for row in evaluate(replace(results, methods=COMPARED[:2]))}
    there = sensitivity.results_at(results, dict(zip(COMPARED[:2], COMPARED[2:], strict=True)))
    other = {row["id"]: row for row in evaluate(there)}
    for own, expected in ((1, rows), (0, other)):
        for point in points[points["own"] == own].itertuples():
            assert point.verdict == expected[point.claim]["verdict"]
            assert point.effect == pytest.approx(expected[point.claim]["effect"], rel=1e-6)
    assert points.query("claim == '1a'")["effect"].nunique() == 2
    assert read_json(make("claims", results, tmp_path, **VARIED)[0]) == json.loads(json.dumps(list(rows.values())))


def test_a_scale_without_the_block_has_none_of_it(tree):
    assert not {"sensitivity", "figures/sensitivity", "tables/sensitivity"} & set(planned(config_of(tree)))

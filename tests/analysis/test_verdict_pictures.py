"""What the report and claims.md say and draw of each claim: its group, its thresholds, its picture, how far an open one is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sdpg.artefacts.claims import evaluate
from sdpg.artefacts.claims.standing import CURVES, PROPOSITION, distance, effect_text, grouped, limits, number
from sdpg.artefacts.report.picture import EDGE, WIDTH, pictures
from tests.analysis.fake_claims import ALL, alone, fake, of, untestable
from tests.analysis.fake_results import claim

TESTED = [one for one in ALL if one["test"] not in ("proposition", "published")]


def test_primary_claims_come_first_and_what_asks_nothing_of_runs_stands_apart():
    """Whatever the verdict of the proposition and of the published curves is, neither is among the decided."""
    rows = [
        claim("P1", role="published", verdict="single run, no interval"),
        claim("7a", role="exact", verdict="refuted"),
        claim("x", role="exploratory"),
        claim("p", verdict="refuted"),
        claim("n", verdict="not run at this scale"),
        claim("o", verdict="open"),
        claim("t", verdict="not testable here"),
    ]
    found = [(heading, [row["id"] for row in members]) for heading, members in grouped(rows)]
    assert found == [
        ("Decided", ["p", "x"]),
        ("Not testable here", ["t"]),
        ("Open", ["o"]),
        ("Not run at this scale", ["n"]),
        (PROPOSITION, ["7a"]),
        (CURVES, ["P1"]),
    ]


def test_thresholds_have_the_claimed_sign_and_half_of_a_ratio_is_of_its_logarithm():
    assert limits(claim("a")) == (0.01, 0.05)
    assert limits(claim("a", direction="below")) == (-0.01, -0.05)
    assert limits(claim("a", paper=None)) == (0.01, None)
    margin, half = limits(claim("a", direction="below", margin=0.1, paper=0.75, unit="relative change"))
    assert (margin, half) == (-0.1, pytest.approx(np.sqrt(0.25) - 1))


def test_an_open_claim_says_how_far_it_is_from_either_verdict():
    row = claim("a", verdict="open", effect=0.03, low=-0.02, high=0.08)
    assert distance(row) == (
        "0.030 short of supported (the interval ends at −0.020, the threshold is +0.010); "
        "0.030 short of refuted (the interval ends at +0.080, the threshold is +0.050)"
    )
    turned = claim("a", verdict="open", direction="below", effect=-0.03, low=-0.08, high=0.02)
    assert distance(turned).startswith("0.030 short of supported (the interval ends at +0.020, the threshold is −0.010)")
    corrected = claim("a", verdict="open", low=0.02, high=0.2)
    assert distance(corrected).startswith("by its interval alone it would be supported (the interval ends at +0.020")
    ratio = claim("a", verdict="open", unit="relative change", low=-0.1, high=0.2)
    assert "11.0 points short of supported" in distance(ratio)
    assert distance(claim("a", verdict="open", paper=None, low=-0.1)).count("short of") == 1
    exact = claim("a", verdict="open", low=None, high=None, p=0.07, p_adjusted=0.7)
    assert distance(exact) == "p 0.070 alone, 0.700 adjusted, where at most 0.05 decides"
    assert distance(claim("a", verdict="open", low=None, p=None)) == ""  # one run of each: its reason says so
    assert distance(claim("a")) == ""


def test_numbers_in_words():
    assert effect_text(claim("a", effect=None), "fraction") == "–"
    assert effect_text(claim("a", effect=0.1, low=None), "fraction") == "+0.100"
    assert effect_text(claim("a", effect=-0.5, low=-0.6, high=-0.0001), "relative change") == "−50.0% [−60.0%, 0.0%]"
    assert (number(-99.6, "tokens"), number(1.1e-15, "absolute error")) == ("−100", "1.1e-15")


@pytest.mark.parametrize("world", ["claimed", "null", "wild"])
@pytest.mark.parametrize("one", TESTED, ids=lambda one: one["id"])
def test_each_claim_has_a_picture_that_shows_what_was_measured(one, world, tmp_path):
    runs = fake(one, world)
    (row,) = evaluate(runs.results, alone(one, tmp_path), runs)
    (picture,) = pictures(row)
    _sound(picture)
    if one["test"] == "collapse":
        assert [line["label"].partition(":")[0] for line in picture.lines] == one["methods"]
        return
    assert len(picture.lines) == len(row["parts"])
    for line, part in zip(picture.lines, row["parts"], strict=True):
        assert line["low"] <= line["value"] <= line["high"]
        assert effect_text(part, row["unit"]) in picture.text
    margin, half = picture.marks
    sign = 1 if one["direction"] == "above" else -1
    assert (sign * (half["x"] - margin["x"]) > 0) and sign * (margin["x"] - picture.zero) >= 0
    assert (margin["side"], half["side"]) == ("supported", "refuted")
    if row["verdict"] == "supported":  # what the picture shows is what decided
        worst = min if sign > 0 else max
        near = worst(line["low" if sign > 0 else "high"] for line in picture.lines)
        assert sign * (near - margin["x"]) > 0


def test_what_is_not_testable_shows_the_condition_that_fails(tmp_path):
    runs = untestable(of("1a"))
    (row,) = evaluate(runs.results, alone(of("1a"), tmp_path), runs)
    (picture,) = pictures(row)
    _sound(picture)
    assert picture.lines[0]["value"] < picture.marks[0]["x"] and picture.marks[0]["text"] == "needed 0.088, testable →"
    assert re.fullmatch(r"room above grpo's accuracy: 0\.0\d+; 0\.088 needed\.", picture.text)


def test_pictures_of_what_has_no_interval(tmp_path):
    results = fake(of("1a"), "null").results
    (exact,), (curves,) = (pictures(evaluate(results, alone(of(name), tmp_path))[0]) for name in ("7a", "P1"))
    _sound(exact)
    _sound(curves)
    assert exact.lines[0]["value"] < exact.marks[0]["x"]
    assert [line["label"] for line in curves.lines] == ["aime24", "aime25", "amc23"]
    assert curves.lines[0]["low"] is None and curves.marks[0]["side"] == ""  # no verdict lies there
    assert pictures(claim("a", verdict="not run at this scale", effect=None)) == []
    assert pictures(claim("a", verdict="open", effect=None, low=None, high=None)) == []
    degenerate = claim("a", effect=0.0, low=0.0, high=0.0, margin=0, paper=None)
    _sound(pictures(degenerate)[0])


def _sound(picture) -> None:
    """Everything lies within the drawing, and it says in words what it shows."""
    for line in picture.lines:
        for x in (line["value"], line["low"], line["high"]):
            assert x is None or EDGE <= x <= WIDTH - EDGE
        assert 0 < line["y"] < picture.bottom
    for mark in picture.marks:
        assert EDGE <= mark["x"] <= WIDTH - EDGE and 0 <= mark["at"]
    places = [x for x, _ in picture.ticks]
    assert places == sorted(places) and all(EDGE - 1 <= x <= WIDTH - EDGE + 1 for x in places)
    assert picture.text.endswith(".") and len(picture.text) > 20

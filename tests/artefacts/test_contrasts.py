"""The figure of the primary claims, and the picture of the matrix."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sdpg.artefacts import matrix
from sdpg.artefacts.claims.verdicts import EXPLORATORY
from sdpg.artefacts.figures import cells, contrasts
from tests.artefacts.conftest import CLAIMS
from tests.artefacts.drawings import all_axes_are_labelled, fits_a_paper, lines, names, nothing_overlaps, titled


def test_the_primary_claims_are_drawn_with_both_thresholds(drawn):
    figure, data = drawn["figures/contrasts"]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["(a) collapsed runs", "(b) accuracy", "(c) entropy and length"]
    assert set(data["id"]) == {claim["id"] for claim in CLAIMS if claim["role"] != EXPLORATORY}
    ax = titled(figure, "(b) accuracy")
    points = [line.get_xdata()[0] for line in lines(ax, "_effect")]
    assert points == [0.02, 0.08, 0.08]  # none for what was not run
    assert [line.get_xdata().tolist() for line in lines(ax, "_interval")] == [[0.005, 0.035], [0.03, 0.13]]  # none for one run
    assert [line.get_xdata()[0] for line in lines(ax, "_margin")] == [0.01] * 4
    assert [line.get_xdata()[0] for line in lines(ax, "_half")] == [0.05] * 4


def test_collapses_are_shares_with_exact_intervals_and_the_other_methods_share_is_the_margin(drawn):
    figure, data = drawn["figures/contrasts"]
    ax = titled(figure, "(a) collapsed runs")
    assert [line.get_xdata()[0] for line in lines(ax, "_share")] == [0.9, 0.1]
    assert [line.get_xdata().tolist() for line in lines(ax, "_interval")] == [[0.555, 0.9975], [0.0025, 0.445]]
    assert lines(ax, "_margin")[0].get_xdata()[0] == pytest.approx(0.1)
    assert lines(ax, "_half")[0].get_xdata()[0] == 0.5
    assert ax.get_xlim()[0] == 0
    assert "SDPG without gate: 9 of 10 | SDPG-URKL: 1 of 10" in names(figure)


def test_relative_changes_stand_by_their_logarithm_on_the_claimed_side(drawn):
    figure, data = drawn["figures/contrasts"]
    ax = titled(figure, "(c) entropy and length")
    np.testing.assert_allclose([line.get_xdata()[0] for line in lines(ax, "_effect")], np.log([1.5, 0.8]))
    np.testing.assert_allclose([line.get_xdata()[0] for line in lines(ax, "_margin")], np.log([1.1, 0.98]))
    np.testing.assert_allclose(
        [line.get_xdata()[0] for line in lines(ax, "_half")], np.log([3.6, 0.773]) / 2
    )  # half of the logarithm
    halves = data.query("part == 'half' and unit == 'relative change'")["value"].tolist()
    assert halves == pytest.approx([np.sqrt(3.6) - 1, np.sqrt(0.773) - 1])
    assert len(lines(ax, "_arrow")) == 1  # forty times as much: an arrow, and the number in words
    assert "+4000%" in names(figure)


def test_verdicts_are_told_by_marker_colour_and_words(drawn):
    figure, _ = drawn["figures/contrasts"]
    said = names(figure)
    for claim in CLAIMS:
        assert claim["verdict"] in said
    looks = {(line.get_marker(), line.get_markerfacecolor()) for ax in figure.axes for line in lines(ax, "_effect")}
    assert len(looks) == 4  # supported, refuted, open, not testable
    assert "It is early ahead |" in said and "steps 26 to 50" not in said  # without its brackets
    assert "+.080 [+.030, +.130], chain" in said  # the set that decides


@pytest.mark.parametrize("content, message", [("[]", "has no claim with the role 'primary'"), (None, "claims.json is missing")])
def test_results_without_primary_claims_are_refused(tree, tmp_path, content, message):
    if content:
        (tmp_path / "claims.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        contrasts.draw(replace(tree, root=tmp_path))


def put(tree, root, name, teacher, rate, environment="one", tasks=None):
    """Make a cell of the matrix from a tree: the same scores, and a run.json that says where it lies."""
    folder = root / name
    method, seed = tree.runs[0]
    path = folder / "runs" / method / f"seed{seed}" / "run.json"
    path.parent.mkdir(parents=True)
    info = tree.run_info(method, seed)
    info["config"]["model"] = {"warm_start": {"jump_hinted": teacher, "of": environment}}
    info["config"]["train"]["lr_multiplier"] = rate
    path.write_text(json.dumps(info))
    for name in ("scores.csv", "intervals.csv"):
        (folder / name).symlink_to(tree.root / name)
    for run in tree.runs:
        there = folder / "runs" / run[0] / f"seed{run[1]}"
        there.mkdir(parents=True, exist_ok=True)
        (there / "metrics.jsonl").symlink_to(tree.run_dir(*run) / "metrics.jsonl")
    return replace(tree, root=folder, tasks=tasks or tree.tasks)


def test_cells_that_are_every_pair_have_teacher_and_rate_as_margins(tree, tmp_path):
    pairs = [(0.03, 1.0), (0.1, 1.0), (0.03, 2.0), (0.1, 2.0)]
    four = [put(tree, tmp_path, f"c{i}", *pair) for i, pair in enumerate(pairs)]
    figure, data = matrix.draw(four)
    assert len(figure.axes) == 8  # both sets of each
    assert [ax.get_title(loc="left") for ax in figure.axes[:4]] == [
        "teacher's bias 0.03\nchain",
        "teacher's bias 0.03\nchain-long",
        "teacher's bias 0.1\nchain",
        "teacher's bias 0.1\nchain-long",
    ]
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["rate × 1", "rate × 2"]
    assert len(data.query("part == 'last'")) == 8 * len(tree.methods)
    (point,) = lines(figure.axes[1], "GRPO")
    row = data.query("cell == 'c0' and task == 'chain-long' and method == 'grpo' and part == 'last'")
    assert point.get_xdata()[0] == row["value"].item()
    all_axes_are_labelled(figure)
    nothing_overlaps(figure)
    fits_a_paper(figure)


def test_cells_that_are_no_grid_are_called_by_what_they_are(tree, tmp_path):
    some = [
        put(tree, tmp_path, "cpu", 0.03, 1.0, tasks=("chain",)),
        put(tree, tmp_path, "cpu-biased", 0.1, 1.0, tasks=("chain",)),
        put(tree, tmp_path, "cpu-stressed", 0.03, 2.0, tasks=("chain",)),
        put(tree, tmp_path, "cpu-chain", 0.2, 1.0, "two"),
    ]
    figure, data = matrix.draw(some)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "cpu: chain\nbias 0.03, rate × 1",
        "cpu-biased: chain\nbias 0.1, rate × 1",
        "cpu-stressed: chain\nbias 0.03, rate × 2",
        "cpu-chain: chain\nanother environment",
        "cpu-chain: chain-long\nanother environment",
    ]
    assert set(data["part"]) == {"base", "last", "seed"}
    all_axes_are_labelled(figure)
    nothing_overlaps(figure)
    fits_a_paper(figure)


@pytest.mark.parametrize(
    "pairs, grid",
    [
        ([(0.1, 1), (0.2, 1), (0.1, 2), (0.2, 2)], True),
        ([(0.1, 1), (0.2, 1), (0.1, 2)], False),  # a hole
        ([(0.1, 1), (0.2, 1)], False),  # a row alone
        ([(0.1, 1), (0.2, 1), (0.1, 2), (0.1, 2)], False),  # one twice
    ],
)
def test_what_a_grid_is(pairs, grid):
    places = [cells.Place(teacher, rate, "same") for teacher, rate in pairs]
    assert cells.is_grid(places) == grid
    assert not cells.is_grid([*places[:-1], replace(places[-1], rest="other")])

"""The figure of a sweep: lines, points, numbers and layout."""

from __future__ import annotations

import pandas as pd
import pytest

from sdpg.artefacts.figures import tuning
from tests.artefacts.drawings import all_axes_are_labelled, nothing_overlaps, texts_of


def test_a_line_joins_trials_that_differ_in_one_setting_alone(swept):
    figure, data = tuning.draw(swept)
    means = data[data["seed"].isna()]
    lines = {
        (setting, method): list(zip(rows["trial"], rows["value"], strict=True))
        for (setting, method, _), rows in means.groupby(["setting", "method", "line"])
    }
    assert lines == {
        ("train.lr", "sdpg-ufkl"): [(0, 3e-4), (1, 5e-4)],
        ("train.lr", "grpo"): [(0, 3e-4), (1, 8e-4)],
        ("beta_base", "sdpg-ufkl"): [(2, 0.3), (1, 1.0)],
    }
    row = means.query("setting == 'train.lr' and method == 'grpo' and trial == 1").iloc[0]
    assert row["score"] == pytest.approx((0.5 + 0.52) / 2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["learning rate", "β, weight of the distillation"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["3e-4", "5e-4", "8e-4"]
    assert texts_of(figure)[:2] == ["SDPG-UFKL", "GRPO"]
    all_axes_are_labelled(figure)
    nothing_overlaps(figure)


def test_a_sweep_with_nothing_to_compare_is_refused(swept, tmp_path):
    path = tmp_path / "sweep" / "tuned.csv"
    frame = pd.read_csv(path)
    frame[frame["trial"] == 0].to_csv(path, index=False)
    with pytest.raises(ValueError, match="nothing to show"):
        tuning.draw(swept)

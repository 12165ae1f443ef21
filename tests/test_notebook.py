"""The notebook runs from its first cell to its last and draws what it says; `make docs` runs it in a kernel of its own."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "reference.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def ran():
    """The names that the cells leave, and the figures by cell."""
    from matplotlib import pyplot

    names, drawn = {"__name__": "notebook"}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(NOTEBOOK.parent)
        patch.setattr(pyplot, "close", lambda *_: None)
        before = matplotlib.get_backend()
        pyplot.switch_backend("agg")
        for cell in CELLS:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec", dont_inherit=True), names)
                drawn += [names["figure"]] if "figure" in names and names["figure"] not in drawn else []
        pyplot.switch_backend(before)
    return names, drawn


def test_it_is_committed_without_what_came_out():
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in CELLS if cell["cell_type"] == "code")


def test_it_shows_every_method_on_every_set_with_the_numbers_of_the_reference(ran):
    names, (final, curves) = ran
    scores = pd.read_csv(NOTEBOOK.parents[1] / "results" / "reference" / "cpu" / "scores.csv")
    methods, tasks = set(scores["method"]), list(scores[scores["metric"].str.startswith("mean@")]["task"].unique())
    final.canvas.draw()
    assert [axes.get_title() for axes in final.axes] == tasks
    assert {label.get_text() for label in final.axes[0].get_yticklabels()} == methods
    for axes, task in zip(final.axes, tasks, strict=True):
        means = next(line for line in axes.lines if line.get_label() == "mean, 95% interval")
        assert sorted(means.get_xdata()) == pytest.approx(sorted(names["table"][task]), abs=1e-9)
        assert len(means.get_xdata()) == len(methods)
    runs = scores[(scores["method"] == "grpo") & (scores["task"] == tasks[0]) & scores["metric"].str.startswith("mean@")]
    panel = next(axes for axes in curves.axes if axes.get_title() == "grpo")
    assert len(panel.lines) == runs["seed"].nunique()


def test_its_table_counts_the_collapsed_runs(ran):
    table = ran[0]["table"]
    assert list(table.index) == ran[0]["methods"]
    assert table["collapsed runs"].between(0, ran[0]["accuracy"]["seed"].nunique()).all()

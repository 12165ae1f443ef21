"""The committed reference data agree with each other and with their README."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from sdpg.artefacts.declare import PAPER

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
TABLES = pd.read_csv(PUBLISHED / "tables.csv")
CURVES = pd.read_csv(PUBLISHED / "curves.csv")


@pytest.mark.parametrize("row", TABLES.query("table == 1").itertuples(), ids=lambda row: f"{row.method}-{row.benchmark}")
def test_figure_3_ends_at_table_1(row):
    curve = CURVES.query("figure == 'fig3' and method == @row.method and metric == @row.benchmark").sort_values("step")
    assert curve["step"].tolist() == list(range(10, 401, 10))
    assert curve["value"].iloc[-1] == pytest.approx(row.last, abs=0.0015)
    assert curve["value"].max() == pytest.approx(row.best, abs=0.0015)


def test_tables_are_complete():
    assert TABLES.groupby("table").size().to_dict() == {1: 12, 2: 15}
    assert (TABLES["last"] <= TABLES["best"]).all()
    assert not TABLES.duplicated(["table", "method", "benchmark"]).any()


def test_curves_are_complete():
    assert not CURVES.duplicated(["figure", "method", "metric", "step"]).any()
    assert CURVES.groupby("figure")["method"].nunique().to_dict() == {"fig3": 4, "fig5": 4, "fig6": 5}
    assert set(CURVES["metric"]) == {"aime24", "aime25", "amc23", "reward", "entropy", "response_length"}
    assert CURVES.notna().all().all()


def test_claims_and_pages_name_the_same_version_of_the_paper():
    root = PUBLISHED.parents[1]
    files = ["README.md", "config/claims.yaml", "results/published/README.md", "docs/methods/sdpg.md", "docs/presets.md"]
    for file in files:
        text = (root / file).read_text()
        assert PAPER.removeprefix("arXiv ") in text, file
        assert not re.search(r"2606\.04036(?!v)", text), file


def test_readme_cites_and_explains_every_column():
    text = (PUBLISHED / "README.md").read_text()
    assert "arXiv 2606.04036" in text
    for column in {*TABLES.columns, *CURVES.columns}:
        assert f"`{column}`" in text

"""The report: one self-contained, well-formed, escaped page."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from sdpg import figures
from sdpg.analysis.report import benchmarks, context, flatten, make_report, phase_times, render

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects tags and images, and checks that every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.images, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for key, value in attrs if key in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(full):
    root = full.root
    (root / "benchmarks" / "train").mkdir(parents=True)
    (root / "benchmarks" / "train" / "grpo.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t310.2\n")
    (root / "model").mkdir()
    (root / "model" / "base0.json").write_text(json.dumps({"student_accuracy": 0.25}))
    return make_report(full).read_text(encoding="utf-8")


def test_page_is_well_formed_and_self_contained(page):
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)
    assert not re.search(r"https?://|@import|url\(", page)
    assert 'name="viewport"' in page


def test_figures_are_embedded_with_their_captions(page, full):
    images = Page(page).images
    assert len(images) == 3
    for image, name in zip(images, ("final_accuracy", "training_curves", "beta_schedule"), strict=True):
        content = base64.b64decode(image["src"].partition(",")[2])
        same = content == (full.root / "figures" / f"{name}.png").read_bytes()
        assert same, name  # not compared in the assertion: pytest would show two pictures' bytes, for an hour
        assert len(image["alt"]) > 60


def test_page_shows_tables_configs_machine_and_times(page, full):
    for text in (
        "chain-long",
        "0123456789abcdef",
        "beta_base: 1.0",
        "shared by all methods",
        "student_accuracy",
        "310.2",
    ):
        assert text in page
    assert page.count('<th scope="row">grpo</th>') == 5  # four tables and the times
    assert "results/published" not in page
    assert str(full.root) not in page  # nothing of this machine's paths


def test_values_are_escaped(full):
    values = context(full)
    values["environment"] = [("<b>x</b>", "<script>alert(1)</script>")]
    text = render(values)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_page_is_reproducible(full, page):
    assert make_report(full).read_text(encoding="utf-8") == page


def test_phase_times_by_hand():
    rows = [
        {"method": "grpo", "seed": seed, "seconds": 1.0, "seconds_train": 0.6, "seconds_validation": 0.5 * (step == 2)}
        for seed in (0, 1)
        for step in (1, 2)
    ]
    times = phase_times(pd.DataFrame(rows))
    assert times["columns"] == ["train", "other", "validation", "together", "one run"]
    method, values = times["rows"][0]
    assert method == "grpo"
    assert values == pytest.approx([0.6, 0.4, 0.25, 1.25, 2.5])


def test_no_benchmarks_is_fine(tmp_path):
    assert benchmarks(tmp_path / "none") == []


def test_flatten():
    assert flatten({"ids": list(range(1000))})[0][1].endswith("... (1000 entries)")
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, "x"]}) == [("a.b", "1"), ("a.c", "null"), ("d", "[1, x]")]


def test_missing_figures_are_named(results):
    with pytest.raises(ValueError, match="figures/final_accuracy.png is missing"):
        make_report(results)
    assert not (results.root / "report.html").exists()


def test_figure_captions_come_from_the_picture(results):
    figures.make("beta_schedule", results)
    entry = context(results)["figures"][0]
    assert entry["caption"].startswith("Weight of the distillation term")

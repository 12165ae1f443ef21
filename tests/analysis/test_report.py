"""The report: one self-contained, well-formed, escaped page."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from urllib.parse import unquote

import pandas as pd
import pytest
from PIL import Image

from sdpg.artefacts.claims.standing import PROPOSITION
from sdpg.artefacts.report import benchmarks, context, render
from sdpg.artefacts.report.configs import environment, flatten, preset_differences
from sdpg.artefacts.report.cost import by_method, by_rule, energy, phase_times
from sdpg.artefacts.report.verdicts import VERDICTS, read_claims, verdicts
from sdpg.io import sha256
from tests.analysis.fake_results import claim
from tests.making import job_of, make

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects tags and images, and checks that every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.images, self.links, self.ids = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for key, value in attrs if key in ("href", "src")]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(report):
    return report[1].read_text(encoding="utf-8")


def test_page_is_well_formed_and_self_contained(page):
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert all(image["src"].startswith("data:image/png;base64,") for image in parsed.images)
    assert not any(re.match(r"[a-z]+:|//|/", link) for link in parsed.links if not link.startswith("data:"))
    assert not re.search(r"https?://|@import|url\(", page)
    assert 'name="viewport"' in page
    assert "default-src 'none'" in page  # a browser would refuse what else it might ask for
    assert len(page) < 5_000_000


def test_every_anchor_and_every_linked_file_is_there(page, report):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    for link in parsed.links:
        if link.startswith("#"):
            assert link[1:] in parsed.ids, link
        elif not link.startswith("data:"):
            assert (report[0].root / unquote(link)).exists(), link
    assert {"manifest.json", "samples.html"} <= set(parsed.links)
    assert "runs/grpo/seed0/checkpoints/step000040/" in parsed.links
    assert not [link for link in parsed.links if "gone" in link]


def test_a_reader_who_does_not_see_it_can_use_it(page):
    parsed = Page(page)
    assert '<html lang="en">' in page
    assert {"header", "nav", "main", "h1"} <= set(parsed.tags)
    assert all(image["alt"] for image in parsed.images)
    headings = [int(tag[1]) for tag in parsed.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(headings))
    assert page.count("<th ") == page.count('<th scope="')
    for verdict in ("supported", "open", "not testable here", "not run at this scale"):
        assert f"{VERDICTS[verdict][0]} {verdict}<" in page  # not by colour alone


def test_the_verdicts_come_first(page):
    order = [page.index(f'id="{name}"') for name in ("verdicts", "figures", "tables", "configuration", "cost", "reproduce")]
    assert order == sorted(order)
    row = page[page.index('id="claim-ends-above-grpo"') :].partition("</article>")[0]
    shown = ("✓ supported", "+0.080 [+0.030, +0.130]", 'href="#figure-final_accuracy"', "0.016", "Table 1", "above 0.01; 0.1")
    for text in (*shown, "sdpg-ufkl 1 of 10 [0.00, 0.45]", "✓ room above grpo&#39;s accuracy: 0.2 (0.1 needed)", 'role="img"'):
        assert text in row
    heads = [
        page.index(f">{heading} (")
        for heading in ("Decided", "Not testable here", "Open", "Not run at this scale", "What the paper&#39;s own curves say")
    ]
    assert heads == sorted(heads)
    assert "0.060 short of supported (the interval ends at −0.050, the threshold is +0.010)" in page
    assert "needs &lt;400 steps&gt;" in page


def test_figures_are_embedded_with_their_captions(page, report):
    images = Page(page).images
    assert len(images) == 3
    for image, name in zip(images, ("final_accuracy", "training_curves", "beta_schedule"), strict=True):
        content = base64.b64decode(image["src"].partition(",")[2])
        same = content == (report[0].root / "figures" / f"{name}.png").read_bytes()
        assert same, name  # not compared in the assertion: pytest would show two pictures' bytes, for an hour
        with Image.open(BytesIO(content)) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
        assert len(image["alt"]) > 60


def test_page_shows_tables_configs_machine_cost_and_files(page, report):
    scores = sha256(report[0].root / "scores.csv")
    for text in (
        "chain-long",
        "0123456789abcdef",
        "beta_base: 1.0",
        "shared by all methods",
        "student_accuracy",
        "310.2",
        "80 CPU-seconds at an assumed 5 to 15 W",
        "These runs did not count FLOPs",
        "paper-qwen3-4b and released-qwen3-4b",
        "snakemake reproduce-all --config scale=fake",
        "reproduced: two honest runs differ by as much in 100% of cases; 6 of 6 scores, 2 of 2 collapse counts, ",
        "3 of 3 claims agree with the reference",
        scores,
    ):
        assert text in page
    assert "results/published" not in page
    assert str(report[0].root) not in page  # nothing of this machine's paths


def test_what_is_not_there_is_said(results):
    make("figures/beta_schedule", results)
    page = make("report", results)[0].read_text(encoding="utf-8")
    for text in ("No verdicts: these results have no", "Time by rule is not known", "Energy is not"):
        assert text in page
    assert 'id="reference"' not in page
    assert 'href="#reference"' not in page


def test_values_are_escaped(report):
    values = context(job_of(report[0]), command="x", reference=report[0].root / "none")
    values["environment"] = [("<b>x</b>", "<script>alert(1)</script>")]
    text = render(values)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_page_is_reproducible(report, page, monkeypatch):
    monkeypatch.setattr("sdpg.artefacts.report.FOLDER", report[2])
    (again,) = make("report", report[0])
    assert (again.read_text(encoding="utf-8") == page) is True


def test_an_unknown_verdict_is_refused(tmp_path):
    assert read_claims(tmp_path) is None
    (tmp_path / "claims.json").write_text(json.dumps([claim("x", verdict="maybe")]))
    with pytest.raises(ValueError, match="claim x has the verdict 'maybe', expected one of supported"):
        read_claims(tmp_path)


def test_verdicts_by_hand():
    claims = [claim("a"), claim("b", role="exploratory"), claim("c", verdict="refuted"), claim("d", verdict="open")]
    found = verdicts([*claims, claim("e", role="exact")], {"cost"})
    assert found["counts"] == [
        ("primary", [("supported", "✓", "yes", 1), ("refuted", "✗", "no", 1), ("open", "?", "open", 1)]),
        ("exploratory", [("supported", "✓", "yes", 1)]),
        ("exact", [("supported", "✓", "yes", 1)]),
    ]
    groups = [(heading, [row["id"] for row in rows]) for heading, rows in found["groups"]]
    assert groups == [("Decided", ["a", "c", "b"]), ("Open", ["d"]), (PROPOSITION, ["e"])]
    assert found["groups"][0][1][0]["link"] is None  # final_accuracy is not among the figures
    assert verdicts([claim("a")], {"final_accuracy"})["groups"][0][1][0]["link"] == "final_accuracy"
    assert verdicts(None, set()) is None


def test_cost_by_hand():
    jobs = [
        {"job": "train/a", "rule": "train", "seconds": 10.0, "cpu": 8.0, "memory": 100.0},
        {"job": "train/b", "rule": "train", "seconds": 20.0, "cpu": 12.0, "memory": 300.0},
        {"job": "scores", "rule": "scores", "seconds": 1.0, "cpu": None, "memory": None},
    ]
    rules = by_rule(jobs)
    assert rules[0] == ("train", 2, 30.0, 20.0, 300.0)
    assert rules[-1] == ("together", 3, 31.0, 20.0, 300.0)
    assert by_rule([]) == []
    used = energy(jobs, gpu=False)
    assert (used["seconds"], used["high"]) == (20.0, pytest.approx(20 * 15 / 3600))
    assert energy(jobs, gpu=True) is None
    frame = pd.DataFrame({"method": "grpo", "seed": [0, 0, 1], "tokens": [5, 6, 7], "seconds": 1.0, "flops": [1e9, 2e9, 5e9]})
    assert by_method(frame) == [("grpo", 9.0, 4e9, 1.5)]
    assert by_method(frame.drop(columns="flops")) == [("grpo", 9.0, None, 1.5)]


def test_environments_that_differ_are_counted():
    infos = [{"git_commit": c, "hardware": {"cores": 2}, "config": {"x": 1}} for c in ("aa", "aa", "bb")]
    assert environment(infos) == [("git_commit", "aa (2 runs); bb (1 runs)"), ("hardware.cores", "2")]


def test_presets_are_compared_with_the_command_lines_own_numbers():
    (one, other, rows), _ = preset_differences()
    assert (one, other) == ("paper-qwen3-4b", "released-qwen3-4b")
    assert "methods.grpo" in " ".join(key for key, _, _ in rows)


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


def test_no_benchmarks_is_fine(results):
    assert benchmarks(results) == []


def test_flatten():
    assert flatten({"ids": list(range(1000))})[0][1].endswith("... (1000 entries)")
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, "x"]}) == [("a.b", "1"), ("a.c", "null"), ("d", "[1, x]")]


def test_missing_figures_are_named(results):
    with pytest.raises(ValueError, match="figures/final_accuracy.png is missing"):
        make("report", results)
    assert not (results.root / "report.html").exists()


def test_figure_captions_come_from_the_picture(results):
    make("figures/beta_schedule", results)
    entry = context(job_of(results), command="x", reference=results.root / "none")["more_figures"][0]
    assert entry["caption"].startswith("Weight of the distillation term")

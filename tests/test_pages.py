"""The numbers of README.md and docs/: every one that a run gave stands in a block, and the blocks are what the files say."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from sdpg.analysis.reference import make_reference
from sdpg.artefacts.sensitivity import CHANGES_COLUMNS, POINTS
from sdpg.experiment import pages
from sdpg.experiment.docs import generate
from sdpg.experiment.pages import BLOCK, BLOCKS, again, fill, first, settings
from sdpg.experiment.pages.read import References
from sdpg.io import ROOT
from tests.analysis.fake_results import diverge, write_problems, write_results
from tests.making import make
from tests.test_standing import MADE

README = (ROOT / "README.md").read_text(encoding="utf-8")
# A share, a decimal or a time: what only a run or a plan can know.
NUMBER = re.compile(r"(?<![\w.])\d*\.\d+\b(?!\.\d)|\b\d[\d,.]*\s?(?:%|(?:min|minutes?|h|hours?|s|seconds|GPU-hours|points)\b)")
LEVELS = ("95%", "5%")  # of intervals and tests
RESULT_PAGES = ("README.md", "docs/results.md", "docs/running.md", "docs/scales.md")
METHODS = ("sdpg-ufkl", "sdpg-urkl", "rpg", "grpo", "rlsd")


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> References:
    """The reference of a fake scale cpu: five methods, three seeds, a run that diverged; without a manifest's jobs."""
    folder = tmp_path_factory.mktemp("pages")
    results = write_results(folder / "cpu", methods=METHODS, tasks=("chain",), lm_eval=False)
    for seed in results.seeds:
        diverge(results, "rlsd", seed, 20, 20)
    results = replace(results)
    for name in ("scores", "stability", "cost", "claims", "tables/main"):
        make(name, results)
    write_problems(results)
    listed = [path.relative_to(results.root).as_posix() for path in results.root.rglob("*") if path.is_file()]
    made = MADE.model_copy(update={"runs": 15, "minutes": 44.6, "cores": 2}).model_dump()
    (results.root / "manifest.json").write_text(
        json.dumps({"scale": "smoke", "files": {}, "jobs": {}, "code": {}, "configs": {}, "git_commit": "0" * 40})
    )
    make_reference(results, folder / "reference" / "cpu", listed, made)
    return References(folder / "reference")


@pytest.fixture(scope="module")
def none(tmp_path_factory) -> References:
    return References(tmp_path_factory.mktemp("none"))


def table(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_everything_generated_is_current():
    assert generate(write=False) == [], "run `sdpg docs` and commit what it writes"


@pytest.mark.parametrize("page", RESULT_PAGES)
def test_no_number_that_a_run_gives_is_typed_by_hand(page):
    text = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    text = re.sub(
        r"```.*?```|`[^`]*`|\(https?://[^)]*\)|arXiv [\d.v]+|Apache-2\.0|Python 3\.\d+( to 3\.\d+)?", "", text, flags=re.DOTALL
    )
    assert not [number for number in NUMBER.findall(text) if number not in LEVELS]


@pytest.mark.parametrize(
    "text", ["0.93", "takes .2 of it", "43 minutes", "2.5 h", "10% of runs", "12 s", "80 GPU-hours", "1.95 x"]
)
def test_what_counts_as_such_a_number(text):
    assert NUMBER.search(text)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_says_so_where_nothing_was_run(none, name):
    text = BLOCKS[name](none, "../")
    assert text.strip()
    if name in ("costs", "scales"):
        assert [cells[-1] for cells in table(text) if "`cpu`" in cells] == ["not measured yet"]
    elif name == "jobs":
        assert "Scale `cpu`: not measured." in text
    elif name != "planned":
        assert "not run yet" in text.lower() or "not computed yet" in text.lower()


def test_six_methods_with_accuracy_health_and_cost(references):
    rows = table(BLOCKS["six methods"](references, ""))
    assert [row[0] for row in rows] == ["SDPG-UFKL", "SDPG-URKL", "RPG (no distillation)", "GRPO", "RLSD", "OPCD"]
    found = {row[0]: row[1:] for row in rows}
    main = references.get("cpu").main.set_index("method")
    assert found["GRPO"][0].startswith(f"{main.loc['grpo', 'healthy']:.3f} [") and found["GRPO"][1] == "3 of 3"
    end = f"{main.loc['rlsd', 'last']:.3f} at the end, all runs; none is healthy"
    assert found["RLSD"] == [end, "0 of 3", "all ended early"]
    assert found["OPCD"] == ["not run"] * 3


def test_the_verdicts_of_the_primary_claims_are_counted_in_one_line(references):
    text = BLOCKS["verdicts in a line"](references, "")
    claims = references.get("cpu").primary
    assert (
        "\n" not in text
        and text.startswith("Of the primary claims of the paper: at `cpu` ")
        and text.endswith("Not run yet: `lm`.")
    )
    assert len(claims) == sum(int(count) for count in re.findall(r"(\d+) (?:supported|refuted|open|not)", text))


def test_the_leaderboard_has_every_method_in_the_order_of_what_all_runs_end_at(references):
    rows = table(BLOCKS["leaderboard"](references, "../"))
    found = {row[0]: row[1:] for row in rows}
    assert len(rows) == len(found) == len(METHODS)
    assert found["RLSD"][1:4] == ["3 of 3 [0.29, 1.00]", "none is healthy", "all ended early"]
    ends = [float(row[1].split()[0]) for row in rows]
    assert ends == sorted(ends, reverse=True)


def test_verdicts_stand_with_their_preconditions_and_the_paper_s_curves_apart(references):
    text = BLOCKS["verdicts"](references, "../")
    claims = {row["id"]: row for row in references.get("cpu").claims}
    assert all(f"| {name} | {row['claim']}" in text for name, row in claims.items() if row["role"] != "published")
    assert "room above grpo's accuracy" in text and " needed" in text
    assert not any(f"| {name} |" in text for name in ("P1", "P5"))
    curves = table(BLOCKS["the paper's curves"](references, "../"))
    assert [row[0] for row in curves] == ["P1", "P2", "P3", "P4", "P5"]
    assert curves[2][3].endswith("+100 tokens")


def test_measured_minutes_stand_where_there_is_a_reference(references):
    rows = {row[1]: row[-1] for row in table(BLOCKS["costs"](references, ""))}
    assert rows["`cpu`"] == "45 min, measured" and rows["`lm`"] == "not measured yet"
    assert rows["`qwen3-4b`"].endswith("planned; nobody has run it")


def test_a_reference_of_ones_own_scale_stands_in_the_table_and_each_scale_once(references, tmp_path):
    for name in ("mine", "gsm8k"):
        shutil.copytree(references.get("cpu").folder, tmp_path / name)
    rows = table(BLOCKS["scales"](References(tmp_path), ""))
    assert [row[1:] for row in rows if row[0] in ("`mine`", "`gsm8k`")] == [["15", "45 min, measured"]] * 2


@pytest.mark.parametrize(
    "since, said", [({}, "code and config are still those"), ({"code": ["train"]}, "**stale: changed since: code of train**")]
)
def test_the_pages_say_whether_the_reference_is_stale(references, since, said):
    of = references.get("cpu")
    of.__dict__["standing"] = of.standing._replace(changed=since)
    line = first.how(of)
    assert line.startswith(
        "`cpu`: 15 runs by `snakemake reproduce-all --config scale=smoke` at commit `012345678`, 2026-01-02, 45 minutes"
    )
    assert said in line and line.endswith(".")


def test_a_second_run_is_compared_claim_by_claim(references, tmp_path):
    assert "Scale `cpu-again`: not run yet" in again.second_run(references, "")
    for scale in ("cpu", "cpu-again"):
        shutil.copytree(references.get("cpu").folder, tmp_path / scale)
    assert "ones 0 have another one." in again.second_run(References(tmp_path), "")
    path = tmp_path / "cpu-again" / "claims.json"
    claims = json.loads(path.read_text())
    primary, other = (next(row for row in claims if row["role"] == role) for role in ("primary", "exploratory"))
    was = other["verdict"]
    primary["verdict"] = other["verdict"] = "another"
    path.write_text(json.dumps(claims))
    text, rows = again.second_run(References(tmp_path), ""), [row for row in claims if row["role"] == "primary"]
    assert f"Of {len(rows)} primary claims **{len(rows) - 1} have the same verdict, " in text
    assert f"1 have another one: {other['id']} is {was}, in the second run another." in text
    assert [cells[0] for cells in table(text) if cells[3] == "**another**"] == [primary["id"]] and len(table(text)) == len(rows)


def test_verdicts_at_other_settings_are_said_in_words_and_the_primary_ones_in_a_table(references, tmp_path):
    assert "Scale `cpu-sensitivity`: not run yet" in settings.other_settings(references, "")
    folder = tmp_path / "cpu-sensitivity"
    shutil.copytree(references.get("cpu").folder, folder)
    same = {
        "setting": "train.lr",
        "claim": "1a",
        "role": "primary",
        "comparison": "A - B",
        "what": "accuracy",
        "unit": "points",
    }
    changes = {"conclusion": "changes", "start": "0.0006", "end": "0.0003", "difference": -0.2, "low": -0.3, "high": -0.1}
    rows = [
        same | {"refuted": "0.0003, 0.0006", "conclusion": "does not change"},
        same
        | changes
        | {"setting": "beta_base", "claim": "2a", "supported": "3", "refuted": "0.1", "start": "3", "end": "0.1"},
        same | {"claim": "9z", "role": "exploratory", "not_decided": "0.0003, 0.0006", "conclusion": "not decided"},
    ]
    pd.DataFrame(rows, columns=CHANGES_COLUMNS).to_csv(folder / "sensitivity_changes.csv", index=False)
    at = {"setting": "train.lr", "claim": "1a", "verdict": "refuted", "effect": 0.01, "low": -0.02, "high": 0.04, "runs": 5}
    nothing = {"effect": None, "low": None, "high": None, "verdict": "open"}
    points = [
        at | {"value": 0.0003, "own": 1, "first_collapsed": 0, "second_collapsed": 0},
        at | {"value": 0.0006, "own": 0, "first_collapsed": 1, "second_collapsed": 4} | nothing,
        at | {"setting": "beta_base", "claim": "2a", "value": 3, "own": 0, "verdict": "supported", "first_collapsed": 0},
    ]
    pd.DataFrame(points, columns=POINTS).to_csv(folder / "sensitivity.csv", index=False)
    found = References(tmp_path)
    text = settings.other_settings(found, "../")
    assert "cpu-sensitivity" not in found.scales  # it has no leaderboard
    assert "does not change: 1a; not decided: 9z." in text and "changes: 2a (supported at 3, refuted at 0.1)." in text
    assert "(../results/reference/cpu-sensitivity/figures/sensitivity.png)" in text and "of all 3 of" in text
    assert "| claim, by learning rate | 3e-4, the common one | 6e-4 | so it |" in text and "| claim, by β | 3 | so it |" in text
    first, _, _, second = (row for row in table(text))
    assert first[1:3] == ["refuted +0.010 [−0.020, +0.040]", "open –; 1 and 4 of 5 collapsed"]
    assert second[1] == "supported +0.010 [−0.020, +0.040]" and second[2].startswith("**changes** from 3 to 0.1 by")


def test_a_reference_that_was_made_at_two_commits_names_each(references, monkeypatch):
    of = references.get("cpu")
    monkeypatch.setitem(of.__dict__, "standing", of.standing._replace(commits=["0" * 40, "1" * 40]))
    assert " at commits `000000000` and `111111111`, " in first.how(of)


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!-- results: nothing -->\n<!-- /results -->\n", "page.md: there is no block 'nothing'; choose one of picture, "),
        ("<!-- results: made -->\n", "page.md: a block .* needs its own end"),
        ("<!-- results: made -->\n<!-- results: made -->\n<!-- /results -->\n", "page.md: a block .* needs its own end"),
    ],
)
def test_a_block_that_is_not_there_or_not_closed_is_refused(none, tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=message):
        fill(tmp_path / "page.md", none)


def test_links_of_a_page_in_a_folder_lead_up(references, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- results: six methods -->\nold\n<!-- /results -->\nafter\n")
    text = fill(page, references)
    assert "(../docs/results.md)" in text and "old" not in text
    page.write_text(text)
    assert fill(page, references) == text and text.startswith("before\n") and text.endswith("after\n")


def test_the_readme_is_short_and_opens_with_the_results():
    assert len(README.splitlines()) < 150
    order = ["# SDPG", "<!-- results: picture -->", "<!-- results: six methods -->", "<!-- results: verdicts in a line -->"]
    order += [
        "make reproduce   # sets",
        "<!-- results: made -->",
        "## Words",
        "## What happens",
        "## What it costs",
        "## Ten minutes",
    ]
    places = [README.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize("word", ["gate", "anchor", "UFKL", "privileged context", "schedule", "healthy", "RPG", "OPCD"])
def test_words_are_said_before_they_are_used(word):
    words = README.index("## Words")
    prose = BLOCK.sub("", README[:words])
    assert word not in prose and word in README[words : README.index("## What happens")]


def test_what_is_not_run_is_said():
    assert re.search(r"\*\*not\*\* been run: .*GPU.*paper's own models.*hub.*W&B", README)
    assert "nobody has run it" in README


def test_the_workflow_s_picture_has_eight_boxes():
    picture = (ROOT / "docs" / "images" / "workflow.svg").read_text(encoding="utf-8")
    assert len(re.findall(r'font-weight="bold"[^>]*>(\d) ', picture)) == 8
    assert 'fill="#fff"/>' in picture  # its own ground: it is read on a dark page too


def test_the_log_has_dates_newest_first():
    heads = re.findall(r"^## (.*)$", (ROOT / "docs" / "log.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    dates = [re.fullmatch(r".+, (\d{4}-\d{2}-\d{2})", head)[1] for head in heads]
    assert len(dates) > 10 and dates == sorted(dates, reverse=True)

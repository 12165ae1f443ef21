"""The pages of docs/methods/ agree with the code, the config files and the measured costs."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

import baselines
from benchmarks.cost_in_docs import fill
from benchmarks.method_cost import summarise, table
from sdpg.config import METHODS, parse_value

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "methods"
PAGES = sorted(FOLDER.glob("*.md"))
# A new method may be without a page, and without a measured cost, until someone writes and measures them.
DOCUMENTED = [page.stem for page in PAGES if page.stem in baselines.REGISTRY]
TESTS = {
    node.name
    for path in ROOT.glob("tests/**/test_*.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
}
FILES = {path.stem: parse_value(path.read_text(encoding="utf-8"), path.name) for path in METHODS.glob("*.yaml")}
REPORT = json.loads((ROOT / "benchmarks" / "results" / "method_cost.json").read_text(encoding="utf-8"))


def read(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str, first: str) -> list[list[str]]:
    """Cells of the table whose first column is headed `first`, without its head."""
    lines = text.split("\n")
    (start,) = (i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def costs(text: str) -> dict[str, str]:
    """Relative costs by method; none on a page of methods whose cost is not measured."""
    if "\n| method |" not in text:
        return {}
    return {re.search(r"`([\w.-]+)`", cells[0])[1]: cells[-1] for cells in rows(text, "method")}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_field_table_of_a_page_is_the_dataclass(name):
    page = {cells[0].strip("`"): ast.literal_eval(cells[1].strip("`")) for cells in rows(read(name), "field")}
    assert page == {field.name: field.default for field in dataclasses.fields(baselines.REGISTRY[name])}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_config_table_of_a_page_is_the_files(name):
    page = {}
    for cells in rows(read(name), "file in `config/methods/`"):
        pairs = (pair.split(": ") for pair in re.findall(r"`([^`]+)`", cells[1]))
        page[cells[0].strip("`")] = {key: parse_value(value, name) for key, value in pairs}
    files = {}
    for file, block in FILES.items():
        if block["algorithm"] == name:
            train = {f"train.{key}": value for key, value in block.get("train", {}).items()}
            files[file] = {key: value for key, value in block.items() if key not in ("algorithm", "train")} | train
    assert page == files


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_page_states_the_costs_of_its_methods(name):
    measured = {file for file, block in FILES.items() if block["algorithm"] == name and file in REPORT["methods"]}
    assert set(costs(read(name))) == measured


def test_relative_costs_are_the_measured_ones():
    index = costs(read("README"))
    assert set(index) <= set(FILES)
    assert index == {name: f"{method['ratio']:.2f}" for name, method in REPORT["methods"].items()}
    for page in PAGES:
        for method, cost in costs(page.read_text(encoding="utf-8")).items():
            assert cost == index[method], f"{page.name} and README.md differ in the cost of {method}"


def test_the_table_of_the_benchmark_is_its_json():
    text = (ROOT / "benchmarks" / "results" / "method_cost.md").read_text(encoding="utf-8")
    assert text == table(REPORT)


def test_the_index_says_what_the_methods_ask_for():
    for cells in rows(read("README"), "method") + rows(read("README"), "without time"):
        method = re.search(r"`([\w.-]+)`", cells[0])[1]
        block = {key: value for key, value in FILES[method].items() if key not in ("algorithm", "train")}
        needs = baselines.make(FILES[method]["algorithm"], **block).needs(200)
        assert cells[1].lower() == (needs.teacher or "none"), method
        passes = cells[4].split(", ")
        assert ("R" in passes) == needs.reference, method
        assert any(part.startswith("T ") for part in passes) == (needs.teacher is not None), method
        held = {"+ reference": needs.reference, "+ initial model": needs.teacher == "frozen"}
        expected = [text for text, is_held in (held | {"+ average": needs.teacher == "ema"}).items() if is_held]
        assert cells[5] == ", ".join(expected or ["nothing more"]), method


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_tests_and_metrics_named_on_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (FOLDER / link).exists(), link
    assert set(re.findall(r"`(test_\w+)`", text)) <= TESTS
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(loss_\w+|\w+_fraction|kl_ref|sampled_tokens)`", text):
        assert f"`{name}`" in metrics, name


def test_filling_in_costs_changes_only_the_tables_of_costs():
    text = "| field | x |\n|---|---|\n| `a` | 1 |\n\n| method | relative cost |\n|---|---|\n| [`a`](a.md) | 0 |\n\nend\n"
    assert fill(text, {"a": 1.237}) == text.replace("| [`a`](a.md) | 0 |", "| [`a`](a.md) | 1.24 |")
    with pytest.raises(KeyError):
        fill(text, {})


def test_a_ratio_is_the_median_over_rounds_so_that_a_slow_round_cancels():
    def row(seconds):
        phases = ("rollout", "verify", "reference", "teacher", "train", "optimizer", "sync")
        facts = ("tokens", "sampled_tokens", "gate_fraction", "teacher_fraction")
        return {"seconds": seconds, **{f"seconds_{phase}": 0.01 for phase in phases}, **dict.fromkeys(facts, 1)}

    speed = [1, 5, 1]  # the machine is five times slower in the second round
    data = {name: [[row(factor * x) for _ in range(3)] for x in speed] for name, factor in (("grpo", 0.2), ("b", 0.3))}
    result = summarise(data)
    assert result["grpo"]["ratio"] == 1
    assert result["b"]["ratio"] == pytest.approx(1.5)
    assert result["b"]["ratio_range"] == [1.5, 1.5]

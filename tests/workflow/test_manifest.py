"""manifest.json, made from Snakemake's own records, and what `make verify` finds wrong afterwards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from sdpg.artefacts.manifest import artefacts, make_manifest
from sdpg.io import sha256
from sdpg.provenance.verify import Mismatch, summary
from tests.workflow.conftest import copy_project

pytestmark = pytest.mark.slow


class Copy:
    """A finished project, with its manifest."""

    def __init__(self, finished, folder):
        self.folder = copy_project(folder / "copy", finished.folder).folder
        shutil.copytree(finished.folder / "results", self.folder / "results", dirs_exist_ok=True)
        self.results = self.folder / "results" / "smoke"
        checkpoint = self.results / "runs" / "grpo" / "seed0" / "checkpoints" / "step000002"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_text("weights")
        (self.results / "figures" / "left_over.png").write_text("of a figure that is gone")
        done = self.script("make", "manifest")
        assert done.returncode == 0, done.stderr
        self.manifest = json.loads((self.results / "manifest.json").read_text())

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "sdpg", name, *arguments, "--scale", "smoke"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def verify(self, *arguments: str) -> dict[str, list[str]]:
        """What does not match, by its heading."""
        done = self.script("verify", *arguments)
        assert not done.stderr
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            if line.endswith(":") and not line.startswith(" "):
                found[line.removesuffix(":")] = []
            elif line.startswith("  "):
                found[list(found)[-1]].append(re.sub(r" +", " ", line.strip()))
        assert done.returncode == (1 if any(found.values()) else 0), done.stdout
        return {heading: rows for heading, rows in found.items() if rows}


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    return Copy(finished, tmp_path_factory.mktemp("manifest"))


def test_every_file_has_its_hash_its_rule_and_its_inputs(copy):
    files, jobs = copy.manifest["files"], copy.manifest["jobs"]
    listed = {path.as_posix() for path in artefacts(copy.results)}
    assert listed - set(files) >= {"figures/left_over.png"}  # nothing recorded makes it
    assert all(sha256(copy.results / file) == entry["sha256"] for file, entry in files.items())
    rules = {file: jobs[entry["job"]]["stage"] for file, entry in files.items()}
    assert rules["runs/grpo/seed0/metrics.jsonl"] == "train"
    assert rules["runs/grpo/seed0/checkpoints/step000002/model.safetensors"] == "train"  # declared by no rule
    assert rules["model/base0.json"] == "base_model"
    assert rules["intervals.csv"] == "scores"
    report = jobs["report"]
    assert report["inputs"]["scores.csv"] == files["scores.csv"]["sha256"]
    assert any(entry.startswith("sdpg/artefacts/report") for entry in copy.manifest["code"][report["code"]])
    train = copy.manifest["configs"][jobs["train/grpo-seed0"]["config"]]
    assert (train["method"], train["train"]["steps"]) == ("grpo", 4)
    assert copy.manifest["command"] == "snakemake reproduce-all --config scale=smoke"


def test_the_workflow_makes_it_last(finished):
    summary = finished.snakemake("--detailed-summary", "--config", "scale=smoke")
    assert "results/smoke/manifest.json" in summary
    assert finished.planned("--config", "scale=smoke") == set()


def test_all_is_well(copy):
    assert copy.verify() == {}


def test_a_changed_byte_and_a_missing_file_are_named(copy):
    path = copy.results / "figures" / "training_curves.png"
    before = path.read_bytes()
    table = copy.results / "tables" / "main.md"
    table.rename(table.with_suffix(".away"))
    path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    found = copy.verify()
    path.write_bytes(before)
    table.with_suffix(".away").rename(table)
    assert found.pop("the file is not there") == ["tables/main.md"]
    (changed,) = found.pop("the file is not the one that was made")
    assert changed.startswith("figures/training_curves.png sha256 ")
    assert found == {}


def test_an_edited_source_file_is_named_with_what_it_made(copy):
    path = copy.folder / "baselines" / "grpo.py"
    before = path.read_text()
    path.write_text(before + "# an edited comment\n")
    assert copy.verify() == {}
    path.write_text(before + "EDITED = True\n")
    found = copy.verify()
    path.write_text(before)
    (row,) = found.pop("the code that made it has changed since")
    assert re.match(r"train/grpo-seed0 \(\d+ files\) baselines/grpo.py: was \w{12}, is \w{12}$", row)
    assert found == {}


def test_a_changed_config_is_named_by_its_key(copy):
    path = copy.folder / "config" / "scales" / "smoke.yaml"
    before = path.read_text()
    path.write_text(before.replace("grpo: {}", "grpo: {kl_coef: 0.5}"))
    found = copy.verify()
    path.write_text(before)
    (row,) = found.pop("the config that it was made with has changed since")
    assert row.startswith("train/grpo-seed0 (")
    assert row.endswith("algorithm.kl_coef: was '-', is 0.5") or "algorithm.kl_coef" in row
    assert found == {}
    (heading,) = copy.verify("--set", "seeds=[0,1]")
    assert heading == "the config that it was made with has changed since"


def test_another_version_of_an_input_is_named(copy):
    path = copy.folder / "results" / "published" / "curves.csv"
    before = path.read_text()
    path.write_text(before + "\n")
    found = copy.verify()
    path.write_text(before)
    (heading,) = found
    assert heading == "made from another version of an input"
    assert all("results/published/curves.csv: was" in row for row in found[heading])


def test_results_that_do_not_match_become_no_reference(copy):
    path = copy.results / "scores.csv"
    before = path.read_text()
    path.write_text(before + "x")
    done = copy.script("reference")
    path.write_text(before)
    assert done.returncode == 1
    assert "scores.csv" in done.stdout
    assert done.stdout.endswith("The reference stays as it is.\n")
    assert not (copy.folder / "results" / "reference").exists()


def test_without_records_or_manifest_it_says_what_to_do(tmp_path, copy):
    with pytest.raises(ValueError, match=r"no record of results/smoke/other.csv; make it with"):
        make_manifest(copy.results, ["results/smoke/other.csv"], copy.folder / "results" / ".snakemake.db", {})
    with pytest.raises(ValueError, match="records of what it ran"):
        make_manifest(copy.results, [], tmp_path / "none.db", {})
    done = copy.script("verify", "--results", str(tmp_path))
    assert done.returncode == 2
    assert "manifest.json is missing; `make reproduce`" in done.stderr


def test_what_holds_of_many_jobs_is_said_once():
    """After an edit of the trainer `make verify` printed a line for each of 90 runs and each of 14 files."""
    runs = [f"train/rpg-seed{i}" for i in range(6)]
    jobs = dict.fromkeys([*runs, "evaluate/grpo-seed0", "evaluate/grpo-seed1", "cost"])
    code = [Mismatch(f"{name} (2 files)", "code", f"{file}: was a, is b") for name in runs for file in ("x.py", "y.py")]
    config = [Mismatch(f"{name} (2 files)", "config", "train.lr: was 1, is 2") for name in runs[1:]]
    gone = [Mismatch(f"figures/{i}.png", "missing", "") for i in range(5)]
    found = [*gone, *code, Mismatch("cost (1 file)", "code", "x.py: was a, is b"), *config]
    lines = summary(found, {"scale": "mine", "files": {}, "jobs": jobs}).splitlines()
    assert [line for line in lines if line.startswith(" ")] == [
        *(f"  figures/{i}.png" for i in range(5)),
        "  all 6 jobs of train",
        "      x.py: was a, is b",
        "      y.py: was a, is b",
        "  cost (1 file)              x.py: was a, is b",
        f"  5 alike: {', '.join(f'{name} (2 files)' for name in runs[1:5])},",
        "    train/rpg-seed5 (2 files)",
        "      train.lr: was 1, is 2",
    ]

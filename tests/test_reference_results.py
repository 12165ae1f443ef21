"""What is committed under results/reference: small, whole, and the files that its manifest speaks of."""

from pathlib import Path

import pandas as pd
import pytest

from sdpg.analysis.outcome import CURVES, IDENTITY
from sdpg.analysis.reference import LARGEST
from sdpg.artefacts.manifest import read_manifest
from sdpg.io import read_json, sha256
from sdpg.provenance.made import read_made

EARLIER = "problems.csv"  # of a reference made before; now it is CURVES
FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "results" / "reference").glob("*/manifest.json"))


@pytest.mark.skipif(not FOLDERS, reason="no reference is committed")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_committed_reference_is_small_and_matches_its_manifest(folder):
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in files.values()) <= LARGEST
    assert not [name for name in files if name.endswith((".parquet", ".safetensors"))]
    manifest = read_manifest(folder)
    own = {"manifest.json", IDENTITY}
    assert own < set(files)
    for name, path in files.items():
        assert name in {*own, CURVES, EARLIER} or sha256(path) == manifest["files"][name]["sha256"], name
    scores = pd.read_csv(folder / "scores.csv")
    scores = scores[scores["metric"] == read_json(folder / IDENTITY)["accuracy"]]
    assert len(scores) > 0 and not scores.duplicated(["method", "seed", "task", "step"]).any()


@pytest.mark.skipif(not FOLDERS, reason="no reference is committed")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_committed_reference_says_how_it_was_made(folder):
    if (folder / EARLIER).is_file():
        pytest.skip("of an earlier form; the pages say that it is not run by the present rules")
    told = read_made(folder)
    assert told.commits and not [commit for commit in told.commits if commit.endswith("-dirty")]
    assert told.command.startswith("snakemake reproduce-all") and told.date and told.minutes and told.cores and told.processors
    assert told.runs == told.rules["train_run"].count > 0
    manifest = read_manifest(folder)
    assert all(manifest["code"][job["code"]] and job["config"] in manifest["configs"] for job in manifest["jobs"].values())

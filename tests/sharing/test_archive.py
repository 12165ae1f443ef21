"""Results as one file, and the comparison with someone's."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sdpg.analysis.outcome import CLAIMS, CURVES, IDENTITY
from sdpg.analysis.reference import make_reference
from sdpg.sharing import unpack as reading
from sdpg.sharing.archive import README, SUMS, pack
from sdpg.sharing.compare import compare_with
from sdpg.sharing.unpack import unpack

ROOT = Path(__file__).resolve().parents[2]


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


SAME = "reproduced: two honest runs differ by as much in 100% of cases; 4 of 4 scores, 3 of 3 claims agree with "


@pytest.fixture
def packed(finished, tmp_path):
    results, config, _ = finished
    pack(results, config, tmp_path / "fake.zip")
    return tmp_path / "fake.zip"


def test_it_has_results_generations_and_manifest_and_no_weights(packed, finished):
    results, _, _ = finished
    inner = [name.removeprefix("fake/") for name in names(packed)]
    assert inner[:5] == [README, SUMS, "manifest.json", IDENTITY, CURVES]
    assert inner[5:] == sorted(inner[5:])
    assert {"eval/grpo/seed1/chain.parquet", "runs/grpo/seed0/metrics.jsonl", "scores.csv", CLAIMS, "model/base0.json"} <= set(
        inner
    )
    assert "runs/grpo/seed0/checkpoints/checkpoints.json" in inner
    with zipfile.ZipFile(packed) as archive:
        assert pack(*finished[:2], packed.with_name("again.zip")).unpacked == sum(info.file_size for info in archive.infolist())
    assert not [name for name in inner if "safetensors" in name or "of-this-machine" in name or "log" in name.split("/")[0]]
    assert "left_over.csv" not in inner
    with zipfile.ZipFile(packed) as archive:
        readme, sums = (archive.read(f"fake/{name}").decode() for name in (README, SUMS))
        hashes = {line[66:]: line[:64] for line in sums.splitlines()}
        assert set(hashes) == set(inner) - {SUMS}
        assert all(hashlib.sha256(archive.read(f"fake/{name}")).hexdigest() == digest for name, digest in hashes.items())
        assert archive.read("fake/scores.csv") == (results.root / "scores.csv").read_bytes()
    for said in ("sdpg-ufkl, grpo", "snakemake x", "Left out: 16 files of checkpoints.", "2606.04036", "make compare"):
        assert said in readme
    assert packed.with_name("fake.zip.sha256").read_text().split() == [
        hashlib.sha256(packed.read_bytes()).hexdigest(),
        "fake.zip",
    ]


def test_the_same_results_give_the_same_bytes_whatever_the_dates(packed, finished, tmp_path):
    results, config, _ = finished
    for path in results.root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 10**9))
            path.chmod(0o600)
    said = str(pack(results, config, tmp_path / "again.zip"))
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert "files, " in said
    assert " kB (" in said
    assert hashlib.sha256(packed.read_bytes()).hexdigest() in said


@pytest.mark.parametrize(("which", "steps"), [("none", set()), ("last", {"step000004"}), ("all", {"step000000", "step000004"})])
def test_checkpoints_are_packed_as_asked(finished, tmp_path, which, steps):
    results, config, _ = finished
    made = pack(results, config, tmp_path / "x.zip", checkpoints=which)
    weights = [name.split("/") for name in names(made.path) if name.endswith("model.safetensors")]
    assert {parts[-2] for parts in weights} == steps
    assert len(weights) == 4 * len(steps)
    assert made.left_out["base models"] == 1


def test_checkpoints_that_are_gone_are_no_hindrance_to_packing_without(finished, tmp_path):
    results, config, _ = finished
    shutil.rmtree(results.run_dir("grpo", 0) / "checkpoints" / "step000000")
    pack(results, config, tmp_path / "x.zip", checkpoints="last")
    with pytest.raises(ValueError, match="step000000/config.json: the file is not there"):
        pack(results, config, tmp_path / "y.zip", checkpoints="all")


def test_results_that_do_not_match_their_manifest_are_refused_unless_asked(finished, tmp_path):
    results, config, _ = finished
    (results.root / "scores.csv").write_text("other")
    (results.run_dir("grpo", 0) / "metrics.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"does not match its manifest \(.*metrics.jsonl: the file is not there; .*--force"
    ) as error:
        pack(results, config, tmp_path / "x.zip")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.zip*"))
    made = pack(results, config, tmp_path / "x.zip", force=True)
    assert "does not match the manifest: scores.csv (the file is not the one that was made)" in made.notes
    with zipfile.ZipFile(made.path) as archive:
        assert archive.read("fake/scores.csv") == b"other"
        assert "Note: does not match the manifest: scores.csv" in archive.read(f"fake/{README}").decode()


def test_files_made_from_another_version_of_an_input_are_refused_and_changed_code_is_said(finished, tmp_path):
    results, config, _ = finished
    path = results.root / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["code"]["c"] = ["baselines/grpo.py 000000000000"]
    manifest["jobs"]["scores"]["inputs"]["not/in/the/results.csv"] = "0" * 64
    path.write_text(json.dumps(manifest))
    made = pack(results, config, tmp_path / "x.zip")
    assert any("of 1 jobs: the code that made it has changed since" in note for note in made.notes)
    manifest["jobs"]["scores"]["inputs"]["data/eval/chain.parquet"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="made from another version of an input"):
        pack(results, config, tmp_path / "y.zip")


def test_nothing_outside_the_results_is_packed(finished, tmp_path):
    results, config, _ = finished
    secret = tmp_path / "secret"
    (results.root / "claims.md").symlink_to(secret)
    secret.write_text("x")
    path = results.root / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["claims.md"] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest(), "job": "scores"}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"claims.md is a link out of .*fake, and is not packed"):
        pack(results, config, tmp_path / "x.zip")
    manifest["files"]["../../secret"] = manifest["files"].pop("claims.md")
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"secret is a link out of"):
        pack(results, config, tmp_path / "x.zip")
    assert not list(tmp_path.glob("*.zip*"))


def test_a_run_is_compared_with_an_archive_as_with_the_reference(packed, finished, tmp_path):
    results, _, _ = finished
    found = compare_with(results, packed)
    assert found.headline == SAME + "fake.zip"
    assert found.rows["difference"].abs().max() == 0
    for seed in results.seeds:
        path = results.eval_dir("grpo", seed) / "chain.parquet"
        pd.read_parquet(path).assign(correct=False).to_parquet(path)
    rows = compare_with(results, packed).rows
    assert set(rows[(rows["difference"] != 0) & (rows["kind"] != "all")]["item"]) == {"grpo"}
    with pytest.raises(ValueError, match="--reference and --with: .* leave one out"):
        compare_with(results, packed, tmp_path)


def test_without_results_the_archive_is_compared_with_the_reference(packed, finished, tmp_path):
    results, _, _ = finished
    make_reference(results, tmp_path / "reference", ["claims.json"])
    elsewhere = replace(results, root=tmp_path / "nothing", scale="other")
    found = compare_with(elsewhere, packed, tmp_path / "reference")
    assert found.headline == SAME + "the reference"
    assert found.notes[0] == "fake.zip is of scale fake, not other"
    assert "there are no results in" in found.notes[1]
    with pytest.raises(ValueError, match="there is nothing to compare fake.zip with: no results in .*, no reference in"):
        compare_with(elsewhere, packed, tmp_path / "none")


def test_the_commands(finished, tmp_path):
    results, _, scale = finished
    given = ["--scale", str(scale), "--results", str(results.root)]

    def sdpg(*words):
        command = [sys.executable, "-m", "sdpg", *words, *given]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    done = sdpg("archive")
    file = results.root.parent / "fake.zip"
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{file}: ")
    done = sdpg("compare", "--with", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == SAME + "fake.zip"
    for words, said in (
        (("archive", "--to", "x.tar"), "--to: got x.tar, expected a file that ends in .zip"),
        (("archive", "--checkpoints", "some"), "--checkpoints: got 'some', expected none, last or all"),
        (("compare", "--with", str(scale)), "fake.yaml is not read: it is no zip file, or not all of one"),
        (("compare", "--with", "nowhere.zip"), "nowhere.zip is not there; expected a .zip of `sdpg archive`"),
    ):
        done = sdpg(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr


# Archives that are not ours. Each: what is done to the good one -> what is said.


def rewritten(good: Path, change) -> bytes:
    """The archive's entries, as (ZipInfo, bytes), after a change."""
    with zipfile.ZipFile(good) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in change(entries):
            archive.writestr(info, data)
    return out.getvalue()


def adding(name: str, data: bytes = b"x", mode: int = stat.S_IFREG | 0o644):
    def change(entries):
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        return [*entries, (info, data)]

    return change


def replacing(name: str, data: bytes, *, summed: bool = True):
    """Another content of a file, with the sums that it has then."""

    def change(entries):
        found = {info.filename.removeprefix("fake/"): (info, old) for info, old in entries}
        found[name] = (found[name][0], data)
        if summed:
            sums = [f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, (_, d) in found.items() if n != SUMS]
            found[SUMS] = (found[SUMS][0], "".join(sums).encode())
        return found.values()

    return change


def without(*gone: str):
    return lambda entries: [(info, data) for info, data in entries if info.filename.removeprefix("fake/") not in gone]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (adding("fake/../../evil"), "would lie outside its folder"),
        (adding("../evil"), "would lie outside its folder"),
        (adding("/etc/evil"), "no path of a file|outside its folder"),
        (adding("C:/evil"), "would lie outside its folder"),
        (adding("fake\\..\\evil"), "is no path of a file"),
        (adding("fake/a\x1b[2Jb"), "is no path of a file"),
        (adding("fake//x"), "is no path of a file"),
        (adding(""), "would lie outside its folder"),
        (adding("fake/./x"), "is no path of a file"),
        (adding("evil"), "would lie outside its folder"),
        (adding("other/x"), "expected one folder"),
        (adding("fake/link", b"/etc/passwd", stat.S_IFLNK | 0o777), "is a link or no ordinary file"),
        (adding("fake/pipe", b"", stat.S_IFIFO | 0o666), "is a link or no ordinary file"),
        (adding("fake/bomb", bytes(3 * 2**20)), r"would be 3145728 bytes out of \d+"),
        (adding("fake/scores.csv"), "is there twice"),
        (without(SUMS), "was not made by `sdpg archive`"),
        (without(IDENTITY), "has no reference.json"),
        (without(CURVES), "has no accuracy.csv"),
        (replacing(CURVES, b"method\n", summed=False), "accuracy.csv is not what its SHA256SUMS says"),
        (replacing(SUMS, b"x\n", summed=False), "has a line without a hash"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_is_refused_and_nothing_is_written(packed, tmp_path, change, said):
    (tmp_path / "evil.zip").write_bytes(rewritten(packed, change))
    folder = tmp_path / "deep" / "here"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"evil.zip is not read: .*({said})") as error:
        unpack(tmp_path / "evil.zip", folder)
    assert str(error.value).isprintable()
    assert {path.name for path in tmp_path.rglob("*evil*")} == {"evil.zip"}
    assert {path.name for path in folder.iterdir()} <= {IDENTITY, CURVES, CLAIMS}


def test_an_archive_with_folders_listed_is_read(packed, tmp_path):
    def folders(entries):
        return [(zipfile.ZipInfo("fake/"), b""), (zipfile.ZipInfo("fake/eval/"), b""), *entries]

    (tmp_path / "x.zip").write_bytes(rewritten(packed, folders))
    assert unpack(tmp_path / "x.zip", tmp_path) == "fake"


def test_too_many_files_are_refused_before_they_are_listed(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_FILES", 10)
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZipFile", None)
        with pytest.raises(ValueError, match=r"says that it has \d+ files, expected at most 10"):
            unpack(packed, tmp_path)
    data = bytearray(packed.read_bytes())
    at = data.rindex(reading.END)
    data[at + 8 : at + 12] = struct.pack("<HH", 1, 1)  # a lie
    packed.write_bytes(data)
    with pytest.raises(ValueError, match=r"it has \d+ files, expected at most 10"):
        unpack(packed, tmp_path)


def test_a_file_that_is_too_large_to_read_is_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_READ", 100)
    with pytest.raises(ValueError, match="has .* bytes, expected at most 100"):
        unpack(packed, tmp_path)


def test_any_damage_is_refused_or_does_not_matter(packed, tmp_path):
    good = packed.read_bytes()
    at = good.rindex(reading.END)
    path = tmp_path / "x.zip"
    for place in [*range(0, 400, 7), *range(at - 300, len(good), 3)]:
        for value in (0, 0xFF, good[place] ^ 1):
            path.write_bytes(good[:place] + bytes([value]) + good[place + 1 :])
            try:
                unpack(path, tmp_path)
            except ValueError as error:
                assert "\n" not in str(error)
    for end in (0, 10, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:end])
        with pytest.raises(ValueError, match="it is no zip file, or not all of one"):
            unpack(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (IDENTITY, b"[]", "reference.json, 'all of it': got"),
        (IDENTITY, b'{"accuracy": "mean@8", "problems": {"chain": "x"}}', "problems.chain"),
        (IDENTITY, b"[" * 100_000, "is not what this project writes"),
        (CLAIMS, b'[{"id": "a\\u001b[2J", "verdict": "x"}]', "no name has control characters"),
        (CLAIMS, b'[{"id": "a", "verdict": "x", "effect": "big"}]', "effect"),
        (CLAIMS, b'[{"id": "a", "verdict": "x", "effect": NaN}]', "effect"),
        (CLAIMS, b"\xff", "is not what this project writes"),
        (CURVES, b"", "is not what this project writes"),
        (CURVES, b"method,task\na,b\n", "lacks the columns step"),
        (CURVES, b"method,task,step\na,b,1\n", "has no seed"),
        (CURVES, b"method,task,step,seed0\n", "has no row"),
        (CURVES, b"method,task,step,seedx\na,b,1,1\n", "column 'seedx', expected seed<n>"),
        (CURVES, b"method,task,step,seed0\na,b,1,2\n", "no accuracies"),
        (CURVES, b"method,task,step,seed0\na,b,1,x\n", "no accuracies"),
        (CURVES, b"method,task,step,seed0\na,b,1,1\na,b,1,1\n", "a step twice"),
        (CURVES, b"method,task,step,seed0\na\x1b,b,1,1\n", "control characters"),
        (CURVES, b"method,task,step,seed0\ngrpo,chain,1,\n", "has no accuracy at its first step"),
        (CURVES, b"method,task,step,seed0\nother,chain,1,1\n", "have no score in common"),
    ],
)
def test_contents_that_are_not_ours_are_refused_in_one_line(packed, finished, tmp_path, name, content, said):
    results, _, _ = finished
    path = tmp_path / "evil.zip"
    path.write_bytes(rewritten(packed, replacing(name, content)))
    if name == CURVES and b"other" in content:
        path.write_bytes(rewritten(path, without(CLAIMS)))
    with pytest.raises(ValueError, match="evil.zip") as error:
        compare_with(results, path)
    assert said in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1, 5])
def test_an_end_that_points_out_of_the_file_is_refused(packed, tmp_path, offset):
    data = packed.read_bytes()
    at = data.rindex(reading.END)
    (tmp_path / "evil.zip").write_bytes(data[:at] + reading.LOCATOR + struct.pack("<LQL", 0, offset, 1) + data[at:])
    with pytest.raises(ValueError, match="evil.zip is not read: its end is broken"):
        unpack(tmp_path / "evil.zip", tmp_path)

"""One file of a scale's results, to be published: what the manifest lists, with its hashes, and what two runs are compared by.

The same results give the same bytes: files sorted, dates fixed. Read it with sdpg/sharing/unpack.py, or any zip program.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sdpg.analysis.outcome import CURVES, IDENTITY, accuracy_curves, identity
from sdpg.artefacts.declare import PAPER
from sdpg.artefacts.manifest import NAME as MANIFEST
from sdpg.artefacts.manifest import artefacts, read_manifest
from sdpg.config.command import assignment
from sdpg.io import read_json, sha256, write_atomic, write_json
from sdpg.provenance.verify import KINDS, Mismatch, verify

if TYPE_CHECKING:
    from sdpg.analysis.results import Results
    from sdpg.config.settings import Config

Checkpoints = Literal["none", "last", "all"]
SUMS, README = "SHA256SUMS", "README.md"
OWN = (README, SUMS, MANIFEST, IDENTITY, CURVES)  # at the top, in this order
STEP = re.compile(r"(runs/[^/]+/[^/]+/checkpoints)/([^/]+)/")
BASE = re.compile(r"model/[^/]+/")
# What TensorBoard, trackio and W&B keep is metrics.jsonl again, with the machine's name in it.
TRACKED = re.compile(r"runs/[^/]+/[^/]+/(tensorboard|trackio|wandb)/")
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say


class Packed(NamedTuple):
    """What was written. files, unpacked: their number and bytes; left_out: why -> number; notes: what a reader should know."""

    path: Path
    files: int
    unpacked: int
    left_out: dict[str, int]
    notes: list[str]

    def __str__(self) -> str:
        size = self.path.stat().st_size
        lines = [f"{self.path}: {self.files} files, {_size(size)} ({_size(self.unpacked)} unpacked)"]
        lines.append(f"sha256 {sha256(self.path)}, also in {self.path}.sha256")
        lines += [f"left out: {count} files of {why}" for why, count in self.left_out.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def pack(results: Results, config: Config, path: Path, *, checkpoints: Checkpoints = "none", force: bool = False) -> Packed:
    """Write the archive of finished results, and its SHA-256 beside it. config: that they were made with.

    force: also results that do not match their manifest. Raises ValueError for those, naming the files; nothing is written.
    """
    if path.suffix != ".zip":
        raise ValueError(f"--to: got {path}, expected a file that ends in .zip")
    root, manifest = results.root, read_manifest(results.root)
    wanted, left_out = _chosen(root, manifest, checkpoints)
    found = verify(root, config, only=set(wanted))
    unsound = [row for row in found if _is_unsound(row, manifest)]
    if unsound and not force:
        raise ValueError(_refusal(root, unsound))
    wanted = [name for name in wanted if (root / name).is_file()]
    for name in wanted:
        if not (root / name).resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{root / name} is a link out of {root}, and is not packed; put the file itself there")
    notes = _notes(found, unsound)
    if config.sweep is not None:
        notes.append("a sweep has no evaluations, so that nothing can be compared with it")
    with tempfile.TemporaryDirectory() as made:
        own = Path(made)
        files = {name: root / name for name in (MANIFEST, *wanted)}
        if config.sweep is None:
            write_json(own / IDENTITY, identity(results))
            accuracy_curves(results).to_csv(own / CURVES, index=False, lineterminator="\n")
            files |= {name: own / name for name in (IDENTITY, CURVES)}
        (own / README).write_text(_readme(results, config, manifest, files, left_out, notes), encoding="utf-8")
        files[README] = own / README
        sums = {name: sha256(file) for name, file in files.items()}
        (own / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())), encoding="utf-8")
        files[SUMS] = own / SUMS
        order = sorted(files, key=lambda name: (OWN.index(name) if name in OWN else len(OWN), name))
        with write_atomic(path, "wb") as out:
            _write(out, results.name, {name: files[name] for name in order}, sums)
        unpacked = sum(file.stat().st_size for file in files.values())
    with write_atomic(path.with_name(f"{path.name}.sha256")) as out:
        out.write(f"{sha256(path)}  {path.name}\n")
    return Packed(path, len(files), unpacked, left_out, notes)


def _chosen(root: Path, manifest: Mapping[str, Any], checkpoints: Checkpoints) -> tuple[list[str], dict[str, int]]:
    """Return the files to pack, sorted, and how many are left out for which reason."""
    wanted, left_out = [], dict.fromkeys(("checkpoints", "base models", "TensorBoard, trackio and W&B"), 0)
    last: dict[str, str] = {}
    for name in manifest["files"]:
        if TRACKED.match(name):
            left_out["TensorBoard, trackio and W&B"] += 1
        elif BASE.match(name):
            left_out["base models"] += 1
        elif (step := STEP.match(name)) and not _kept(root, step[1], step[2], checkpoints, last):
            left_out["checkpoints"] += 1
        else:
            wanted.append(name)
    listed = {*manifest["files"], MANIFEST}
    left_out["what the manifest does not list"] = sum(path.as_posix() not in listed for path in artefacts(root))
    return sorted(wanted), {why: count for why, count in left_out.items() if count}


def _kept(root: Path, folder: str, step: str, checkpoints: Checkpoints, last: dict[str, str]) -> bool:
    if checkpoints == "last" and folder not in last:
        entries = read_json(root / folder / "checkpoints.json")["checkpoints"]
        last[folder] = max(entries, key=lambda entry: entry["step"])["path"]
    return checkpoints == "all" or (checkpoints == "last" and last[folder] == step)


def _is_unsound(row: Mismatch, manifest: Mapping[str, Any]) -> bool:
    """Return whether a mismatch is one of the results with each other, rather than with the present code, config or inputs."""
    inside = row.kind == "input" and row.detail.partition(": was ")[0] in manifest["files"]
    return inside or row.kind in ("missing", "changed")


def _refusal(root: Path, unsound: list[Mismatch]) -> str:
    shown = "; ".join(f"{row.artefact}: {KINDS[row.kind]}" for row in unsound[:3])
    more = f" and {len(unsound) - 3} more" if len(unsound) > 3 else ""
    return (
        f"{root} does not match its manifest ({shown}{more}); `make verify` lists all, `make reproduce` makes them again, and "
        "--force packs them as they are"
    )


def _notes(found: list[Mismatch], unsound: list[Mismatch]) -> list[str]:
    notes = [f"does not match the manifest: {row.artefact} ({KINDS[row.kind]})" for row in unsound]
    for kind in ("input", "code", "config"):
        if jobs := {row.artefact for row in found if row.kind == kind and row not in unsound}:
            notes.append(f"of {len(jobs)} jobs: {KINDS[kind]}; the manifest says what made them")
    return notes


def _write(out, name: str, files: Mapping[str, Path], sums: Mapping[str, str]) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for inner, file in files.items():
            info = zipfile.ZipInfo(f"{name}/{inner}", DATE)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            digest = hashlib.sha256()
            with file.open("rb") as source, archive.open(info, "w", force_zip64=file.stat().st_size >= 2**31) as target:
                shutil.copyfileobj(_Hashing(source, digest), target, 2**20)
            if inner in sums and digest.hexdigest() != sums[inner]:
                raise ValueError(f"{file} was changed while it was packed; wait until nothing works in there, and try again")


class _Hashing:
    """A file that hashes what is read of it."""

    def __init__(self, file, digest):
        self.file, self.digest = file, digest

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _readme(
    results: Results,
    config: Config,
    manifest: Mapping[str, Any],
    files: Iterable[str],
    left_out: Mapping[str, int],
    notes: list[str],
) -> str:
    folders: dict[str, int] = {}
    for name in files:
        top = f"{name.partition('/')[0]}/" if "/" in name else name
        folders[top] = folders.get(top, 0) + 1
    rows = [f"| `{top}` | {folders[top]} | {MEANING.get(top, '')} |" for top in sorted(folders)]
    scale = str(manifest["scale"])
    overrides = [f"--set={assignment(key, value)}" for key, value in manifest.get("overrides", {}).items()]
    report = ["sdpg", "make", "report", "--scale", scale, *overrides, "--results", results.name]
    lines = [
        f"# Results of scale `{results.name}`: Self-Distilled Policy Gradient, benchmark and reproduction suite",
        "",
        "Methods: " + ", ".join(results.methods) + ". Seeds: " + ", ".join(map(str, results.seeds)) + ".",
        "Evaluation sets: " + ", ".join(results.tasks) + f", {config.evaluation.samples} responses to each problem.",
        f"Made by `{manifest.get('command', 'unknown')}` at commit {manifest.get('git_commit') or 'unknown'} of the project.",
        "",
        "| | files | |",
        "|---|---|---|",
        *rows,
        "",
        f"`{SUMS}` has the hash of every file here (`sha256sum -c {SUMS}`), `{MANIFEST}` also that of what is left out, and",
        "the code, config and inputs that made each.",
        "",
        *[f"Left out: {count} files of {why}." for why, count in left_out.items()],
        *[f"Note: {note}." for note in notes],
        *([""] if left_out or notes else []),
        f"In a clone of the project, `make compare SCALE={shlex.quote(scale)} WITH=FILE` compares a run of yours with this,",
        f"and `{shlex.join(report)}` makes the report again from the unpacked files.",
        "The problems under `data/` and in the generations under `eval/` are under the licences of their data sets.",
        "",
        f"The method is that of *Self-Distilled Policy Gradient*, {PAPER}; please cite it.",
    ]
    return "\n".join(lines) + "\n"


MEANING = {
    "data/": "problems to train, validate and evaluate on; what was dropped, and why",
    "model/": "what was measured of the base models",
    "runs/": "per run: resolved config, versions, metrics of every step, hashes of the checkpoints",
    "eval/": "every generation with its verdict, and lm-eval's results",
    "figures/": "each with its numbers as CSV",
    "tables/": "as Markdown, LaTeX and CSV",
    "scores.csv": "a row per method, seed, evaluation set, step and metric",
    "intervals.csv": "means over seeds with 95% intervals",
    "comparisons.csv": "differences of methods with intervals and p-values",
    "cost.csv": "accuracy against tokens, FLOPs and seconds",
    "power.csv": "differences between two methods that so many units can find",
    "stability.csv": "how steadily each run trained",
    "claims.json": "a verdict for each claim of the paper",
    "claims.md": "the same to read",
    "report.html": "all of it on one page",
    CURVES: "accuracy of every run at every checkpoint: what runs are compared by",
    IDENTITY: "what a run must share to be compared",
    MANIFEST: "every file's hash, and what made it",
}


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.2f} {unit}"

"""What of a scale's results no longer matches its manifest, or the present code and config."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sdpg.artefacts import lookup
from sdpg.artefacts.manifest import read_manifest
from sdpg.config import outcome_part, without_checks
from sdpg.config.diff import difference, text
from sdpg.config.parts import PARTS
from sdpg.io import ROOT, sha256
from sdpg.provenance.sources import fingerprint

if TYPE_CHECKING:
    from sdpg.config.settings import Config

KINDS = {
    "missing": "the file is not there",
    "changed": "the file is not the one that was made",
    "input": "made from another version of an input",
    "code": "the code that made it has changed since",
    "config": "the config that it was made with has changed since",
}

OF_OUTCOME = {"train": outcome_part, "base_model": without_checks}  # stage -> its part without what cannot change its result


class Mismatch(NamedTuple):
    """One thing that does not match: `artefact` is a file (missing, changed), or the files of one job."""

    artefact: str
    kind: str  # a key of KINDS
    detail: str


def verify(root: Path, config: Config, *, only: Collection[str] | None = None) -> list[Mismatch]:
    """Compare the files below `root` with root/manifest.json, and what made them with the present code and `config`.

    only: of the files these alone, and still what made all. Raises ValueError without a manifest.
    """
    manifest = read_manifest(root)
    found = _files(root, manifest, only)
    for name in manifest["jobs"]:
        found += of_job(name, manifest, root, config)
    return found


def of_job(name: str, manifest: Mapping[str, Any], root: Path, config: Config) -> list[Mismatch]:
    """Return what made one job's files and differs now: inputs, code, config."""
    job = manifest["jobs"][name]
    label = _label(name, manifest)
    found = [Mismatch(label, "input", detail) for detail in _inputs(job, manifest, root)]
    found += [Mismatch(label, "code", detail) for detail in _code(manifest["code"][job["code"]])]
    recorded = manifest["configs"][job["config"]]
    return found + [Mismatch(label, "config", detail) for detail in _config(job, recorded, config)]


def summary(found: list[Mismatch], manifest: Mapping[str, Any]) -> str:
    """Return one line that says how it stands, and below it a table of what does not match."""
    files, jobs = len(manifest["files"]), len(manifest["jobs"])
    head = f"{manifest['scale']}: {files} files of {jobs} jobs, made at commit {manifest.get('git_commit') or 'unknown'}"
    if not found:
        return f"{head}\nevery file is the one that was made, and the present code and config are those that made it\n"
    lines = [head, f"{len({row.artefact for row in found})} of them do not match:", ""]
    for kind, meaning in KINDS.items():
        details: dict[str, list[str]] = {}
        for row in found:
            if row.kind == kind:
                details.setdefault(row.artefact, []).append(row.detail)
        lines += [f"{meaning}:", *_rows(details, manifest["jobs"]), ""] if details else []
    lines.append("`make reproduce` at this scale makes again what depends on it.")
    return "\n".join(lines) + "\n"


def _rows(details: Mapping[str, list[str]], jobs: Collection[str]) -> list[str]:
    """Return a line for each artefact and detail. Those of which the same holds, as of all runs after an edit, share them."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for artefact, found in details.items():
        alike.setdefault(tuple(found), []).append(artefact)
    width = max(map(len, details))
    lines = []
    for found, artefacts in alike.items():
        if len(artefacts) > 3 and found != ("",):
            lines += [*_together(artefacts, jobs), *(f"      {detail}" for detail in found)]
        else:
            lines += [f"  {artefact:{width}}  {detail}".rstrip() for artefact in artefacts for detail in found]
    return lines


def _together(artefacts: list[str], jobs: Collection[str]) -> list[str]:
    """Return lines that name artefacts: all jobs of one stage, or each of them."""
    stages = {name.partition("/")[0] for name in artefacts}
    if len(stages) == 1 and len(artefacts) == sum(job.partition("/")[0] in stages for job in jobs):
        return [f"  all {len(artefacts)} jobs of {stages.pop()}"]
    names = ", ".join(name.replace(" ", "\xa0") for name in artefacts)  # no line ends inside a name
    wrapped = textwrap.wrap(f"{len(artefacts)} alike: {names}", 120, break_on_hyphens=False)
    return [f"{'    ' if i else '  '}{line}".replace("\xa0", " ") for i, line in enumerate(wrapped)]


def _files(root: Path, manifest: Mapping[str, Any], only: Collection[str] | None) -> list[Mismatch]:
    found = []
    for file, entry in manifest["files"].items():
        if only is not None and file not in only:
            continue
        if not (root / file).is_file():
            found.append(Mismatch(file, "missing", ""))
        elif (digest := sha256(root / file)) != entry["sha256"]:
            size = (root / file).stat().st_size
            detail = f"sha256 {digest[:12]}, {size} bytes; expected {entry['sha256'][:12]}, {entry['size']} bytes"
            found.append(Mismatch(file, "changed", detail))
    return found


def _label(name: str, manifest: Mapping[str, Any]) -> str:
    files = sum(entry["job"] == name for entry in manifest["files"].values())
    return f"{name} ({files} file{'s' * (files != 1)})"


def _inputs(job: Mapping[str, Any], manifest: Mapping[str, Any], root: Path) -> list[str]:
    """Return the inputs whose recorded hash is neither the manifest's nor, outside the results, that of the present file."""
    found = []
    for path, digest in job["inputs"].items():
        if path in manifest["files"]:
            now = manifest["files"][path]["sha256"]
        else:
            there = Path(path) if Path(path).is_file() else ROOT / path
            now = sha256(there) if there.is_file() else "missing"
        if digest and digest != now:
            found.append(f"{path}: was {digest[:12]}, is {now[:12]}")
    return found


def _code(recorded: list[str]) -> list[str]:
    """Return the source files that differ from their recorded fingerprints."""
    found = []
    for entry in recorded:
        file, _, digest = entry.rpartition(" ")
        now = fingerprint(file) if (ROOT / file).is_file() else "gone"
        if now != digest:
            found.append(f"{file}: was {digest}, is {now}")
    return found


def _config(job: Mapping[str, Any], recorded: Mapping[str, Any], config: Config) -> list[str]:
    """Return the keys in which the part of the config that a job was made with differs from that of the present config."""
    if job["stage"] in OF_OUTCOME:  # the keys that it leaves out are recorded by earlier versions
        recorded = OF_OUTCOME[job["stage"]](recorded)
    try:
        now = json.loads(json.dumps(_present(job["stage"], recorded, config)))
    except ValueError as error:  # a ConfigError, or an artefact that is gone
        return [str(error)]
    return [f"{key}: was {text(was)}, is {text(new)}" for key, was, new in difference(recorded, now, ignore=())]


def _present(stage: str, recorded: Mapping[str, Any], config: Config) -> Mapping[str, Any]:
    """Return the part of `config` that a job of a stage depends on. Raises ConfigError for a method or base that is gone."""
    return PARTS[stage](config, recorded) if stage in PARTS else lookup(stage).spec.uses(config)

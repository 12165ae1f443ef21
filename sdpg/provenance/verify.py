"""What of a scale's results no longer matches its manifest, or the code and config at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sdpg.artefacts.manifest import read_manifest
from sdpg.config import ConfigError, analysis_config, base_config, data_config, evaluation_config, run_config
from sdpg.config.diff import difference, text
from sdpg.io import sha256
from sdpg.provenance import ROOT, fingerprints

KINDS = {
    "missing": "the file is not there",
    "changed": "the file is not the one that was made",
    "input": "made from another version of an input",
    "code": "the code that made it has changed since",
    "config": "the config that it was made with has changed since",
}


class Mismatch(NamedTuple):
    """One thing that does not match: `artefact` is a file (missing, changed), or the files of one job."""

    artefact: str
    kind: str  # a key of KINDS
    detail: str


def verify(root: Path, config: Mapping[str, Any]) -> list[Mismatch]:
    """Compare the files below `root` with root/manifest.json, and what made them with the present code and `config`.

    Raises ValueError without a manifest.
    """
    manifest = read_manifest(root)
    found = _files(root, manifest)
    for name, job in manifest["jobs"].items():
        label = _label(name, manifest)
        found += [Mismatch(label, "input", detail) for detail in _inputs(job, manifest, root)]
        found += [Mismatch(label, "code", detail) for detail in _code(manifest["code"][job["code"]])]
        recorded = manifest["configs"][job["config"]]
        found += [Mismatch(label, "config", detail) for detail in _config(name, recorded, config)]
    return found


def summary(found: list[Mismatch], manifest: Mapping[str, Any]) -> str:
    """One line that says how it stands, and below it a table of what does not match."""
    files, jobs = len(manifest["files"]), len(manifest["jobs"])
    head = (
        f"{manifest['scale']}: {files} files of {jobs} jobs, made at commit {manifest.get('git_commit') or 'unknown'}"
    )
    if not found:
        return f"{head}\nevery file is the one that was made, and the code and config at hand are those that made it\n"
    lines = [head, f"{len({row.artefact for row in found})} of them do not match:", ""]
    width = max(len(row.artefact) for row in found)
    for kind, meaning in KINDS.items():
        rows = [row for row in found if row.kind == kind]
        if rows:
            lines += [f"{meaning}:", *(f"  {row.artefact:{width}}  {row.detail}".rstrip() for row in rows), ""]
    lines.append("`make reproduce` at this scale makes anew what depends on it.")
    return "\n".join(lines) + "\n"


def _files(root: Path, manifest: Mapping[str, Any]) -> list[Mismatch]:
    found = []
    for file, entry in manifest["files"].items():
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
    """The inputs whose recorded hash is neither the manifest's nor, outside the results, that of the file at hand."""
    found = []
    for path, digest in job["inputs"].items():
        if path in manifest["files"]:
            now = manifest["files"][path]["sha256"]
        else:
            now = sha256(ROOT / path) if (ROOT / path).is_file() else "missing"
        if digest and digest != now:
            found.append(f"{path}: was {digest[:12]}, is {now[:12]}")
    return found


def _code(recorded: list[str]) -> list[str]:
    """The source files that differ from their recorded fingerprints."""
    found = []
    for entry in recorded:
        file, _, digest = entry.rpartition(" ")
        now = fingerprints([file])[0].rpartition(" ")[2] if (ROOT / file).is_file() else "gone"
        if now != digest:
            found.append(f"{file}: was {digest}, is {now}")
    return found


def _config(job: str, recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The keys in which the part of the config that the job was made with differs from that of the config at hand."""
    try:
        now = json.loads(json.dumps(_at_hand(job, recorded, config)))
    except ConfigError as error:
        return [str(error)]
    return [f"{key}: was {text(was)}, is {text(new)}" for key, was, new in difference(recorded, now, ignore=())]


def _at_hand(job: str, recorded: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config` that a job depends on: of a run, a base model or an evaluation as sdpg.config cuts it out, of the
    others the blocks of the names that were recorded. Raises ConfigError for a method or base model that is not there now.
    """
    if {"method", "seed"} <= recorded.keys():
        return run_config(config, recorded["method"], recorded["seed"])
    if "scale" in recorded:
        return evaluation_config(config)
    if base := re.fullmatch(r"base_model/base(\d+)", job):
        try:
            return base_config(config, int(base[1]))
        except IndexError:
            raise ConfigError(f"there is no base model {base[1]} in this config") from None
    if "forgetting" in recorded:
        return data_config(config)
    blocks = {**config, **analysis_config(config)}
    return {name: blocks[name] for name in recorded if name in blocks}

"""manifest.json: every artefact of a scale with its hash and where it comes from.

What a file was made by, and from, is what Snakemake recorded when it ran the job (sdpg/provenance/records.py), so it cannot lag
behind the rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdpg.artefacts.declare import ArtefactSpec
from sdpg.config.command import snakemake_command
from sdpg.io import read_json, sha256, write_atomic
from sdpg.provenance.git import git_commit
from sdpg.provenance.records import Record, read_records

ARTEFACT = ArtefactSpec(
    about="manifest.json: every file's hash, and what made it",
    reads=lambda files: [*files.all_made, *files.trained],
    writes=("manifest.json",),
    files=("sdpg/**/*.py", "baselines/*.py"),
    uses=lambda config: config.dump(),
    planned=lambda config: True,
)

NAME = "manifest.json"
DATABASE = ".snakemake.db"
UNLISTED = ("logs", "benchmarks", ".work")  # what a job said and took, and where unfinished runs lie


def artefacts(root: Path) -> list[Path]:
    """Return every file below `root` but the manifest itself, logs, benchmarks and unfinished work, sorted; paths as from
    `root`.
    """
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if path.parts[0] not in UNLISTED and path.as_posix() != NAME)


def make(job) -> None:
    """Write manifest.json for all that the scale has."""
    header = {
        "scale": job.scale,
        "overrides": dict(job.overrides),
        "command": snakemake_command(job.scale, job.overrides),
        "git_commit": git_commit(),
    }
    targets = [*job.files.all_made, *job.files.trained]
    make_manifest(job.results.root, targets, Path(job.files.root).parent / DATABASE, header)


def make_manifest(root: Path, targets: Iterable[str], database: Path, header: Mapping[str, Any]) -> Path:
    """Write root/manifest.json for `targets` (paths as in the workflow) and all that they were made from, below `root`.

    A file that no rule declares, such as a checkpoint's weights, belongs to the job whose outputs alone lie in its folder or
    in the nearest one above. `header`: keys to open with (scale, overrides, command, commit). Raises ValueError for a target
    that Snakemake has no record of.
    """
    jobs, owners = _closure(read_records(database), list(targets), root)
    entries, folders = {}, _folders(owners)
    for path in artefacts(root):
        job = owners.get(path.as_posix()) or _owner_of_folder(path, folders)
        if job is not None:
            entries[path.as_posix()] = {"size": (root / path).stat().st_size, "sha256": sha256(root / path), "job": job}
    code, configs = {}, {}
    for job in jobs.values():
        job["code"] = _shared(code, job["code"])
        job["config"] = _shared(configs, job["config"])
    content = {**header, "files": entries, "jobs": jobs, "code": code, "configs": configs}
    with write_atomic(root / NAME) as file:
        file.write(_dump(content))
    return root / NAME


def read_manifest(root: Path) -> dict[str, Any]:
    """Return root/manifest.json. Raises ValueError, saying how to get it, if it is missing or not of that form."""
    path = root / NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing; `make reproduce` writes it as its last step")
    content = read_json(path)
    if missing := {"scale", "files", "jobs", "code", "configs"} - set(content):
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; delete it and run `make reproduce` again")
    return content


def _closure(records: dict[str, Record], targets: list[str], root: Path) -> tuple[dict, dict]:
    """Return the jobs that made the targets and what these were made from, and which job owns which file (path as from
    root).
    """
    prefix = f"results/{root.name}/"
    jobs, owners, waiting = {}, {}, list(targets)
    made = {record.log: [] for record in records.values()}
    for target, record in records.items():
        made[record.log].append(target)
    while waiting:
        target = waiting.pop()
        if target not in records:
            if target in targets:
                raise ValueError(f"Snakemake has no record of {target}; make it with `snakemake {target}`")
            continue
        record = records[target]
        if not target.startswith(prefix) or target.removeprefix(prefix) in owners:
            continue
        name = record.log.removeprefix(f"{prefix}logs/").removesuffix(".log")
        for output in made[record.log]:  # its other outputs too
            owners[output.removeprefix(prefix)] = name
        waiting += record.inputs
        inputs = {path.removeprefix(prefix): digest for path, digest in record.inputs.items()}
        jobs[name] = {"stage": record.stage, "inputs": inputs, "code": record.code, "config": record.config}
    return dict(sorted(jobs.items())), owners


def _folders(owners: Mapping[str, str]) -> dict[Path, set[str]]:
    """Return folder -> the jobs that have outputs in it or below."""
    found: dict[Path, set[str]] = {}
    for file, job in owners.items():
        for folder in Path(file).parents[:-1]:
            found.setdefault(folder, set()).add(job)
    return found


def _owner_of_folder(path: Path, folders: Mapping[Path, set[str]]) -> str | None:
    """Return the one job that has outputs in the nearest folder above `path` with any; None if there are several."""
    jobs = next((folders[folder] for folder in path.parents[:-1] if folder in folders), set())
    return next(iter(jobs)) if len(jobs) == 1 else None


def _shared(table: dict[str, Any], value: Any) -> str:
    """Put `value` into the table under the start of its SHA-256 -> that key."""
    text = json.dumps(value, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    table[key] = value
    return key


def _dump(content: Mapping[str, Any]) -> str:
    """Return JSON with one line for each file, job, list of sources and config."""
    parts = []
    for key, value in content.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items())
            parts.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"

"""Is a committed reference what the present code and config would make? One line for each scale says so.

A reference goes stale without anything being wrong with it: a method is edited, and the long run is made later. Until
then everything that quotes it says that it is stale, and of what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sdpg.artefacts.manifest import NAME, read_manifest
from sdpg.config import available_scales, resolve
from sdpg.provenance.made import Made, read_made
from sdpg.provenance.verify import Mismatch, of_job

if TYPE_CHECKING:
    from sdpg.config.settings import Config

NOT_QUOTED = ("report", "manifest", "samples")  # made last, from all the rest; no reference has them
KINDS = ("code", "config", "input")


class Standing(NamedTuple):
    """scale: its name. commits: at which it was made. made: how, None of a reference of an earlier form. changed: kind ->
    stages, in the order of the work, each with the methods whose runs alone are meant. details: what differs, by job. gone: why
    it cannot be compared.
    """

    scale: str
    commits: list[str]
    made: Made | None
    changed: dict[str, list[str]]
    details: list[Mismatch]
    gone: str = ""

    @property
    def current(self) -> bool:
        """Whether it is what the present code and config make."""
        return not self.changed and not self.gone

    def made_at(self, mark: str = "") -> str:
        """Return the commits that it was made at, shortened, a mark around each: "commits 0123abcde and 4567abcde"."""
        short = [commit[:9] + ("-dirty" if commit.endswith("-dirty") else "") for commit in self.commits] or ["unknown"]
        return f"commit{'s' if len(short) > 1 else ''} {' and '.join(f'{mark}{commit}{mark}' for commit in short)}"

    @property
    def since(self) -> str:
        """What changed since, in words; empty of a current one."""
        if self.gone:
            return self.gone
        return "; ".join(f"{kind} of {', '.join(stages)}" for kind, stages in self.changed.items())

    @property
    def line(self) -> str:
        """One line: current or stale, made when, and what to do."""
        when = f" on {self.made.date}" if self.made and self.made.date else ""
        head = f"made at {self.made_at()}{when}"
        if self.current:
            return f"{self.scale}: current: {head}, by the present code and config"
        again = f"make reproduce SCALE={self.scale} && make reference SCALE={self.scale}"
        if self.made and (self.made.overrides or self.scale not in available_scales()):
            again = f"{self.made.command}, then `sdpg reference` with the same --scale"
        return f"{self.scale}: stale: {head}; changed since: {self.since}. Make it again: {again}"


def references(folder: Path) -> list[Path]:
    """Return the folders of all references below results/reference."""
    return sorted(path.parent for path in folder.glob(f"*/{NAME}"))


def standing(folder: Path, config: Config | None = None) -> Standing:
    """Compare the reference in `folder` with the present code and config. config: in the place of its scale's own."""
    manifest, made = read_manifest(folder), read_made(folder)
    scale = folder.name
    commits = made.commits if made else [commit for commit in [manifest.get("git_commit")] if commit]
    if made is None or not all("stage" in job for job in manifest["jobs"].values()):
        return Standing(scale, commits, made, {}, [], gone="the form of a reference")
    try:
        config = config or resolve(manifest["scale"], manifest.get("overrides", {}))
    except ValueError as error:
        return Standing(scale, commits, made, {}, [], gone=" ".join(str(error).split()))
    names = list(behind(folder, manifest))
    details = {name: of_job(name, manifest, folder, config) for name in names}
    changed = {}
    for kind in KINDS:
        differing = [name for name in names if any(one.kind == kind for one in details[name])]
        if differing:
            changed[kind] = _stages(differing, names, manifest)
    return Standing(scale, commits, made, changed, [one for found in details.values() for one in found])


def behind(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return the jobs that made the files of a reference, and what these were made from, in the order of the manifest."""
    files, jobs = manifest["files"], manifest["jobs"]
    own = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    waiting, found = [name for name in own if name in files], set()
    while waiting:
        name = files[waiting.pop()]["job"]
        if name not in found and jobs[name]["stage"] not in NOT_QUOTED:
            found.add(name)
            waiting += [path for path in jobs[name]["inputs"] if path in files]
    return [name for name in jobs if name in found]


def _stages(differing: Iterable[str], names: Iterable[str], manifest: Mapping[str, Any]) -> list[str]:
    """Return the stages of these jobs, with the methods in brackets where those of others are as they were."""
    order = {"data": 0, "solutions": 1, "base_model": 2, "train": 3, "evaluate": 4}

    def of(name: str) -> tuple[str, str | None]:
        job = manifest["jobs"][name]
        method = manifest["configs"][job["config"]].get("method") if job["stage"] == "train" else None
        stage = job["stage"].partition("/")[0].replace("_", " ")
        return stage, method

    everything, some = [of(name) for name in names], [of(name) for name in differing]
    found = []
    for stage in sorted({stage for stage, _ in some}, key=lambda stage: (order.get(stage.replace(" ", "_"), 9), stage)):
        methods = dict.fromkeys(method for name, method in some if name == stage and method)
        every = {method for name, method in everything if name == stage and method}
        found.append(stage if set(methods) == every else f"{stage} ({', '.join(methods)})")
    return found

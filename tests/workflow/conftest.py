"""A copy of the project with results that look finished: Snakemake's own --touch files their records, nothing is computed."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflows", "config", "sdpg", "baselines", "profiles", "environment.yml", "results/published")


class Project:
    """A project folder, and what Snakemake would do in it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def snakemake(self, *arguments: str, ok: bool = True) -> str:
        """Run Snakemake; its output, stderr included."""
        command = [sys.executable, "-m", "snakemake", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> set[str]:
        """The messages of the jobs that a dry run plans, without the scale in front and without the targets' own."""
        output = self.snakemake("-n", *arguments)
        messages = set(re.findall(r"^Job \d+: \[[\w-]+\] (.*)$", output, flags=re.MULTILINE))
        assert messages or "Nothing to be done" in output, output
        return {message for message in messages if "up to date" not in message and not message.startswith("every ")}

    def pretend_finished(self, *arguments: str) -> None:
        """Write every output of the workflow, with its own name as content, and have Snakemake record it as made."""
        summary = self.snakemake("--detailed-summary", *arguments)
        files = [line.split("\t")[0] for line in summary.splitlines() if line.startswith("results/")]
        assert len(files) > 20
        for file in files:
            path = self.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
        self.snakemake("--touch", "--forceall", *arguments)

    def sdpg(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run the project's command in this folder, with this folder's code."""
        command = [sys.executable, "-m", "sdpg", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def python(self, code: str) -> str:
        """Run a line of Python in this folder, with this folder's code; what it prints."""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def edited(self, file: str):
        """Inside, the file has one statement more at its end; one that is not Python has one comment more."""
        path = self.folder / file
        before = path.read_text()
        path.write_text(before + ("\nEDITED = True\n" if file.endswith(".py") else "\n# an edit\n"))
        try:
            yield
        finally:
            path.write_text(before)


def copy_project(folder: Path, origin: Path = ROOT) -> Project:
    """The project's files, without results, in a new folder."""
    for part in PARTS:
        source, target = origin / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return Project(folder)


@pytest.fixture(scope="package")
def finished(tmp_path_factory) -> Project:
    """The project with everything of scale smoke finished. Tests leave it as they find it."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    project.pretend_finished("--config", "scale=smoke")
    return project

"""The commit of the project's checkout."""

from __future__ import annotations

import subprocess

from sdpg.io import ROOT


def git_commit() -> str | None:
    """Return the commit, with -dirty behind it if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]  # no tag in its place
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

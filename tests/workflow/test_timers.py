"""Snakemake does not grow busier with every job that has finished."""

from __future__ import annotations

import re

import pytest

from tests.workflow.conftest import copy_project

TOY = """
rule toys:
    input: expand("toy/{i}", i=range(20))

rule toy:
    output: "toy/{i}"
    shell: "touch {output}"

onsuccess:
    import threading
    print("timers", sum(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
"""
START = "onstart:\n    without_job_rate(workflow.scheduler)\n"


@pytest.mark.slow
def test_the_pinned_snakemake_leaves_a_timer_for_each_job_but_not_in_this_workflow(tmp_path):
    project = copy_project(tmp_path / "project")
    snakefile = project.folder / "Snakefile"
    own = snakefile.read_text(encoding="utf-8") + TOY

    def timers(text: str) -> int:
        snakefile.write_text(text, encoding="utf-8")
        output = project.snakemake("toys", "--cores", "2", "--quiet", "all", "--force", "--config", "scale=smoke")
        return int(re.search(r"timers (\d+)", output)[1])

    assert timers(own) == 0
    for made in project.folder.glob("toy/*"):
        made.unlink()
    assert START in own and timers(own.replace(START, "")) > 5  # once it is not: without_job_rate is not needed any more

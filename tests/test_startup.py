"""Imports without the garbage collector leave it as it was; Snakemake does not grow busier with every job."""

import gc
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobRateLimiter
from snakemake.settings.types import MaxJobsPerTimespan

from sdpg.io import ROOT
from sdpg.startup import quick_imports, without_job_rate


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.enable()


def test_off_inside_and_on_again_after_an_error():
    with pytest.raises(ValueError, match="no"), quick_imports():
        assert not gc.isenabled()
        raise ValueError("no")
    assert gc.isenabled()


def test_who_had_it_off_keeps_it_off():
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()


@pytest.mark.parametrize(("asked", "stays"), [("100/1s", False), ("50/1m", True), ("100/1m", True), ("1/1s", True)])
def test_a_limit_of_jobs_that_a_user_gave_stays(asked, stays):
    scheduler = SimpleNamespace(job_rate_limiter=JobRateLimiter(MaxJobsPerTimespan.parse_choice(asked)))
    without_job_rate(scheduler)
    assert (scheduler.job_rate_limiter is not None) is stays
    without_job_rate(SimpleNamespace(job_rate_limiter=None))


TOY = """
import sys, threading
sys.path.insert(0, {root!r})
from sdpg.startup import without_job_rate

{start}

rule all:
    input: expand("out/{{i}}", i=range(20))

rule one:
    output: "out/{{i}}"
    shell: "touch {{output}}"

onsuccess:
    print("timers", sum(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
"""
START = "onstart:\n    without_job_rate(workflow.scheduler)\n"


@pytest.mark.slow
def test_the_pinned_snakemake_leaves_a_timer_for_each_job_but_not_in_this_workflow(tmp_path):
    def timers(start: str) -> int:
        (tmp_path / "Snakefile").write_text(TOY.format(root=str(ROOT), start=start))
        command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", "2", "--forceall"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(re.search(r"timers (\d+)", done.stdout + done.stderr)[1])

    assert START in (ROOT / "Snakefile").read_text(encoding="utf-8")
    assert timers(START) == 0
    assert timers("") > 5  # once it is not: without_job_rate is not needed any more

"""Imports without the garbage collector leave it as it was; a user's limit of jobs stays."""

import gc
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobRateLimiter
from snakemake.settings.types import MaxJobsPerTimespan

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

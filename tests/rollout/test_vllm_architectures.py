"""vLLM takes new weights of other architectures: experts in every run, the others with SDPG_SLOW=1 (a quarter of an hour)."""

import math
import os

import pytest

from benchmarks.architectures import ARCHITECTURES, CLOSE, measured
from sdpg.rollout.engines import refuses

KINDS = [kind for kind in ARCHITECTURES if not refuses("vllm", kind)]
others = pytest.mark.skipif(not os.environ.get("SDPG_SLOW"), reason="starts vLLM once more; set SDPG_SLOW=1")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind == "qwen3_moe" else others) for kind in KINDS])
def test_log_probs_after_a_push_are_the_trainers(kind):
    found = measured(kind)
    assert found.get("largest", math.inf) < CLOSE and found["evaluation"] < CLOSE, found

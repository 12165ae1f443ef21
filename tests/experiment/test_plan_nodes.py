"""What the planner says of several nodes: what goes over the network between them, and how often."""

from dataclasses import replace

import pytest

from sdpg.experiment.plan_time import BETWEEN_NODES, Rates, gather_seconds, micro_batches, reduce_seconds, step_seconds
from tests.experiment.planning import job_of


def test_shards_on_other_nodes_are_gathered_over_the_network():
    """Not at the speed of a node's own GPUs, and nothing is repeated that would have to be summed."""
    apart = job_of("paper-qwen3-1.7b", gpus=1, nodes=4)
    together = job_of("paper-qwen3-1.7b", gpus=4)
    assert gather_seconds(apart, 1) == pytest.approx(gather_seconds(together, 1) * 450e9 / BETWEEN_NODES)
    assert reduce_seconds(apart) == reduce_seconds(together) == 0
    assert step_seconds(apart, Rates())["push"] > step_seconds(together, Rates())["push"]


def test_nodes_that_repeat_the_state_sum_gradients_after_every_micro_batch():
    job = job_of("paper-qwen3-1.7b", gpus=8, nodes=2)
    assert micro_batches(job) > 1
    assert reduce_seconds(job) == pytest.approx(micro_batches(job) * 8 * job.trainable / 8 / BETWEEN_NODES)
    slow = replace(job, gpu=replace(job.gpu, flops=1e18))  # as good as no time to compute: it waits for the others
    assert step_seconds(slow, Rates())["train"] == pytest.approx(gather_seconds(slow, 4) + reduce_seconds(slow))

"""What a row of metrics says of memory, where the engine's weights are counted and are not on the GPU."""

from __future__ import annotations

import pytest
import torch

from sdpg.core.metrics import PeakMemory

MIB = 2**20


@pytest.fixture
def allocator(monkeypatch):
    """torch's counter on a machine without a GPU: `peak` is what is read, and each look resets it."""
    state = {"peak": 0, "resets": 0}

    def reset(device):
        state["peak"] = 0
        state["resets"] += 1

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    return state


@pytest.mark.parametrize(("sampling", "training", "expected"), [(60, 70, 60), (60, 125, 75)])
def test_the_sleeping_engine_is_not_counted(allocator, sampling, training, expected):
    """An engine of 50 MiB sleeps while the trainer works; torch goes on counting it."""
    memory = PeakMemory(torch.device("cuda", 0))
    allocator["peak"] = sampling * MIB
    memory.look()
    allocator["peak"] = training * MIB
    memory.look(unmapped=50 * MIB)
    assert memory.mb() == expected and allocator["resets"] == 3


def test_on_the_cpu_it_is_the_process():
    memory = PeakMemory(torch.device("cpu"))
    memory.look()
    assert 50 < memory.mb() < 100_000

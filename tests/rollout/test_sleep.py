"""vLLM's sleep mode, which needs a GPU: here a scripted stand-in for `vllm.LLM` shows in which order it is asked for what."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sdpg.rollout.engines.vllm import VLLMEngine


class ScriptedLLM:
    def __init__(self):
        self.calls = []

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags):
        self.calls.append(f"wake {tags[0]}")

    def collective_rpc(self, method, kwargs=None):
        self.calls.append(method if isinstance(method, str) else method.__name__)
        for _ in (kwargs or {}).get("weights_iterator", ()):
            assert self.calls[-1] == "reload_weights"

    def reset_prefix_cache(self):
        return True


@pytest.fixture
def engine():
    engine = object.__new__(VLLMEngine)
    engine._llm, engine._names, engine._cpu, engine._asleep, engine._version = ScriptedLLM(), {"w"}, False, False, 0
    return engine


def test_weights_wake_before_they_are_replaced_and_the_cache_after(engine):
    engine.sleep()
    engine.sleep()  # once is enough
    engine.load_weights([("w", torch.zeros(1))], 5)
    engine.load_weights([("w", torch.zeros(1))], 6)  # awake: nothing to wake
    assert engine.llm.calls == ["sleep 2", "wake weights", "reload_weights", "wake kv_cache", "reload_weights"]


def test_the_cpu_build_does_not_sleep(engine):
    engine._cpu = True
    engine.sleep()
    assert engine.llm.calls == []
    engine.load_weights([("w", torch.zeros(1))], 5)
    assert engine.llm.calls == ["_forget_packed", "reload_weights", "_repack"]


def test_what_sleeps_is_told_to_whoever_counts_memory(engine, monkeypatch):
    """vLLM's allocator has three pieces, two of which are unmapped while the engine sleeps: 1 + 2 of 5 bytes."""
    cumem = pytest.importorskip("vllm.device_allocator.cumem")
    pieces = [(1, True), (2, True), (2, False)]
    kept = {number: SimpleNamespace(handle=(0, size, 0, 0), is_asleep=asleep) for number, (size, asleep) in enumerate(pieces)}
    monkeypatch.setattr(cumem.CuMemAllocator, "get_instance", lambda: SimpleNamespace(pointer_to_data=kept))
    assert engine.unmapped_bytes == 0
    engine.sleep()
    assert engine.unmapped_bytes == 3

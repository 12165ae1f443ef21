"""The resume state by itself: its files, its hashes, and a process group that knows no CPU."""

from __future__ import annotations

import pytest
import torch

from sdpg.core import state
from sdpg.core.state import StateFolder
from sdpg.io import read_json, sha256
from tests.core.processes import run

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4.0), "c": torch.ones(5)}


def saved(folder, tensors=TENSORS, step=4) -> StateFolder:
    kept = StateFolder(folder, {"run": 1})
    kept.save(tensors, step, updates=step)
    kept.wait()
    return kept


def loaded(kept: StateFolder) -> dict:
    read = {name: torch.zeros_like(x) for name, x in TENSORS.items()}
    kept.load(kept.newest(), read)
    return read


def same(read: dict) -> bool:
    return all(torch.equal(read[name], x) for name, x in TENSORS.items())


def test_one_process_beside_vllm_saves_and_loads(tmp_path):
    """vLLM opens a process group for one process too, and on a GPU nothing in it speaks for the CPU."""
    groups = ["", "cuda:fake", "cuda:gloo", "cpu:gloo,cuda:fake", "gloo"]
    assert run("beside_engine", 1, tmp_path, {"groups": groups}) == dict.fromkeys(groups, True)


def test_files_hold_about_so_many_bytes(tmp_path, monkeypatch):
    """24, 16 and 20 bytes: the second file begins with the first tensor behind 32 bytes."""
    monkeypatch.setattr(state, "FILE_BYTES", 32)
    kept = saved(tmp_path / "state")
    folder = tmp_path / "state/step000004"
    names = [f"shard-00001-model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert read_json(folder / "state.json")["sha256"] == {name: sha256(folder / name) for name in names}
    assert same(loaded(kept))


def test_each_process_hashes_its_own_files(tmp_path):
    """Three tensors of 128 bytes on two processes, in files of 64 bytes of each."""
    out = run("saved", 2, tmp_path / "job", {"where": str(tmp_path / "state"), "file_bytes": 64})
    of_each = [name for name in out["sha256"] if name.startswith("shard-00002-")]
    assert len(out["sha256"]) == 6 and len(of_each) == 3
    folder = tmp_path / "state/step000003"
    assert all(sha256(folder / name) == value for name, value in out["sha256"].items())
    assert [out["read"][name][7][3] for name in "abc"] == [31, 131, 231]


def test_what_a_kill_left_of_a_state_goes_at_the_next_start_of_the_same_run(tmp_path):
    saved(tmp_path / "state")
    remains = [tmp_path / "state" / name for name in (".step000006.tmp", ".step000002.old")]
    for folder in remains:
        (folder / "deep").mkdir(parents=True)
    with pytest.raises(ValueError, match="is not this one"):
        StateFolder(tmp_path / "state", {"run": 2}).newest()
    assert all(folder.exists() for folder in remains), "another run's are left alone"
    assert StateFolder(tmp_path / "state", {"run": 1}).newest()["step"] == 4
    assert not any(folder.exists() for folder in remains)


def test_a_state_that_cannot_be_read_back_is_no_state(tmp_path, monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(state, "sha256", broken)
    kept = StateFolder(tmp_path / "state", {"run": 1})
    kept.save(TENSORS, 4, updates=4)
    with pytest.raises(OSError, match="could not read back the state in .*process 0: .*Input/output error"):
        kept.wait()
    assert kept.newest() is None

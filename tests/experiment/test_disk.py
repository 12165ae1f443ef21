"""Room for checkpoints is asked for before a run starts."""

from __future__ import annotations

from collections import namedtuple

import pytest

from sdpg.config import resolve
from sdpg.experiment import disk, launch

Usage = namedtuple("Usage", "total used free")
NEEDED = 41 * 2 * 4_022_468_096 + 2 * 12 * 4_022_468_096  # 41 checkpoints in bf16; two states of masters and moments


def free(monkeypatch, count: float) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**15, 0, count))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(config) -> str:
    with pytest.raises(ValueError) as error:
        disk.check_disk(config, "grpo", 0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_a_run_of_the_paper_writes():
    assert disk.run_bytes(resolve("qwen3-4b"), "grpo") == pytest.approx(NEEDED)


def test_a_disk_without_room_is_refused_with_what_would_do(monkeypatch):
    config = resolve("qwen3-4b")
    free(monkeypatch, NEEDED + 1)
    disk.check_disk(config, "grpo", 0)
    free(monkeypatch, 200e9)
    assert "grpo seed 0 writes 426.4 GB" in refused(config)
    assert "200.0 GB are free" in refused(config) and "train.keep=last needs 120.7 GB" in refused(config)
    disk.check_disk(resolve("qwen3-4b", {"train.keep": "last"}), "grpo", 0)
    free(monkeypatch, 10e9)
    assert "train.keep" not in refused(config) and "make room" in refused(config)
    free(monkeypatch, 64e3)
    assert "and 0.1 MB are free" in refused(config)


def test_what_an_unfinished_run_has_written_counts(monkeypatch, tmp_path):
    folder = tmp_path / "results/qwen3-4b/.work/grpo/seed0/checkpoints"
    folder.mkdir(parents=True)
    with open(folder / "weights", "wb") as file:
        file.truncate(int(300e9))  # a hole: no bytes on the disk
    free(monkeypatch, 200e9)
    disk.check_disk(resolve("qwen3-4b"), "grpo", 0)


def test_what_a_killed_process_was_writing_does_not_count(monkeypatch, tmp_path):
    folder = tmp_path / "results/qwen3-4b/.work/grpo/seed0/state/.step000040.tmp"
    folder.mkdir(parents=True)
    with open(folder / "shard-00001.safetensors", "wb") as file:
        file.truncate(int(300e9))
    free(monkeypatch, 200e9)
    assert "of which 0.0 MB are there" in refused(resolve("qwen3-4b"))


def test_a_model_of_unknown_sizes_is_not_checked(monkeypatch):
    free(monkeypatch, 0)
    disk.check_disk(resolve("qwen3-4b", {"model": "someone/unknown"}), "grpo", 0)


def test_a_run_asks_before_it_starts(monkeypatch):
    free(monkeypatch, 1e6)
    with pytest.raises(ValueError, match="are free on that disk"):
        launch.train(resolve("lm", {"resources.gpus": 0}), "grpo", 0, 1, ["train"])

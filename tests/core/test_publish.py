"""A finished run goes to its place, and outlives a job that fails after that."""

from __future__ import annotations

import os

import pytest

from sdpg.core import publish as module
from sdpg.core.publish import FILES, KEPT, publish, put_back, settle


@pytest.fixture
def work(tmp_path):
    """The working folder of a run at its end, its last state in it."""
    folder = tmp_path / ".work"
    for name in (*FILES, "state/step000004/state.json", "checkpoints/step000004/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def contents(run) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def test_a_finished_run_is_moved_without_its_state(work, tmp_path):
    run = tmp_path / "runs/grpo/seed0"
    run.mkdir(parents=True)
    (run / "old").touch()
    publish(work, run)
    settle(run)
    assert not work.exists() and contents(run) == {*FILES, "checkpoints/step000004/model.safetensors"}


@pytest.mark.parametrize("last", ["rmtree", "replace"])
def test_a_kill_in_between_leaves_the_work_with_its_state_or_the_run(work, tmp_path, monkeypatch, last):
    """The kill comes after the old run went, or after the new one came."""
    run = tmp_path / "runs/grpo/seed0"
    where, name = (os, "replace") if last == "rmtree" else (module.shutil, "rmtree")
    original = getattr(where, name)

    def killed(path, *args, **kwargs):
        if last == "rmtree" or str(path).endswith("state"):
            raise KeyboardInterrupt
        return original(path, *args, **kwargs)

    monkeypatch.setattr(where, name, killed)
    with pytest.raises(KeyboardInterrupt):
        publish(work, run)
    monkeypatch.undo()
    if last == "rmtree":
        assert (work / "state/step000004/state.json").is_file() and not run.exists()
        publish(work, run)
    assert put_back(run)
    settle(run)
    assert contents(run) == {*FILES, "checkpoints/step000004/model.safetensors"}


def test_what_a_failed_job_s_workflow_deletes_is_put_back(work, tmp_path):
    run = tmp_path / "runs/grpo/seed0"
    publish(work, run)
    for name in FILES:
        (run / name).unlink()
    assert put_back(run) and all((run / name).read_text() == name for name in FILES)


def test_nothing_is_put_back_once_the_job_has_ended_well(work, tmp_path):
    """So that a run which is asked for again is trained again."""
    run = tmp_path / "runs/grpo/seed0"
    publish(work, run)
    settle(run)
    for name in FILES:
        (run / name).unlink()
    assert not put_back(run) and not (run / KEPT).exists()


def test_half_a_copy_is_none(work, tmp_path):
    run = tmp_path / "runs/grpo/seed0"
    publish(work, run)
    (run / KEPT / FILES[1]).unlink()
    (run / FILES[0]).unlink()
    assert not put_back(run) and not (run / FILES[0]).exists()

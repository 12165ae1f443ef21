"""The loop, begun again: what a run that was stopped or killed leaves, and what goes on from it."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import baselines
from sdpg.config import outcome_part
from sdpg.core.recorder import read_rows
from sdpg.progress import Interrupted
from tests.core.conftest import SDPG, make_trainer, train_config, without_times


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_resumes_and_its_metrics_equal_an_uninterrupted_runs(tiny, tmp_path, precision, monkeypatch):
    algorithm, config = baselines.make("sdpg", **SDPG), train_config(precision=precision)
    make_trainer(tiny, tmp_path / "whole", algorithm, config).run()
    killed = make_trainer(tiny, tmp_path / "killed", algorithm, config)
    step = killed.step

    def step_until_killed(k):
        if k == 6:
            raise SystemExit("killed")  # after step 5; the last checkpoint is of step 4
        return step(k)

    monkeypatch.setattr(killed, "step", step_until_killed)
    with pytest.raises(SystemExit):
        killed.run()
    assert len(read_rows(tmp_path / "killed" / "metrics.jsonl")) == 5
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')  # cut off in the middle of a line
    make_trainer(tiny, tmp_path / "killed", algorithm, config).run()
    whole, resumed = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed"))
    assert without_times(resumed) == without_times(whole) and len(whole) == 6
    ours, theirs = (load_file(tmp_path / n / "checkpoints/step000006/model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    lists = [json.loads((tmp_path / n / "checkpoints/checkpoints.json").read_text()) for n in ("whole", "killed")]
    assert lists[0] == lists[1] and [c["step"] for c in lists[0]["checkpoints"]] == [0, 2, 4, 6]


def test_a_seed_reproduces_a_run_exactly_and_another_seed_differs(tiny, tmp_path):
    rows = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_trainer(tiny, tmp_path / name, baselines.make("grpo"), train_config(steps=3), seed=seed).run()
        rows.append(without_times(read_rows(tmp_path / name / "metrics.jsonl")))
    assert rows[0] == rows[1] != rows[2]


def test_ctrl_c_gives_up_the_step_and_saves_the_last(tiny, tmp_path, monkeypatch):
    algorithm = baselines.make("grpo")
    trainer = make_trainer(tiny, tmp_path / "w", algorithm)
    step = trainer.step

    def step_with_ctrl_c(k):
        if k == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(k)

    monkeypatch.setattr(trainer, "step", step_with_ctrl_c)
    with pytest.raises(Interrupted, match="stopped after step 2 of 6"):
        trainer.run()
    assert trainer.state.newest()["step"] == 2
    make_trainer(tiny, tmp_path / "w", algorithm).run()
    make_trainer(tiny, tmp_path / "whole", algorithm).run()
    stopped, whole = (without_times(read_rows(tmp_path / n / "metrics.jsonl")) for n in ("w", "whole"))
    assert stopped == whole


def test_another_run_is_refused_and_what_is_there_stays(tiny, tmp_path):
    make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(steps=2)).run()
    before = {path: path.read_bytes() for path in sorted((tmp_path / "w").rglob("*")) if path.is_file()}
    other = make_trainer(tiny, tmp_path / "w", baselines.make("opcd"), train_config(steps=2))
    with pytest.raises(ValueError, match=r"w holds an unfinished run, saved after step 2, .*algorithm: GRPO.* -> OPCD.*: mv "):
        other.run()
    assert {path: path.read_bytes() for path in sorted((tmp_path / "w").rglob("*")) if path.is_file()} == before
    (tmp_path / "w").rename(tmp_path / "w-old")  # as the message says
    other.run()
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert len(rows) == 2 and "loss_distillation" in rows[0]


def test_what_was_never_saved_is_begun_anew(tiny, tmp_path):
    """Killed before its first checkpoint, a run has nothing to go on from."""
    (tmp_path / "w" / "checkpoints").mkdir(parents=True)
    (tmp_path / "w" / "metrics.jsonl").write_text('{"step": 1}\n')
    make_trainer(tiny, tmp_path / "w", baselines.make("opcd"), train_config(steps=2)).run()
    assert len(read_rows(tmp_path / "w" / "metrics.jsonl")) == 2


def test_a_run_goes_on_with_another_execution(tiny, tmp_path, capsys):
    """Other micro-batches, padded rows, checkpointing and package versions: the same run."""
    whole, first, second = (train_config(), train_config(), train_config(micro_batch_tokens=60, packed=False))
    second = second.model_copy(update={"gradient_checkpointing": True})

    def trainer(work, config, version):
        made = make_trainer(tiny, tmp_path / work, baselines.make("grpo"), config)
        run = {"config": outcome_part({"train": config.dump()}), "versions": {"torch": "2", "numpy": version}}
        made.state.identity = run
        return made

    trainer("whole", whole, "1").run()
    stopped = trainer("w", first, "1")
    step = stopped.step
    stopped.step = lambda k: step(k) if k < 5 else stopped.stopper.__setattr__("asked", True) or stopped.stopper.check()
    with pytest.raises(Interrupted, match="stopped after step 4"):
        stopped.run()
    trainer("w", second, "2").run()
    said = capsys.readouterr().err
    assert "going on after step 4 of 6" in said and "other versions than when it was saved: versions numpy: 1 -> 2" in said
    ours, theirs = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("w", "whole"))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-4, abs=1e-6)


def test_a_corrupt_resume_state_is_one_clear_error(tiny, tmp_path):
    make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(steps=2)).run()
    (file,) = (tmp_path / "w" / "state" / "step000002").glob("*.safetensors")
    file.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot resume from .*step000002: shard.* not as it was.*delete .*w to train"):
        make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(steps=4)).run()


@pytest.mark.parametrize(
    "text", ["{}", "[1]", '{"step": 2, "updates": 2}', "{broken", '{"step": 2, "identity": {}, "sha256": {}}']
)
def test_a_corrupt_state_file_is_one_clear_error(tiny, tmp_path, text):
    make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(steps=2)).run()
    (tmp_path / "w" / "state" / "step000002" / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"state.json"):
        make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(steps=4)).run()
    assert (tmp_path / "w" / "metrics.jsonl").exists()  # nothing was thrown away


@pytest.mark.parametrize(("keep", "steps"), [("all", [0, 2, 4, 6]), ("last", [0, 6]), (4, [0, 4, 6])])
def test_checkpoints_are_kept_as_asked_for(tiny, tmp_path, keep, steps):
    make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(keep=keep)).run()
    listed = json.loads((tmp_path / "w/checkpoints/checkpoints.json").read_text())["checkpoints"]
    assert [c["step"] for c in listed] == steps
    assert sorted(p.name for p in (tmp_path / "w/checkpoints").iterdir()) == ["checkpoints.json", *(c["path"] for c in listed)]


def test_a_state_that_cannot_be_written_is_an_error_that_says_so(tiny, tmp_path, monkeypatch):
    """Saving goes on in the background; a full disk there ends the run all the same."""

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.HuggingFaceStorageWriter.write_data", full)
    with pytest.raises(OSError, match=r"could not write the state to .*state: .*No space left on device"):
        make_trainer(tiny, tmp_path / "w", baselines.make("grpo"), train_config(steps=2)).run()
